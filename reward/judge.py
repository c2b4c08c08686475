"""The reward of open questions and of replies to a client: a judge model's score. Questions with options: psyche.py.

Plugged in by a recipe instead of psyche.py: `reward.custom_reward_function.path: reward/judge.py`, with the judge's
server in its `reward_kwargs`. verl awaits `compute_score` in the event loop of each reward worker; all samples of a
loop share one connection with the server's limits, and every worker the ledger, so that no judgement is paid twice.

A judgement that does not come or cannot be read is missing: `judge` is None and `judge_failed` counts it. verl needs a
number as the reward, and it is the one without a judgement, the format alone: any higher one would pay a reply for
breaking the judge. It costs the samples that a passing fault hits; the metrics of each step say how many
(launch/frameworks/replay_buffer.py). A mistake in the recipe is no such failure: it raises.
"""

import asyncio
import json
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from pydantic import BaseModel

from data_pipeline import llm
from data_pipeline.llm.places import Where, place
from reward import psyche
from reward.answer import MAX_ANSWER_CHARS
from reward.thought import split_thought

if TYPE_CHECKING:
    from data_pipeline.llm.client import AskOne

REPOSITORY = Path(__file__).resolve().parent.parent
LEDGER = "runs/judge.sqlite"
PROMPTS = REPOSITORY / "data_pipeline" / "prompts"
JUDGED = {"open": "judge_open_answer", "dialogue": "judge_empathy"}  # kinds of rows and their prompts
PATIENCE = {"timeout_s": 60, "attempts": 3}  # ours, unless the recipe says otherwise: a rollout waits for its reward
PROBE = {"question": "我最近总是睡不着。", "reference": "", "answer": "听起来你这段时间很累。多久了？"}  # ours
FENCED = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)


log = logging.getLogger(__name__)
_Key = tuple[asyncio.AbstractEventLoop, str, Where]  # event loop, server, ledger
_lines: dict[_Key, tuple["asyncio.Future[AskOne]", asyncio.Task[None]]] = {}  # who asks, and its keeper
_failed = 0  # of this process


class Judgement(BaseModel, extra="forbid"):
    """What a server with `json_schema` decodes within; any reply is read by `read_score`."""

    score: float  # 0 to 10
    reason: str


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    judge: Mapping[str, Any] | None = None,
    judge_weight: float = 1.0,
    prompt: str | None = None,
    ledger: str = LEDGER,
    format_weight: float = 0.1,
    format_gate: bool = False,
    think_prefilled: bool = False,
    **rule: Any,
) -> dict[str, float | None]:
    """Returns psyche's keys with judge in [0, 1] and judge_failed (0 or 1), the same for every sample.

    Both are None where nothing was judged: of questions with options, and of a response without anything to judge.
    Where a judgement is missing, judge is None and judge_failed 1. Questions with options score as in psyche.py. An
    open one, or a reply in a dialogue (`extra_info["kind"]`), has a reference as its ground truth: score =
    format_weight * format + (1 - format_weight) * judge_weight * judge; acc and elastic are 0; readable means that
    there is something to judge. Raises BadInput or ValueError for settings that cannot be.

    `judge` is the judge's server, {base_url: ..., model: ...}. `judge_weight` is how much its word counts beside a
    rule's, from 0 to 1; ours. `prompt` names a file judge_*.jinja of data_pipeline/prompts; null takes the one for the
    kind of row. `ledger` is the file that keeps its judgements, so that none is paid twice, or postgresql://USER@HOST/DATABASE.
    """
    kwargs: dict[str, Any] = {
        "format_weight": format_weight,
        "format_gate": format_gate,
        "think_prefilled": think_prefilled,
        **rule,
    }
    info = extra_info or {}
    kind = info.get("kind")
    if kind not in JUDGED:
        score = psyche.compute_score(data_source, solution_str, ground_truth, extra_info, **kwargs)
        return score | {"judge": None, "judge_failed": None}
    settings, server, template = prepare(kind, judge, judge_weight, prompt)

    score = psyche.compute_score(data_source, solution_str, "", None, **kwargs)  # without a key: the format alone
    answer = (split_thought(solution_str, think_prefilled)[1] or "").strip()
    readable, judged, failed = 0 < len(answer) <= MAX_ANSWER_CHARS, None, None
    if readable:
        text = template.render(question=info.get("question"), reference=ground_truth, answer=answer).strip()
        try:
            judged = await _ask(server, settings, ledger_at(ledger), text, str(info.get("id", "")))
            failed = 0.0
        except Exception as error:  # whatever it is, it must neither end the training nor pay
            _count(error)
            failed = 1.0
    earned = judged if score["format"] or not format_gate else None
    score["score"] += (1 - format_weight) * judge_weight * (earned or 0.0)
    return score | {"readable": float(readable), "judge": judged, "judge_failed": failed}


