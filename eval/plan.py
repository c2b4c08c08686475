"""What a set would ask, for a dry run: its source, licence and size, and the exact number of calls."""

from collections import Counter
from pathlib import Path

from data_pipeline.errors import BadInput
from eval.contract import benchmark_of_files, find_benchmark, judge_calls
from eval.judging.profiles import Sitting
from eval.settings import EvalSettings, load_set


def _sessions(name: str, sittings: list[Sitting], samples: int) -> list[str]:
    """Returns a line on sets of sessions: the client is asked twice a turn but the first, a third time about what it
    was asked where the reply cannot be read.
    """
    turns = [min(one.turns, one.profile.stays or one.turns) * one.sessions * samples for one in sittings]
    held = samples * sum(one.sessions for one in sittings)
    speaks = sum(turns) - held
    return [
        f"{name}: {held} sessions with {len(sittings)} clients: at most {sum(turns)} requests to each model, and for "
        f"each {2 * speaks} to the client's model (and {speaks} again, if none can be read)"
    ]


def calls(name: str, asked: EvalSettings, data: Path) -> list[str]:
    """Returns lines on the set `name`; a file that is not there, or cannot be read, is told and counts nothing.

    Judges are asked at most so often: never about a reply without an answer part.
    """
    one = asked.sets[name]
    declared = find_benchmark(one.benchmark, f"sets.{name}.benchmark") if one.benchmark else benchmark_of_files()
    lines = [f"{name}: {declared.about}"] if declared.about else []
    if not one.place(data).exists():
        return [*lines, f"{name}: {one.place(data)} is not there yet, so its calls are not counted"]
    try:
        loaded = load_set(name, one, data).loaded
    except BadInput as error:
        return [*lines, f"{name}: cannot be read: {error}"]
    lines += _sessions(name, [declared.session(item) for item in loaded.items], one.samples) if declared.session else [
        f"{name}: {len(loaded.items)} items, {len(loaded.items) * one.samples} requests to each model"
    ]  # fmt: skip
    if declared.session and not asked.client:
        lines.append(f"{name}: nobody is named who plays the clients: client.base_url, client.model")
    kinds = Counter(len(judge_calls(declared, item)) for item in loaded.items)
    each = sum(number * items for number, items in kinds.items()) * one.samples * asked.judge_repeats
    if each:
        judges = ", ".join(asked.judges) or "none is named: judge.base_url, judge.model"
        lines.append(f"{name}: for each model at most {each} requests to each judge ({judges})")
    return lines
