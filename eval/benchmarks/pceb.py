"""PCEB, the Psychological Counselor Examination Benchmark (PsycoLLM, arXiv 2407.05721), as Psyche-R1 reports it.

Six multiple-choice cells and 100 essay questions. Published averages (README of Psyche-R1): `average_strict` is the
mean of the six strict accuracies, `average_elastic` that of the three single and the three elastic multi ones; cells
count the same, whatever they hold. Accuracies are in [0, 1], ROUGE and BLEU and `published_columns` in 0..100.
"""

from collections.abc import Sequence
from pathlib import Path

from data_pipeline import sources
from data_pipeline.errors import BadInput
from data_pipeline.records import Question, Reject, Response
from eval import metrics
from eval.items import Item, Loaded, by_subject, compare, fingerprint, group_by, score_all

SINGLE = ("case_single", "moral_single", "theory_single")
MULTI = ("case_multi", "moral_multi", "theory_multi")
ESSAY = "case_essay"
# Counted on the release (MindIntLab-HFUT/PsycoLLM, benchmark/, commit dceb3169).
RELEASE = {
    "case_single": 748, "case_multi": 878, "moral_single": 152, "moral_multi": 158,
    "theory_single": 1143, "theory_multi": 784, "case_essay": 100,
}  # fmt: skip
# Its 35 JSON files, from a public index of that commit. The index lacks one, which the counts place in
# moral/multiple/simulation: its name is not known here, so any file in that folder stands for it.
FILES = {
    "cases/essay/second": ["14 案例问答", "15 案例问答", "16 案例问答"],
    "cases/essay/simulation": ["2017-2018 案例问答"],
    "cases/essay/third": ["11-13 案例问答", "14-15 案例问答", "17-18 案例问答"],
    "cases/mix/second": ["14 案例混合选择", "15 案例混合选择", "16 案例混合选择"],
    "cases/mix/simulation": ["17-18技能题"],
    "cases/mix/third": ["11-13 案例混合选择", "14-16 案例混合选择"],
    "moral/multiple/second": ["14 职业道德多选", "15 职业道德多选", "16 职业道德多选"],
    "moral/multiple/simulation": ["*"],
    "moral/multiple/third": ["11-16 职业道德多选"],
    "moral/single/second": ["14 职业道德单选", "15 职业道德单选", "16 职业道德单选"],
    "moral/single/simulation": ["17-18职业道德单选"],
    "moral/single/third": ["11-13 职业道德单选", "14-16 职业道德单选"],
    "theory/multiple/second": ["14 理论多选", "15 理论多选", "16 理论多选"],
    "theory/multiple/simulation": ["17-18-理论多选"],
    "theory/multiple/third": ["11-16 理论多选"],
    "theory/single/second": ["14 理论单选", "15 理论单选", "16 理论单选"],
    "theory/single/simulation": ["17-18理论单选"],
    "theory/single/third": ["11-13 理论单选", "14-16 理论单选"],
}


def load(path: str | Path) -> Loaded:
    """Returns the items in file order, the rejects, and notes on what this folder lacks of the full release.

    Raises BadInput for a missing folder, broken JSON, and a folder of another version: a sub-folder that is no cell of
    the release, or more items in a cell than it has.
    """
    path = Path(path)
    records = list(sources.read("pceb", path))
    found = {f.relative_to(path).with_suffix("").as_posix() for f in path.rglob("*.json")}
    cells = {folder.rsplit("/", 1)[0] for folder in FILES}
    if odd := sorted(name for name in found if "/" in name and "/".join(name.split("/")[:2]) not in cells):
        raise BadInput(f"{path}: another version of PCEB: {odd[0]}.json is in no cell; known are {', '.join(cells)}")
    items = [Item(q, _cell(q)) for q in records if isinstance(q, Question)]
    rejects = [r for r in records if isinstance(r, Reject)]
    return Loaded(items, rejects, _missing_files(found) + compare(path, items, rejects, RELEASE))


def _cell(question: Question) -> str:
    if question.kind == "open":
        return ESSAY
    return f"{question.meta['cell'].removesuffix('s')}_{question.kind}"


def _missing_files(found: set[str]) -> list[str]:
    missing = []
    for folder, names in FILES.items():
        if names == ["*"]:
            if not any(name.startswith(f"{folder}/") for name in found):
                missing.append(f"{folder}/ (one file)")
        else:
            missing += [f"{folder}/{name}.json" for name in names if f"{folder}/{name}" not in found]
    total = sum(map(len, FILES.values()))
    if not missing:
        return []
    full = ", ".join(f"{cell} {n}" for cell, n in RELEASE.items())
    return [
        f"partial: {len(missing)} of the {total} released files are missing: {'; '.join(missing)}",
        f"a full release holds {full}",
    ]


