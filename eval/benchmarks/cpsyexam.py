"""CPsyExam (COLING 2025, arXiv 2405.10212): KG and CA x single and multi, zero- or five-shot, and open questions (QA).

Two kinds of average are in use, and they differ: the README's leaderboard weights by item within KG and CA
(`item_weighted`), evaluate_submission.py takes the mean over subject files, then over the two types (`subject_macro`).
The released test split has no answers: `submission` writes what the official site takes. Accuracies are in [0, 1],
judges' scores and `published_columns` in 0..100.
"""

import random
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from data_pipeline import sources
from data_pipeline.errors import BadInput
from data_pipeline.records import LETTERS, Question, Reject, Response
from eval import metrics
from eval.items import Item, Loaded, by_subject, check, compare, fingerprint, group_by, score_all
from reward.thought import split_thought

CELLS = ("KG_single", "KG_multi", "CA_single", "CA_multi")
QA_CELLS = ("QA_knowledge", "QA_analyse")
# Counted on the released zips (2024-09-10).
RELEASE = {
    "train": {"KG_single": 6852, "KG_multi": 2222, "CA_single": 49, "CA_multi": 732},
    "dev": {"KG_single": 764, "KG_multi": 245, "CA_single": 5, "CA_multi": 83},
    "test": {"KG_single": 2321, "KG_multi": 781, "CA_single": 600, "CA_multi": 200},
}
QA_RELEASE = {
    "train": {"QA_knowledge": 2904, "QA_analyse": 17},
    "test": {"QA_knowledge": 100, "QA_analyse": 100},
}
JUDGE = "gpt-4-0125-preview"  # the official judge of QA (evaluate_qa.py); another one gives other numbers


def load(path: str | Path, split: str = "test", shots: int = 0, seed: int = 42, qa: bool = False) -> Loaded:
    """Returns the multiple-choice items of a split, or its open ones, in file order.

    `split` is train, dev or test. `shots` is how many examples of the train split every item bears: 0 or 5, published.
    `seed` chooses them, with the item's id alone. `qa` takes the open questions in place of the multiple-choice ones.

    Where the whole split has no answers, its questions are kept with answer "" for `submission`. Raises BadInput for a
    path or split that is not there, another version, and a number of shots that is not published (0 or 5; 0 for QA).
    """
    if shots not in ((0,) if qa else (0, 5)):
        raise BadInput(f"shots={shots}: CPsyExam is published with {'0 (QA)' if qa else '0 and 5'}")
    records = list(sources.read("cpsyexam", path, split=split, withheld=True, qa=qa))
    questions = [r for r in records if isinstance(r, Question)]
    rejects = [r for r in records if isinstance(r, Reject)]
    notes = []
    if qa or any(q.answer for q in questions):
        rejects += [Reject(q.id, q.meta["where"], "no answer") for q in questions if not (q.answer or q.reference)]
        questions = [q for q in questions if q.answer or q.reference]
    else:
        notes.append(
            f"the answers of split {split} are withheld: no accuracy; send the submission file to the site "
            f"({len(rejects)} questions that cannot be asked are not in it)"
        )
    items = [Item(q, cell(q)) for q in questions]
    release = (QA_RELEASE if qa else RELEASE).get(split, {})
    notes += compare(Path(path), items, rejects, release) if release else [f"split {split} has no published counts"]
    return Loaded(items, rejects, notes + (add_shots(items, path, shots, seed) if shots else []))


def cell(question: Question) -> str:
    """Returns the cell: family and type as the file's name says them, since that is how the leaderboard counts."""
    if question.kind == "open":
        return f"QA_{question.meta['family']}"
    file = question.meta["file"]
    kind = "single" if "单项" in file else "multi" if "多项" in file else question.kind
    return f"{file.split('-')[0]}_{kind}"


# --- five-shot examples -----------------------------------------------------------------------------------------------


def add_shots(items: list[Item], path: str | Path, shots: int, seed: int) -> list[str]:
    """Puts `shots` examples of the train split before every item; returns notes.

    Examples are of the same subject file and type, as in the released scripts, and where those are too few the rest
    is of the same family (KG or CA) and type. A question with the same normalised stem is never an example.
    """
    train = [q for q in sources.read("cpsyexam", path, split="train") if isinstance(q, Question)]
    near, wide = {}, {}  # {(file or family, type): {normalised stem: the first question with it}}
    for question in train:
        stem = normalise(question.stem)
        near.setdefault((question.meta["file"], question.kind), {}).setdefault(stem, question)
        wide.setdefault((cell(question)[:2], question.kind), {}).setdefault(stem, question)
    short = lacking = 0
    for item in items:
        question = item.question
        pools = (near.get((question.meta["file"], question.kind), {}), wide.get((item.cell[:2], question.kind), {}))
        item.shots, filled = draw(question, pools, shots, seed)
        short += filled
        lacking += len(item.shots) < shots
    notes = [f"{shots} shots of the train split, same subject and type, seed {seed}"]
    if short:
        notes.append(
            f"{short} of {len(items)} items: too few examples of their subject, filled from the same family and type"
        )
    if lacking:
        notes.append(f"{lacking} of {len(items)} items have fewer than {shots} examples")
    return notes


