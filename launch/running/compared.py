"""Evaluated models beside one another: RUN/CHECKPOINT, the set that all have answered, their replies in pairs."""

from collections.abc import Mapping
from pathlib import Path

from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.records import Response
from eval import responses
from eval.items import fingerprint
from eval.judging import pairs
from eval.judging.pairs import Pair
from eval.metrics import answer_part
from eval.responses import Asked
from eval.settings import EvalSettings, load_set


def answered(word: str) -> tuple[str, dict[str, tuple[Path, Asked]]]:
    """Returns ("run/checkpoint", {set: (file of responses, what it answers)}) of one side of a comparison."""
    run, _, checkpoint = word.partition("/")
    folder = Path("runs") / run / "eval"
    files = responses.evaluated(folder, word)
    have = list(dict.fromkeys(about.checkpoint for about in files.values()))
    checkpoint = checkpoint or have[-1]
    if checkpoint not in have:
        raise BadInput(f"{word}: run {run} has evaluated {', '.join(have)}, not {checkpoint}")
    return f"{run}/{checkpoint}", {
        about.set: (folder / file, about) for file, about in files.items() if about.checkpoint == checkpoint
    }


def set_of_all(sides: Mapping[str, Mapping], given: str | None) -> str:
    """Returns the set that all have answered; raises BadInput where there is none, or several and none is given."""
    common = [name for name in next(iter(sides.values())) if all(name in of for of in sides.values())]
    if given and given not in common:
        raise BadInput(
            f"set={given}: all of these have answered {', '.join(common) or 'no set'}{did_you_mean(given, common)}"
        )
    if not given and len(common) != 1:
        told = "; ".join(f"{side} {', '.join(of)}" for side, of in sides.items())
        raise BadInput(f"set=NAME: which one? all have answered {', '.join(common) or 'no set'} ({told})")
    return given or common[0]


def pairs_on(
    sides: Mapping[str, Mapping[str, tuple[Path, Asked]]], name: str, asked: EvalSettings, data: Path
) -> list[Pair]:
    """Returns the pairs of the first replies of all; raises BadInput unless all have answered the same questions."""
    one = load_set(name, asked.sets[name], data)
    replies: dict[str, dict[str, str]] = {}
    prefilled = asked.scoring_of(one.benchmark).think_prefilled

    def shown(text: str) -> str:
        return one.benchmark.shown(text) if text else ""

    for side, of in sides.items():
        file, about = of[name]
        if fingerprint(one.loaded.items) != about.fingerprint:
            raise BadInput(f"set {name}: {file} answers another version of the questions than {asked.run} has now")
        replies[side] = {
            row.id: shown(answer_part(Response(row.response, row.finish, row.tokens, row.reasoning), prefilled))
            for row in responses.read_rows(file) if row.sample == 0
        }  # fmt: skip
    histories = {
        item.id: tuple((m["role"], m["content"]) for m in one.benchmark.requests(item) if m["role"] != "system")
        for item in one.loaded.items
    }
    made = pairs.pairs_of(histories, replies, whole=one.benchmark.session is not None)
    if not made:
        raise BadInput(f"set {name}: no item that two of {', '.join(sides)} have answered")
    return made
