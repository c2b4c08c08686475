"""A Hugging Face model in this process: one answer, piece by piece, or many responses in batches."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from data_pipeline.errors import BadInput
from data_pipeline.llm.completions import SHOWN
from data_pipeline.records import Response
from data_pipeline.safety.shown import tracked
from launch.models.find import parameters
from launch.models.reasoning import Pieces, Sampling, Stream, thought_and_reply, until
from reward.thought import OPEN


@dataclass
class Loaded:
    """A model in memory."""

    network: Any
    tokenizer: Any  # pads on the left
    ends: set[int]  # tokens that end an answer
    window: int  # tokens of prompt and answer together


def load_tokenizer(model: str):
    """Returns the model's own tokenizer; raises BadInput when it does not load."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError... ; the message is what helps
        raise BadInput(f"{model}: its tokenizer cannot be loaded: {_told(error)}{elsewhere(model)}") from None


def elsewhere(model: str) -> str:
    """Returns how an ID of the hub comes to a machine that does not reach it, nothing for a folder."""
    if Path(model).is_dir():
        return ""
    name = model.rpartition("/")[2]
    return (
        f" Where there is a network: .venv/bin/hf download {model} --local-dir {name}; copy the folder here, "
        f"and say base_model={name}"
    )


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:SHOWN]


def check_memory(model: str, key: str, copies: int = 1) -> None:
    """Raises BadInput, naming `key`, for a model whose weights in fp32, so many times, this machine's memory cannot
    hold.
    """
    count, memory = copies * (parameters(model) or 0), psutil.virtual_memory().total
    if count and 4 * count > memory:
        times = f"{copies} times " if copies > 1 else ""
        raise BadInput(
            f"{key}={model}: {times}{count / copies / 1e9:.1f}B parameters take {4 * count / 2**30:.0f} GiB, and this "
            f"machine has {memory / 2**30:.0f} GiB and no GPU; serve it elsewhere and say endpoint.base_url=URL"
        )


