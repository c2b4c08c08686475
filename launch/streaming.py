"""One answer, piece by piece, of a Hugging Face model in this process."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from data_pipeline.records import BadInput
from launch import preflight
from launch.thought import OPEN, Piece, Splitter

SHOWN = 300  # characters of somebody else's message


class Cut(Exception):
    """An answer ended before its end; what had come until then was given. The message says why."""


class Full(Cut):
    """It ended because it reached the limit that it was given: nothing failed."""


@dataclass(frozen=True)
class Sampling:
    max_new_tokens: int | None  # None: as many as the model's window has room for
    temperature: float = 0.7  # 0 is greedy
    top_p: float = 0.9


@dataclass
class Loaded:
    """A model in memory."""

    network: Any
    tokenizer: Any
    ends: set[int]  # tokens that end an answer
    window: int  # tokens of prompt and answer together


@dataclass
class Usage:
    prompt: int = 0
    tokens: int = 0


def load(model: str, key: str) -> Loaded:
    """Returns the model in memory; raises BadInput, naming `key`: no chat template, not loadable, too large."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    count, memory = preflight.parameters(model), psutil.virtual_memory().total
    if device == "cpu" and count and 4 * count > memory:
        raise BadInput(
            f"{key}={model}: {count / 1e9:.1f}B parameters take {4 * count / 2**30:.0f} GiB, and this machine has "
            f"{memory / 2**30:.0f} GiB and no GPU; serve it elsewhere and say endpoint.base_url=URL"
        )
    tokenizer = preflight.load_tokenizer(model)
    if not tokenizer.chat_template:
        raise BadInput(f"{key}={model}: its tokenizer has no chat template, so nobody knows how to talk to it")
    try:
        network = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device).eval()
    except Exception as error:  # as load_tokenizer: many kinds, the message is what helps
        raise BadInput(f"{key}={model}: cannot be loaded: {str(error)[:SHOWN]}") from None
    ends = network.generation_config.eos_token_id or tokenizer.eos_token_id
    window = getattr(network.config.get_text_config(), "max_position_embeddings", None) or 2**31
    return Loaded(network, tokenizer, set(ends if isinstance(ends, list) else [ends]), window)


def prompt(loaded: Loaded, messages: list[dict], template: dict) -> str:
    """Returns the text that the model continues; raises BadInput when its chat template refuses the messages."""
    try:
        return loaded.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **template)
    except Exception as error:  # jinja2's, and what a template makes of odd messages
        raise BadInput(f"the chat template refuses these messages: {str(error)[:SHOWN]}") from None


def check_room(loaded: Loaded, text: str) -> int:
    """Returns how many tokens the answer to the prompt `text` may have; raises BadInput when there is no room left."""
    count = len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])
    if count >= loaded.window:
        raise BadInput(f"the conversation has {count} tokens, and the model takes {loaded.window} with the answer")
    return loaded.window - count


def stream(loaded: Loaded, text: str, sampling: Sampling, usage: Usage | None = None) -> Iterator[str]:
    """Yields the continuation of the prompt `text`; closing it, or an exception in it, stops the model.

    Raises BadInput when the prompt leaves no room, Full when the answer ran into its limit, Cut when the model failed.
    """
    import torch
    from transformers import GenerationConfig, StoppingCriteriaList, TextIteratorStreamer

    usage = usage or Usage()
    room = check_room(loaded, text)
    inputs = loaded.tokenizer(text, return_tensors="pt", add_special_tokens=False).to(loaded.network.device)
    usage.prompt = inputs["input_ids"].shape[1]
    limit = min(sampling.max_new_tokens or room, room)
    sampled = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    settings = GenerationConfig(
        max_new_tokens=limit,
        eos_token_id=sorted(loaded.ends),
        pad_token_id=loaded.tokenizer.pad_token_id or min(loaded.ends),
        **(sampled if sampling.temperature > 0 else {}),
    )
    streamer = TextIteratorStreamer(loaded.tokenizer, skip_prompt=True, skip_special_tokens=True)
    stopped, state = threading.Event(), {"last": None, "error": None}

    def watch(ids, scores, **_):
        usage.tokens, state["last"] = ids.shape[1] - usage.prompt, int(ids[0, -1])
        return torch.full((1,), stopped.is_set(), device=ids.device)

    def work() -> None:
        try:
            with torch.inference_mode():
                loaded.network.generate(
                    **inputs,
                    generation_config=settings,
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([watch]),
                )
        except Exception as error:  # it belongs to the thread that reads
            state["error"] = error
            streamer.on_finalized_text("", stream_end=True)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        yield from (piece for piece in streamer if piece)
    finally:
        stopped.set()
        worker.join()
    if state["error"]:
        raise Cut(f"the model failed: {type(state['error']).__name__}: {str(state['error'])[:SHOWN]}")
    if state["last"] not in loaded.ends:
        raise Full(f"cut at {limit} tokens" + (", the end of the model's window" if limit == room else ""))


def answer(loaded: Loaded, messages: list[dict], sampling: Sampling, template: dict) -> Iterator[Piece]:
    """Yields thought and reply of a model in this process; raises as `stream` does."""
    text = prompt(loaded, messages, template)
    splitter = Splitter(prefilled=text.rstrip().endswith(OPEN))
    try:
        for piece in stream(loaded, text, sampling):
            yield from splitter.feed(piece)
    except Cut:
        yield from splitter.end()
        raise
    yield from splitter.end()
