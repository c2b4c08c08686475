"""Where the responses of an evaluation come from: a server that is named, a vLLM that is started here, this process."""

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from data_pipeline import llm
from data_pipeline.llm.places import Where
from data_pipeline.records import Response
from eval.responses import Generate
from eval.settings import EvalSettings, SetSettings
from launch.cli import arguments
from launch.frameworks import vllm
from launch.models import local, vllm_server
from launch.models.reasoning import Sampling
from launch.running.folder import ledger_of

TIMEOUT = 1800  # seconds for a whole answer, as recipes/llm/vllm.yaml


def engine_of(asked: EvalSettings) -> str:
    """Returns "vllm" or "transformers", for models that no server is named for; raises BadInput for vLLM where it is
    not, and for flags without it.
    """
    engine = asked.engine if asked.engine != "auto" else "vllm" if vllm.is_installed() else "transformers"
    if engine == "vllm":
        vllm.check_installed("engine=vllm", cpu=not arguments.count_gpus())
        if asked.vllm:
            argv = vllm_server.command("MODEL", "NAME", (vllm_server.HOST, 8000), asked.vllm)
            vllm.check_flags(argv[1:], f"vllm={asked.vllm}")
    return engine


@contextlib.contextmanager
def answering(
    asked: EvalSettings, engine: str, checkpoint: str, model: dict | str, folder: Path
) -> Iterator[Callable[[str], Generate]]:
    """Gives the function that says, for a set's name, what generates the responses to it; all of one checkpoint.

    `model` is its ID, or its {path, sha256}. It is loaded, or vLLM started, once, when it is first asked, and goes with
    the block: the rounds of a session ask again and again.
    """
    path = model if isinstance(model, str) else model["path"]
    ledger = ledger_of(folder)
    with contextlib.ExitStack() as until_the_end:

        @cache
        def started() -> llm.Server:
            name = served_name(checkpoint, model)
            flags = vllm_server.on_all_cards(asked.vllm)
            log = folder / f"vllm.{checkpoint}.log"
            address = until_the_end.enter_context(vllm_server.serving(path, name, flags, log))
            at_once = min(1000, asked.batch_size * vllm_server.cards())
            return llm.Server(address, name, concurrency=at_once, timeout_s=TIMEOUT)

        @cache
        def loaded() -> local.Loaded:
            return local.load(path, "model")

        def generate(name: str) -> Generate:
            if engine == "transformers":
                return lambda *what: in_process(asked, loaded(), f"{path} on {name}")(*what)
            return lambda *what: from_server(asked, asked.endpoints.get(checkpoint) or started(), ledger, name)(*what)

        yield generate


def served_name(checkpoint: str, model: dict | str) -> str:
    """Returns what vLLM calls a checkpoint: by its content, since the ledger answers for a model by its name."""
    if isinstance(model, str) or not model["sha256"]:
        return model if isinstance(model, str) else model["path"]
    return f"{checkpoint}-{model['sha256'][:16]}"


def from_server(asked: EvalSettings, server: llm.Server, ledger: Where, name: str) -> Generate:
    """Returns what asks a server for the responses to the set `name`."""

    def ask(conversations: list[list[dict]], ids: list[str], of: SetSettings) -> list[list[Response]]:
        params = {**sampling(asked, of).params(), "seed": asked.seed}
        return llm.generate(server, conversations, of.samples, f"eval/{name}", ids, ledger, **params)

    return ask


def in_process(asked: EvalSettings, loaded: local.Loaded, title: str) -> Generate:
    """Returns what generates them in this process."""

    def ask(conversations: list[list[dict]], ids: list[str], of: SetSettings) -> list[list[Response]]:
        return local.generate(
            loaded, conversations, of.samples, sampling(asked, of), asked.batch_size, asked.seed, title
        )

    return ask


def sampling(asked: EvalSettings, of: SetSettings) -> Sampling:
    return Sampling(asked.max_new_tokens, of.temperature, of.top_p, of.top_k, of.repetition_penalty)