def load(model: str, key: str) -> Loaded:
    """Returns the model in memory; raises BadInput, naming `key`: no chat template, not loadable, too large."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if device == "cpu":
        check_memory(model, key)
    tokenizer = load_tokenizer(model)
    if not tokenizer.chat_template:
        raise BadInput(f"{key}={model}: its tokenizer has no chat template, so nobody knows how to talk to it")
    try:
        network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, trust_remote_code=False)
        network = network.to(device).eval()
    except Exception as error:  # as load_tokenizer: many kinds, the message is what helps
        raise BadInput(f"{key}={model}: cannot be loaded: {_told(error)}{elsewhere(model)}") from None
    ends = network.generation_config.eos_token_id or tokenizer.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    network.generation_config = GenerationConfig()  # transformers would fill what is not asked for from the model's own
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    window = getattr(network.config.get_text_config(), "max_position_embeddings", None) or 2**31
    return Loaded(network, tokenizer, ends, window)


def prompt(loaded: Loaded, messages: list[dict], template: dict) -> str:
    """Returns the text that the model continues; raises BadInput when its chat template refuses the messages."""
    try:
        return loaded.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **template)
    except Exception as error:  # jinja2's, and what a template makes of odd messages
        raise BadInput(f"the chat template refuses these messages: {str(error)[:SHOWN]}") from None


def generate(
    loaded: Loaded,
    conversations: list[list[dict]],
    samples: int,
    sampling: Sampling,
    batch_size: int,
    seed: int,
    title: str = "generating",
) -> list[list[Response]]:
    """Returns `samples` responses per conversation, in order. Temperature 0 is greedy. Raises BadInput as `prompt`.

    Batches are sorted by length; the seed makes a run repeatable on the same machine with the same batch size.
    """
    import torch

    prompts = [prompt(loaded, messages, {}) for messages in conversations]
    order = sorted((len(text), item, sample) for item, text in enumerate(prompts) for sample in range(samples))
    responses: dict[tuple[int, int], Response] = {}
    torch.manual_seed(seed)
    starts = range(0, len(order), batch_size)
    for start in tracked(starts, title, len(starts)):
        batch = order[start : start + batch_size]
        inputs = _encoded(loaded, [prompts[item] for _, item, _ in batch])
        for (_, item, sample), ids in zip(batch, _continued(loaded, inputs, sampling), strict=True):
            text = loaded.tokenizer.decode(_answer_of(loaded, ids), skip_special_tokens=True)
            responses[item, sample] = _response(loaded, ids, text)
    return [[responses[item, sample] for sample in range(samples)] for item in range(len(prompts))]


def stream(loaded: Loaded, text: str, sampling: Sampling, stops: list[str] | None = None) -> Stream:
    """Returns the continuation of the prompt `text`, up to the first of the words `stops`: its pieces, at last the
    Response of the whole. Closing it, or an exception in who reads it, stops the model.

    A model that fails gives a Response with finish "failed". Raises BadInput, at once, when the prompt leaves no room.
    """
    inputs = _encoded(loaded, [text])
    count = inputs["input_ids"].shape[1]
    if count >= loaded.window:
        raise BadInput(f"the conversation has {count} tokens, and the model takes {loaded.window} with the answer")
    room = loaded.window - count
    sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens or room, room))
    return _streamed(loaded, inputs, sampling, stops or [])


def answer(loaded: Loaded, messages: list[dict], sampling: Sampling, template: dict) -> Pieces:
    """Yields thought and reply of a model in this process; raises as `stream` and `thought_and_reply`."""
    text = prompt(loaded, messages, template)
    with closing(stream(loaded, text, sampling)) as events:
        yield from thought_and_reply(events, text.rstrip().endswith(OPEN), sampling.max_new_tokens)


def _encoded(loaded: Loaded, texts: list[str]) -> Any:
    encoded = loaded.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    return encoded.to(loaded.network.device)


def _continued(loaded: Loaded, inputs: Any, sampling: Sampling, **more: Any) -> list[list[int]]:
    """Returns the new tokens of each prompt, with what fills a shorter one up; `more` is transformers' own."""
    import torch
    from transformers import GenerationConfig

    drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k or 0}
    settings = GenerationConfig(
        do_sample=sampling.temperature > 0,
        repetition_penalty=sampling.repetition_penalty or 1.0,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sorted(loaded.ends),
        pad_token_id=loaded.tokenizer.pad_token_id,
        **(drawn if sampling.temperature else {}),
    )
    with torch.inference_mode():
        output = loaded.network.generate(**inputs, generation_config=settings, **more)
    return output[:, inputs["input_ids"].shape[1] :].tolist()


def _answer_of(loaded: Loaded, ids: list[int]) -> list[int]:
    return ids[: next((place for place, token in enumerate(ids) if token in loaded.ends), None)]


def _response(loaded: Loaded, ids: list[int], text: str) -> Response:
    tokens = len(_answer_of(loaded, ids))
    return Response(text, "length" if tokens == len(ids) else "stop", tokens)


def _streamed(loaded: Loaded, inputs: Any, sampling: Sampling, stops: list[str]) -> Stream:
    import torch
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    streamer = TextIteratorStreamer(loaded.tokenizer, skip_prompt=True, skip_special_tokens=True)
    stopped = threading.Event()
    criteria = [lambda ids, scores, **_: torch.full((1,), stopped.is_set(), device=ids.device)]
    whole, ended = "", False

    def pieces() -> Iterator[str]:
        nonlocal ended
        yield from (piece for piece in streamer if piece)
        ended = True

    with ThreadPoolExecutor(1) as pool:
        more = {"streamer": streamer, "stopping_criteria": StoppingCriteriaList(criteria)}
        work = pool.submit(_continued, loaded, inputs, sampling, **more)
        work.add_done_callback(lambda _: streamer.on_finalized_text("", stream_end=True))  # also when it has failed
        try:
            for piece in until(pieces(), stops):
                whole += piece
                yield "text", piece
        finally:
            stopped.set()
    prompt_tokens = inputs["input_ids"].shape[1]
    if error := work.exception():
        told = f"the model failed: {type(error).__name__}: {str(error)[:SHOWN]}"
        yield Response(whole, "failed", 0, prompt_tokens=prompt_tokens, error=told)
        return
    response = _response(loaded, work.result()[0], whole)
    yield replace(response, prompt_tokens=prompt_tokens, finish=response.finish if ended else "stop")  # a stop word
