"""PCEB, the Psychological Counselor Examination Benchmark (PsycoLLM, arXiv 2407.05721), as Psyche-R1 reports it.

Six multiple-choice cells and 100 essay questions. Published averages (README of Psyche-R1): `average_strict` is the
mean of the six strict accuracies, `average_elastic` that of the three single and the three elastic multi ones; cells
count the same, whatever they hold. Accuracies are in [0, 1], ROUGE and BLEU and `published_columns` in 0..100.
"""

from pathlib import Path

from data_pipeline import sources
from data_pipeline.errors import BadInput
from data_pipeline.prompts import question_messages
from data_pipeline.records import Question, Reject
from eval import intervals, metrics, tables
from eval.contract import Answered, Benchmark, Figures, Item, Loaded, Published, Scoring, Table
from eval.figures import Cell, SetMetrics
from eval.items import compare, group_by

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
    files = {f.relative_to(path).with_suffix("").as_posix() for f in path.rglob("*.json")}
    cells = {folder.rsplit("/", 1)[0] for folder in FILES}
    if odd := sorted(name for name in files if "/" in name and "/".join(name.split("/")[:2]) not in cells):
        raise BadInput(f"{path}: another version of PCEB: {odd[0]}.json is in no cell; known are {', '.join(cells)}")
    items = [Item(q, _cell(q)) for q in records if isinstance(q, Question)]
    rejects = [r for r in records if isinstance(r, Reject)]
    return Loaded(items, rejects, _missing_files(files) + compare(path, items, rejects, RELEASE))


def _cell(question: Question) -> str:
    if question.kind == "open":
        return ESSAY
    return f"{question.meta['cell'].removesuffix('s')}_{question.kind}"


def _missing_files(there: set[str]) -> list[str]:
    missing = []
    for folder, names in FILES.items():
        if names == ["*"]:
            if not any(name.startswith(f"{folder}/") for name in there):
                missing.append(f"{folder}/ (one file)")
        else:
            missing += [f"{folder}/{name}.json" for name in names if f"{folder}/{name}" not in there]
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


def requests(item: Item) -> list[dict]:
    return question_messages(item.question)


def score(answered: list[Answered], scoring: Scoring) -> list[list[dict[str, float | None]]]:
    """Returns every metric of `eval.text_metrics` (0..100) of the essays; without an answer part a response is 0."""
    essays = [one for one in answered if one.item.cell == ESSAY]
    if not essays:
        return [[{} for _ in one.responses] for one in answered]
    from eval.text_metrics import score_texts  # here: it loads a Chinese segmenter

    texts = [metrics.answer_part(r, scoring.think_prefilled) for one in essays for r in one.responses]
    references = [one.item.question.reference for one in essays for _ in one.responses]
    scored = iter(score_texts(texts, references))  # an empty text scores 0
    return [[dict(next(scored)) if one.item.cell == ESSAY else {} for _ in one.responses] for one in answered]


def figures(answered: list[Answered], cells: dict[str, Cell], scoring: Scoring) -> Figures:
    """Returns both averages with their intervals, and whether every cell has the items of the release.

    A cell without items has no accuracy, and then there are no averages.
    """
    by_cell = group_by([one.item.cell for one in answered], [one.readings for one in answered])
    strict = {c: metrics.per_item(by_cell.get(c, []), "acc") for c in SINGLE + MULTI}
    mixed = {c: metrics.per_item(by_cell.get(c, []), "elastic" if c in MULTI else "acc") for c in SINGLE + MULTI}
    choices = {c: choice for c in SINGLE + MULTI if (choice := cells[c].choice)}
    average_strict, average_elastic = averages(
        {c: choices[c].accuracy for c in strict}, {c: choices[c].elastic for c in MULTI}
    )
    own = {
        "complete": all(len(by_cell.get(c, [])) == n for c, n in RELEASE.items()),
        "average_strict": average_strict,
        "average_strict_ci": intervals.average(list(strict.values()), scoring.resamples, scoring.seed)[1],
        "average_elastic": average_elastic,
        "average_elastic_ci": intervals.average(list(mixed.values()), scoring.resamples, scoring.seed)[1],
    }
    # ROUGE and BLEU have no published column: which of their conventions the papers used is not known.
    columns = {"avg_strict": average_strict, "avg_elastic": average_elastic}
    columns |= {c: choices[c].accuracy for c in SINGLE}
    columns |= {f"{c}_strict": choices[c].accuracy for c in MULTI}
    columns |= {f"{c}_elastic": choices[c].elastic for c in MULTI}
    empty = [c for c in SINGLE + MULTI if not strict[c]]
    return Figures(
        own,
        {name: None if value is None else 100 * value for name, value in columns.items()},
        [f"no averages: {', '.join(empty)} without items"] if empty else [],
    )


def report_tables(results: dict[str, SetMetrics]) -> list[Table]:
    of = [("average_strict",), ("average_elastic",)]
    return [
        tables.exam_overview(results),
        tables.by_cell(results),
        tables.averages(results, of),
        tables.by_subject(results),
    ]


BENCHMARK = Benchmark(
    load=load,
    requests=requests,
    score=score,
    tables=report_tables,
    figures=figures,
    cells=RELEASE,
    published=Published(  # 18 rows of the README of Psyche-R1, columns as the paper prints them
        "pceb.yaml",
        {
            "case_single": "Case S", "case_multi_strict": "Case M", "case_multi_elastic": "(e)",
            "moral_single": "Moral S", "moral_multi_strict": "Moral M", "moral_multi_elastic": "(e)",
            "theory_single": "Theory S", "theory_multi_strict": "Theory M", "theory_multi_elastic": "(e)",
            "avg_strict": "Avg", "avg_elastic": "Avg (e)",
        },
        {"average_strict": "avg_strict", "average_elastic": "avg_elastic"},
    ),
)  # fmt: skip