def prepare(
    kind: str, judge: Mapping[str, Any] | None, judge_weight: Any = 1.0, prompt: str | None = None
) -> tuple[str, llm.Server, jinja2.Template]:
    """Returns (settings as JSON, server, prompt) of what judges rows of this kind; raises as `compute_score`."""
    if not isinstance(judge_weight, int | float) or not 0 <= judge_weight <= 1:
        raise ValueError(f"judge_weight={judge_weight!r}: must be a number from 0 to 1")
    if judge is None:
        raise ValueError(f"reward_kwargs.judge is missing: {kind} rows need the judge's base_url and model")
    settings = json.dumps(judge, sort_keys=True, default=_plain)
    return settings, _server(settings), _template(prompt or JUDGED[kind])


def probe(settings: str, server: llm.Server, template: jinja2.Template) -> None:
    """Asks for one judgement; raises BadInput or ValueError when none comes.

    The ledger is thrown away: what was answered yesterday says nothing about the server of today.
    """
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_ask(server, settings, Path(folder, "probe.sqlite"), template.render(**PROBE).strip(), "probe"))


def ledger_at(ledger: str) -> Where:
    """Returns where judgements are kept; raises BadInput for an address that cannot be."""
    return place(ledger, REPOSITORY) if "://" in ledger else REPOSITORY / ledger


def read_score(reply: str) -> float:
    """Returns the score in [0, 1] of a judge's reply, a JSON object with a `score` from 0 to 10.

    A thought before it and a code fence around it are allowed. Raises ValueError for anything else.
    """
    text = reply.rpartition("</think>")[2].strip()
    fenced = FENCED.fullmatch(text)
    try:
        score = json.loads(fenced[1] if fenced else text)["score"]
    except (ValueError, TypeError, KeyError, RecursionError):
        score = None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 10:
        raise ValueError(f"no JSON object with a score from 0 to 10: {reply[:200]!r}")
    return score / 10


async def _ask(server: llm.Server, settings: str, ledger: Where, text: str, row: str) -> float:
    loop = asyncio.get_running_loop()
    key = (loop, settings, ledger)
    if key not in _lines:
        opened = loop.create_future()
        _lines[key] = opened, loop.create_task(_keep_line(key, server, ledger, opened))
    ask = await asyncio.shield(_lines[key][0])
    message = {"role": "user", "content": text}
    params = {"temperature": 0.0, "max_tokens": 1024}
    response = await ask(llm.Request("judge", row, 0, [message], params, Judgement))
    if response.finish == "failed":
        raise ValueError(response.error)
    return read_score(response.text)


async def _keep_line(key: _Key, server: llm.Server, ledger: Where, opened: "asyncio.Future[AskOne]") -> None:
    """Holds the connection until the event loop ends, which cancels this task."""
    try:
        async with llm.connected(server, ledger) as ask:
            opened.set_result(ask)
            await key[0].create_future()
    except Exception as error:
        if opened.done():
            raise
        opened.set_exception(error)  # the next sample tries again
    finally:
        del _lines[key]


@cache
def _server(settings: str) -> llm.Server:
    return llm.server_from(PATIENCE | json.loads(settings), "reward_kwargs.judge")


def prompt_files(prompt: str | None) -> list[Path]:
    """Returns the prompts that `compute_score` takes, with this `prompt` of the recipe."""
    return [PROMPTS / f"{name}.jinja" for name in ([prompt] if prompt else JUDGED.values())]


@cache
def _template(name: str) -> jinja2.Template:
    known = sorted(file.stem for file in PROMPTS.glob("judge_*.jinja"))
    if name not in known:
        raise ValueError(f"reward_kwargs.prompt={name!r}: data_pipeline/prompts has {', '.join(known)}")
    jinja = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # `tojson` leaves no quote or tag to break out of
    return jinja.from_string((PROMPTS / f"{name}.jinja").read_text(encoding="utf-8"))


def _plain(node: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any] | list[Any]:
    return dict(node) if isinstance(node, Mapping) else list(node)  # verl hands OmegaConf's containers over


def _count(error: Exception) -> None:
    global _failed
    _failed += 1
    if _failed & (_failed - 1) == 0:  # 1, 2, 4, 8...: not a line per sample
        log.warning("%d judgements are missing so far, each earned nothing; the last one: %s", _failed, error)