def averages(strict: dict[str, float | None], elastic: dict[str, float | None]) -> tuple[float | None, float | None]:
    """Returns (average_strict, average_elastic) from the cells' accuracies, None where a cell has none.

    `strict` holds all six cells, `elastic` the three multi ones (README of Psyche-R1).
    """
    both = []
    for values in ([strict[c] for c in SINGLE + MULTI], [strict[c] for c in SINGLE] + [elastic[c] for c in MULTI]):
        known = [value for value in values if value is not None]
        both.append(metrics.mean(known) if len(known) == len(values) else None)
    return both[0], both[1]


def score(
    items: Sequence[Item],
    responses: list[list[Response]],
    elastic_rule: str = "subset",
    think_prefilled: bool = False,
    resamples: int = 1000,
    seed: int = 42,
) -> dict:
    """Returns the metrics of one list of samples per item: counts, cells, both averages with intervals, subjects.

    Unreadable, cut and failed responses stay in every denominator. A cell without items has no accuracy, and then there
    are no averages. Raises BadInput for responses that do not fit the items and for an unknown `elastic_rule`.
    """
    scores = score_all(items, responses, elastic_rule, think_prefilled)
    by_cell = group_by([i.cell for i in items], scores)
    cells = {}
    for cell in SINGLE + MULTI:
        cells[cell] = {**metrics.describe(by_cell.get(cell, []), resamples, seed), "release_items": RELEASE[cell]}
    essays = [n for n, item in enumerate(items) if item.cell == ESSAY]
    cells[ESSAY] = {
        **metrics.counts(by_cell.get(ESSAY, [])),
        **_essay_texts([items[n] for n in essays], [responses[n] for n in essays], think_prefilled, resamples, seed),
        "release_items": RELEASE[ESSAY],
    }
    strict = {c: metrics.per_item(by_cell.get(c, []), "acc") for c in SINGLE + MULTI}
    mixed = {c: metrics.per_item(by_cell.get(c, []), "elastic" if c in MULTI else "acc") for c in SINGLE + MULTI}
    average_strict, average_elastic = averages(
        {c: cells[c]["accuracy"] for c in strict}, {c: cells[c]["elastic"] for c in MULTI}
    )
    empty = [c for c in SINGLE + MULTI if not strict[c]]
    return {
        "benchmark": "pceb",
        "version": metrics.VERSION,
        "fingerprint": fingerprint(items),
        "elastic_rule": elastic_rule,
        "elastic_rule_source": metrics.ELASTIC_RULES[elastic_rule],
        "complete": all(len(by_cell.get(c, [])) == n for c, n in RELEASE.items()),
        "samples": len(responses[0]),
        **metrics.counts(scores),
        "average_strict": average_strict,
        "average_strict_ci": metrics.average(list(strict.values()), resamples, seed)[1],
        "average_elastic": average_elastic,
        "average_elastic_ci": metrics.average(list(mixed.values()), resamples, seed)[1],
        "cells": cells,
        "subjects": by_subject(items, scores, resamples, seed),
        "published_columns": _published_columns(cells, average_strict, average_elastic),
        "notes": [f"no averages: {', '.join(empty)} without items"] if empty else [],
    }


def _essay_texts(
    items: list[Item], responses: list[list[Response]], think_prefilled: bool, resamples: int, seed: int
) -> dict:
    """Returns every metric of `eval.text_metrics` (0..100) and its interval; without an answer part a response is 0."""
    if not items:
        return {}
    from eval.text_metrics import score_texts  # here: it loads a Chinese segmenter

    texts = [metrics.answer_part(r, think_prefilled) for samples in responses for r in samples]
    references = [item.question.reference for item, samples in zip(items, responses, strict=True) for _ in samples]
    rows, n = score_texts(texts, references), len(responses[0])  # an empty text scores 0
    found = {}
    for name in rows[0]:
        values = [metrics.mean_of([row[name] for row in rows[i : i + n]]) for i in range(0, len(rows), n)]
        found |= {name: metrics.mean(values), f"{name}_ci": metrics.bootstrap(values, resamples, seed)}
    return found


def _published_columns(cells: dict, average_strict: float | None, average_elastic: float | None) -> dict:
    """Returns the numbers (0..100) under the names of recipes/published/pceb.yaml. ROUGE and BLEU have none: which of
    their conventions the papers used is not known.
    """
    columns = {"avg_strict": average_strict, "avg_elastic": average_elastic}
    columns |= {c: cells[c]["accuracy"] for c in SINGLE}
    columns |= {f"{c}_strict": cells[c]["accuracy"] for c in MULTI}
    columns |= {f"{c}_elastic": cells[c]["elastic"] for c in MULTI}
    return {name: None if value is None else 100 * value for name, value in columns.items()}