def draw(
    question: Question, pools: Sequence[dict[str, Question]], shots: int, seed: int
) -> tuple[tuple[Question, ...], bool]:
    """Returns (examples, whether the first pool was too small). Key and explanation of `question` play no part."""
    chance = random.Random(f"{seed}/{question.id}")
    taken: dict[str, Question | None] = {normalise(question.stem): None}
    for pool in pools:
        stems = list(pool)
        for stem in chance.sample(stems, min(len(stems), shots + len(taken))):
            if len(taken) <= shots and stem not in taken:
                taken[stem] = pool[stem]
    examples = [q for q in taken.values() if q]
    first = sum(stem in pools[0] for stem, q in taken.items() if q)
    return tuple(examples), first < shots


def normalise(text: str) -> str:
    """Returns the letters and digits alone, full-width forms folded: what counts as the same question."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).lower()


# --- scores -----------------------------------------------------------------------------------------------------------


def score(
    items: Sequence[Item],
    responses: list[list[Response]],
    judgements: list[list[float | None]] | None = None,
    elastic_rule: str = "subset",
    think_prefilled: bool = False,
    resamples: int = 1000,
    seed: int = 42,
) -> dict:
    """Returns the metrics of one list of samples per item; items without answers have counts but no accuracy.

    `judgements` (0..100 or None, in the shape of `responses`) are the judge's scores of open items: None counts as 0
    and as an unreadable judgement, and a failed request or an empty answer part is 0 whatever was judged. Failures stay
    in every denominator. Raises BadInput for responses that do not fit the items.
    """
    scores = score_all(items, responses, elastic_rule, think_prefilled)
    choice = [(i, s) for i, s in zip(items, scores, strict=True) if i.question.kind != "open"]
    answered = [(i, s) for i, s in choice if i.question.answer]
    by_cell = group_by([i.cell for i, _ in choice], [s for _, s in choice])
    key = group_by([i.cell for i, _ in answered], [metrics.mean([r["acc"] for r in s]) for _, s in answered])
    cells = {c: _cell_metrics(by_cell.get(c, []), bool(key.get(c)), resamples, seed) for c in CELLS if choice}
    for name in QA_CELLS:
        at = [n for n, item in enumerate(items) if item.cell == name]
        if at:
            judged = [judgements[n] for n in at] if judgements is not None else None
            cells[name] = _judged([scores[n] for n in at], judged, resamples, seed)
    weighted, macro = _averages(answered, key, resamples, seed) if choice else ({}, {})
    notes = [f"no average that holds {c}: no answered item" for c in CELLS if choice and not key.get(c)]
    if len(cells) > len(CELLS if choice else ()) and judgements is None:
        notes.append(f"QA is not judged; the official judge is {JUDGE}")
    return {
        "benchmark": "cpsyexam",
        "version": metrics.VERSION,
        "fingerprint": fingerprint(items),
        "elastic_rule": elastic_rule,
        "elastic_rule_source": metrics.ELASTIC_RULES[elastic_rule],
        "shots": max(len(item.shots) for item in items),
        "samples": len(responses[0]),
        **metrics.counts(scores),
        "item_weighted": weighted,
        "subject_macro": macro,
        "cells": cells,
        "subjects": by_subject([i for i, _ in answered], [s for _, s in answered], resamples, seed),
        "published_columns": _published_columns(items, cells, weighted),
        "notes": notes,
    }


def _cell_metrics(scores: list[list[dict]], answered: bool, resamples: int, seed: int) -> dict:
    found = metrics.describe(scores, resamples, seed)
    if not answered:  # withheld keys: what was answered right is not known
        found |= dict.fromkeys(("accuracy", "accuracy_ci", "elastic", "elastic_ci"), None) | {"pass_at": {}}
    return found


def _judged(scores: list[list[dict]], judged: list[list[float | None]] | None, resamples: int, seed: int) -> dict:
    found = metrics.counts(scores)
    if judged is None:
        return {**found, "judge_score": None, "judge_score_ci": None, "unreadable_judgements": None}
    pairs = [list(zip(s, j, strict=True)) for s, j in zip(scores, judged, strict=True)]
    values = [metrics.mean_of([j or 0.0 if s["readable"] else 0.0 for s, j in item]) for item in pairs]
    return {
        **found,
        "judge_score": metrics.mean(values),
        "judge_score_ci": metrics.bootstrap(values, resamples, seed),
        "unreadable_judgements": sum(bool(s["readable"]) and j is None for item in pairs for s, j in item),
    }


def _averages(answered: list[tuple[Item, list[dict]]], key: dict, resamples: int, seed: int) -> tuple[dict, dict]:
    """Returns the two kinds of average, each {name: value, name_ci: interval}; None where a cell has no item."""
    weighted, macro = {}, {}
    for name, cells in {"KG": CELLS[:2], "CA": CELLS[2:], "all": CELLS}.items():
        value, interval = metrics.average([key.get(c, []) for c in cells], resamples, seed, by_items=True)
        weighted |= {name: value, f"{name}_ci": interval}
    files = group_by(
        [i.question.meta["file"] for i, _ in answered], [metrics.mean([r["acc"] for r in s]) for _, s in answered]
    )
    for kind in ("single", "multi"):
        groups = [values for file, values in files.items() if ("单项" in file) == (kind == "single")]
        value, interval = metrics.average(groups, resamples, seed)
        macro |= {kind: value, f"{kind}_ci": interval}
    both = (macro["single"], macro["multi"])
    return weighted, macro | {"average": None if None in both else metrics.mean(both)}


def _published_columns(items: Sequence[Item], cells: dict, weighted: dict) -> dict:
    """Returns the numbers (0..100) under the names of recipes/published/cpsyexam.yaml; they are of the test split."""
    if not weighted or not all(item.question.id.startswith("cpsyexam/test/") for item in items):
        return {}
    shots = "five_shot" if any(item.shots for item in items) else "zero_shot"
    columns = {
        f"{c.lower().replace('single', 'scq').replace('multi', 'maq')}_{shots}": cells[c]["accuracy"] for c in CELLS
    }
    columns |= {f"all_{shots}": weighted["all"]}
    return {name: None if value is None else 100 * value for name, value in columns.items()}


def submission(items: Sequence[Item], responses: list[list[Response]], think_prefilled: bool = False) -> dict:
    """Returns one half of the file that the official site takes: {"zero_shot" or "five_shot": {subject file: rows}}.

    A row is {"question_id", "question", "options", "prediction", "n_shot"} as merge_answers.py of the CPsyExam
    repository leaves it (commit 73daf63); the site wants both halves in one object. The prediction is that of the first
    sample, "" where it cannot be read: the released script drops such rows, which shrinks its denominator.
    """
    halves = {}
    for item, samples in zip(items, check(items, responses), strict=True):
        question = item.question
        row = {
            "question_id": question.meta["released_id"],
            "question": question.stem,
            "options": dict(zip(LETTERS, question.options, strict=False)),
            "prediction": metrics.score_response(question, samples[0], think_prefilled=think_prefilled)["read"] or "",
            "n_shot": len(item.shots),
        }
        half = halves.setdefault("five_shot" if item.shots else "zero_shot", {})
        half.setdefault(question.meta["file"], []).append(row)
    return halves


_NUMBER = r"(\d{1,3}(?:\.\d+)?)\s*(?:分|/\s*100)?"
_BARE = re.compile(rf"{_NUMBER}\s*[。.]?")
_LINE = re.compile(rf"(?:最终|总)?(?:分数|得分|评分)\s*[:是为]*\s*[\"“「{{\[]?\s*{_NUMBER}\s*[\"”」}}\]]?\s*[。.]?")


def read_judgement(text: str) -> float | None:
    """Returns the judge's score in 0..100, or None where it cannot be read; nothing is guessed.

    Read are lines of their own as the prompt asks for them (分数：85) and a reply that is a number alone. Prose, two
    scores that differ, and numbers beyond the scale are unreadable.
    """
    reply = split_thought(text)[1]
    if reply is None:
        return None
    reply = unicodedata.normalize("NFKC", reply).replace("*", "").replace("`", "").strip()
    lines = [_BARE.fullmatch(reply), *(_LINE.fullmatch(line.strip()) for line in reply.splitlines())]
    found = {float(line[1]) for line in lines if line}
    return found.pop() if len(found) == 1 and max(found) <= 100 else None
