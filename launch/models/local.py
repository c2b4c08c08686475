"""A Hugging Face model in this process: one answer, piece by piece, or many responses in batches."""

import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import psutil
from rich.progress import track

from data_pipeline.errors import BadInput
from data_pipeline.records import Response
from launch.models.find import parameters
from launch.models.reasoning import Pieces
from reward.thought import OPEN, ThoughtStream

SHOWN = 300  # characters of somebody else's message


class GenerationInterrupted(Exception):
    """An answer ended before its end; what had come until then was given. The message says why."""


class LengthLimit(GenerationInterrupted):
    """It ended because it reached the limit that it was given: nothing failed."""


@dataclass(frozen=True)
class Sampling:
    max_new_tokens: int | None  # None: as many as the model's window has room for
    temperature: float = 0.7  # 0 is greedy
    top_p: float = 0.9

    def options(self) -> dict:
        """Returns the keys of a GenerationConfig that say how tokens are drawn."""
        if self.temperature == 0:
            return {}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}


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
    count, memory = parameters(model), psutil.virtual_memory().total
    if device == "cpu" and count and 4 * count > memory:
        raise BadInput(
            f"{key}={model}: {count / 1e9:.1f}B parameters take {4 * count / 2**30:.0f} GiB, and this machine has "
            f"{memory / 2**30:.0f} GiB and no GPU; serve it elsewhere and say endpoint.base_url=URL"
        )
    tokenizer = load_tokenizer(model)
    if not tokenizer.chat_template:
        raise BadInput(f"{key}={model}: its tokenizer has no chat template, so nobody knows how to talk to it")
    try:
        network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
        network = network.to(device).eval()
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


def stream(loaded: Loaded, text: str, sampling: Sampling, usage: Usage | None = None) -> Generator[str, None, None]:
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
    settings = GenerationConfig(
        max_new_tokens=limit,
        eos_token_id=sorted(loaded.ends),
        pad_token_id=loaded.tokenizer.pad_token_id or min(loaded.ends),
        **sampling.options(),
    )
    streamer = TextIteratorStreamer(loaded.tokenizer, skip_prompt=True, skip_special_tokens=True)
    stopped = threading.Event()
    state: dict[str, Any] = {"last": None, "error": None}

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
        raise GenerationInterrupted(f"the model failed: {type(state['error']).__name__}: {str(state['error'])[:SHOWN]}")
    if state["last"] not in loaded.ends:
        raise LengthLimit(f"cut at {limit} tokens" + (", the end of the model's window" if limit == room else ""))


def answer(loaded: Loaded, messages: list[dict], sampling: Sampling, template: dict) -> Pieces:
    """Yields thought and reply of a model in this process; raises as `stream` does."""
    text = prompt(loaded, messages, template)
    splitter = ThoughtStream(prefilled=text.rstrip().endswith(OPEN))
    try:
        for piece in stream(loaded, text, sampling):
            yield from splitter.feed(piece)
    except GenerationInterrupted:
        yield from splitter.end()
        raise
    yield from splitter.end()


def load_tokenizer(model: str):
    """Returns the model's own tokenizer; raises BadInput when it does not load."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError... ; the message is what helps
        raise BadInput(f"{model}: its tokenizer cannot be loaded: {str(error)[:300]}") from None


def generate(
    model: str,
    conversations: list[list[dict]],
    samples: int,
    sampling: Sampling,
    batch_size: int,
    seed: int,
    title: str = "generating",
) -> list[list[Response]]:
    """Returns `samples` responses per conversation, in order. Temperature 0 is greedy.

    Batches are sorted by length; the seed makes a run repeatable on the same machine with the same batch size.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours shows what takes long
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    network = network.to(device).eval()
    ends = network.generation_config.eos_token_id or tokenizer.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    settings = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
        **sampling.options(),
    )
    prompts = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)
    order = sorted((len(prompt), item, sample) for item, prompt in enumerate(prompts) for sample in range(samples))
    responses: dict[tuple[int, int], Response] = {}
    torch.manual_seed(seed)
    for start in track(range(0, len(order), batch_size), description=f"  {title}", transient=True):
        batch = order[start : start + batch_size]
        inputs = tokenizer(
            [prompts[item] for _, item, _ in batch], return_tensors="pt", padding=True, add_special_tokens=False
        ).to(device)
        with torch.inference_mode():
            output = network.generate(**inputs, generation_config=settings)[:, inputs["input_ids"].shape[1] :].tolist()
        for (_, item, sample), ids in zip(batch, output, strict=True):
            end = next((i for i, token in enumerate(ids) if token in ends), None)
            text = tokenizer.decode(ids[:end], skip_special_tokens=True)
            responses[item, sample] = Response(text, "length" if end is None else "stop", len(ids[:end]))
    return [[responses[item, sample] for sample in range(samples)] for item in range(len(prompts))]
