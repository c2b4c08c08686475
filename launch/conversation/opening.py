"""What answers in a conversation: a model of a run, a folder or the hub in this process, or one behind a server."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from data_pipeline.errors import BadInput
from launch.conversation.settings import Conversation
from launch.models import local, remote
from launch.models.find import find_model
from launch.models.reasoning import Pieces


def open_remote(
    talk: Conversation, key: Literal["endpoint", "guard"], until_the_end: contextlib.ExitStack
) -> remote.Remote | None:
    """Returns the connection to the server of `key`, None without one; raises BadInput when none answers."""
    server = talk.server(key)
    if server is None:
        return None
    opened, asked = until_the_end.enter_context(remote.connect(server)), getattr(talk, key)["model"]
    if asked is None:
        remote.change(opened, model=remote.served_by(opened, key))
    elif opened.models and asked not in opened.models:
        print(
            f"note: {server.base_url} lists {', '.join(opened.models[:10])}, not {key}.model={asked}", file=sys.stderr
        )
    return opened


def open_model(talk: Conversation, until_the_end: contextlib.ExitStack) -> tuple[Callable[[list[dict]], Pieces], str]:
    """Returns (what answers a list of messages piece by piece, its name)."""
    sampling, template = talk.sampling(), talk.chat_template_kwargs
    if opened := open_remote(talk, "endpoint", until_the_end):
        more = {"chat_template_kwargs": template} if template else {}
        more |= {} if talk.seed is None else {"seed": talk.seed}
        remote.change(opened, extra_body={**more, **opened.server.extra_body})
        return lambda messages: remote.ask(opened, messages, sampling, talk.think_prefilled), opened.server.model
    model = find_model(talk.run, talk.base_model, talk.checkpoint)
    loaded = local.load(model, "model")
    with (
        contextlib.suppress(BadInput),
        contextlib.closing(local.stream(loaded, "你好", replace(sampling, max_new_tokens=1))) as first,
    ):
        list(first)  # the first token of all is slow, so it comes before anybody waits for it
    if talk.seed is not None:
        import torch

        torch.manual_seed(talk.seed)
    return lambda messages: local.answer(loaded, messages, sampling, template), model
