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
from data_pipeline.prompts import question_messages, render
from data_pipeline.records import LETTERS, Question, Reject
from eval import intervals, metrics, tables
from eval.contract import Answered, Benchmark, Figures, Item, Judge, Loaded, Scoring, Table
from eval.figures import Cell, SetMetrics
from eval.items import compare, group_by
from eval.judging.judges import judge_scores
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


SCORE = "judge_score"


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


def requests(item: Item) -> list[dict]:
    return question_messages(item.question, item.shots)


def score(answered: list[Answered], scoring: Scoring) -> list[list[dict[str, float | None]]]:
    """Returns the judge's score (0..100) of every response to an open question, 0 where there is no answer to judge."""
    return [
        [{} for _ in one.responses] if one.item.has_letters else judge_scores(one, (SCORE,)) for one in answered
    ]  # fmt: skip


def figures(answered: list[Answered], cells: dict[str, Cell], scoring: Scoring) -> Figures:
    """Returns both kinds of average, each {name: value, name_ci: interval}; None where a cell has no answered item."""
    shots = max(len(one.item.shots) for one in answered)
    if not any(one.item.has_letters for one in answered):
        return Figures({"shots": shots, "item_weighted": {}, "subject_macro": {}})
    keyed = [one for one in answered if one.item.has_letters and one.item.question.answer]
    accuracy = metrics.per_item([one.readings for one in keyed], "acc")
    of_cells = group_by([one.item.cell for one in keyed], accuracy)
    weighted, macro = {}, {}
    for name, members in {"KG": CELLS[:2], "CA": CELLS[2:], "all": CELLS}.items():
        groups = [of_cells.get(c, []) for c in members]
        value, interval = intervals.average(groups, scoring.resamples, scoring.seed, by_items=True)
        weighted |= {name: value, f"{name}_ci": interval}
    files = group_by([one.item.question.meta["file"] for one in keyed], accuracy)
    for kind in ("single", "multi"):
        groups = [values for file, values in files.items() if ("单项" in file) == (kind == "single")]
        value, interval = intervals.average(groups, scoring.resamples, scoring.seed)
        macro |= {kind: value, f"{kind}_ci": interval}
    both = (macro["single"], macro["multi"])
    macro |= {"average": None if None in both else metrics.mean(both)}
    return Figures(
        {"shots": shots, "item_weighted": weighted, "subject_macro": macro},
        _published_columns(answered, cells, weighted["all"]),
        [f"no average that holds {c}: no answered item" for c in CELLS if not of_cells.get(c)],
    )


def _published_columns(answered: list[Answered], cells: dict[str, Cell], average: float | None) -> dict:
    """Returns the numbers (0..100) under the names of recipes/published/cpsyexam.yaml; they are of the test split."""
    if not all(one.item.id.startswith("cpsyexam/test/") for one in answered):
        return {}
    shots = "five_shot" if any(one.item.shots for one in answered) else "zero_shot"
    columns: dict[str, float | None] = {f"all_{shots}": average}
    for name in CELLS:
        choice = cells[name].choice if name in cells else None
        column = name.lower().replace("single", "scq").replace("multi", "maq")
        columns[f"{column}_{shots}"] = choice.accuracy if choice else None
    return {name: None if value is None else 100 * value for name, value in columns.items()}


def report_tables(results: dict[str, SetMetrics]) -> list[Table]:
    if any(result.means for result in results.values()):  # QA
        return [tables.own_overview(results), tables.by_cell(results)]
    of = [("item_weighted", name) for name in ("KG", "CA", "all")]
    of += [("subject_macro", name) for name in ("single", "multi", "average")]
    return [
        tables.exam_overview(results),
        tables.by_cell(results),
        tables.averages(results, of),
        tables.by_subject(results),
    ]


def submission(answered: list[Answered]) -> dict | None:
    """Returns one half of the file that the official site takes: {"zero_shot" or "five_shot": {subject file: rows}}.

    None where answers are there or questions are open. A row is {"question_id", "question", "options", "prediction",
    "n_shot"} as merge_answers.py of the CPsyExam repository leaves it (commit 73daf63); the site wants both halves in
    one object. The prediction is that of the first sample, "" where it cannot be read: the released script drops such
    rows, which shrinks its denominator.
    """
    if any(not one.item.has_letters or one.item.question.answer for one in answered):
        return None
    halves = {}
    for one in answered:
        question = one.item.question
        row = {
            "question_id": question.meta["released_id"],
            "question": question.stem,
            "options": dict(zip(LETTERS, question.options, strict=False)),
            "prediction": one.readings[0].read or "",
            "n_shot": len(one.item.shots),
        }
        half = halves.setdefault("five_shot" if one.item.shots else "zero_shot", {})
        half.setdefault(question.meta["file"], []).append(row)
    return halves


# --- the judge of QA --------------------------------------------------------------------------------------------------


def judge_messages(item: Item, answer: str) -> list[dict]:
    """Returns what the judge is asked: the official rubric (evaluate_qa.py) in our words."""
    q = item.question
    text = render("judge_exam_answer", subject=q.subject, family=q.meta["family"], question=q.stem,
                  reference=q.reference, answer=answer)  # fmt: skip
    return [{"role": "user", "content": text}]


def read_judge(reply: str) -> dict[str, float | None]:
    return {SCORE: read_judgement(reply)}


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
    numbers = {float(line[1]) for line in lines if line}
    return numbers.pop() if len(numbers) == 1 and max(numbers) <= 100 else None


BENCHMARK = Benchmark(
    load=load,
    requests=requests,
    score=score,
    tables=report_tables,
    figures=figures,
    judge=Judge((SCORE,), judge_messages, read_judge),
    unjudged=f"QA is not judged; the official judge is {JUDGE}",
    submission=submission,
)
