"""Benchmark questions in training rows, found by what their texts have in common, so that none is trained on.

White-space n-grams (open-r1, s1) flag nothing in Chinese: there is no white space. Here every text is normalised
(NFKC, radicals that PDF extraction leaves, lower case; blanks and punctuation dropped) and compared by characters:

- "same question and options": the normalised question and its options, in any order. A short question alone is no
  evidence ("下列说法正确的是"), with its options it is.
- "same question text": the same question with other options, either half of them the same, or a question of at
  least `n` characters that only one item of the benchmark asks. Not for case questions: "该求助者的躯体症状包括"
  is asked of every case.
- "contained": the share of a benchmark text's characters that stand in the row, in runs of `n` characters (shorter
  questions and options: whole), reaches `threshold`. Compared are question with options (not of case questions, as
  above), the case introduction, and the model answer of an open question. A question of short pieces only must stand
  there in its order and close together, since a definition holds such words too ("中枢神经系统包括脑和脊髓").

`n` = 13 is the run of GPT-3's decontamination (Brown et al. 2020, words there, characters here). `threshold` = 0.7 is
ours, from reading the hits of CPsyExam against PCEB: of those between 0.7 and 0.8 nearly all are the same text with
slips of the scanner, below 0.6 other questions about the same thing begin. A changed character ends a run: a reworded
question is the business of near-duplicate search, not of this step.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from data_pipeline.counts import Decontamination
from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Question, Reject

KINDS = ("same question and options", "same question text", "contained")  # strongest first
SEED = 4  # first characters of a question shorter than `n`, by which it is looked up before it is compared whole
GAP = 40  # characters (letters, numbering, scores) that may stand between the short pieces of one question
EXCERPT = 60

# Radicals (U+2E80..) that stand for characters in released PCEB files and that NFKC leaves: ⻓期 is 长期.
_RADICALS = str.maketrans(
    "⻅⻓⻔⻆⻝⻢⻋⻘⻛⺠⻩⻙⻬⻜⻤⻉⻨⻮⻦⻚⻣⻥⻰⻳", "见长门角食马车青风民黄韦齐飞鬼贝麦齿鸟页骨鱼龙龟"
)
_NOISE = re.compile(r"[\W_]+")


@dataclass(slots=True)
class Overlap:
    row_id: str
    where: str  # file and row of the training row
    benchmark_id: str
    kind: str  # one of KINDS
    containment: float  # share of the benchmark text's characters that stand in the row
    excerpt: str  # beginning of the benchmark text
    others: int = 0  # benchmark items that the row overlaps besides this one


@dataclass(frozen=True)
class Overlaps:
    """What a comparison with benchmarks has shown; `hits` are the strongest overlap of each row that has one."""

    counts: Decontamination
    hits: list[Overlap] = field(default_factory=list)


def normalise(text: str) -> str:
    """Returns the letters, characters and digits of `text` alone, NFKC and lower case."""
    return _NOISE.sub("", unicodedata.normalize("NFKC", text.translate(_RADICALS)).lower())


def row_texts(row: object) -> list[str]:
    """Returns every text of a training row: of a Question, Dialogue, dict (as in JSONL files), list or string."""
    if isinstance(row, str):
        return [row]
    if isinstance(row, Question):
        return [row.context, row.stem, *row.options, row.rationale, row.reference]
    if isinstance(row, Dialogue):
        return [text for turn in row.turns for text in (turn.content, turn.thought)]
    values = row.values() if isinstance(row, dict) else row if isinstance(row, list | tuple) else ()
    return [text for value in values for text in row_texts(value)]


def decontaminate(
    questions: Iterable[Question], benchmark: Iterable[Question], n: int = 13, threshold: float = 0.7
) -> tuple[list[Question], list[Reject], Overlaps]:
    """Returns (questions without overlap in their order, a Reject for each other one, overlaps); in = out + rejected.

    Raises BadInput for a benchmark without questions, and for an `n` or `threshold` that makes no sense.
    """
    index = _Index(benchmark, n, threshold)
    kept, rejects, hits = [], [], []
    for question, hit in _check(questions, index):
        if hit is None:
            kept.append(question)
            continue
        hits.append(hit)
        detail = f"{hit.kind}, {hit.benchmark_id} ({hit.containment:.0%})"
        rejects.append(Reject(hit.row_id, hit.where, "stands in a benchmark", detail))
    counts = Decontamination(
        benchmark_items=len(index.items),
        n=n,
        threshold=threshold,
        into=len(kept) + len(rejects),
        out=len(kept),
        rejected=len(rejects),
        kinds={kind: sum(hit.kind == kind for hit in hits) for kind in KINDS},
    )
    return kept, rejects, Overlaps(counts, hits)


@dataclass(slots=True)
class _Part:
    """A text of the benchmark that counts as contained on its own, and the items that it is a part of."""

    items: list[int]
    text: str
    grams: int  # different n-grams of the pieces (stem, options) that are long enough
    long: int  # characters of those pieces
    short: list[str]  # the other pieces


class _Index:
    """The benchmark's texts by their keys, and by the n-grams (seeds of short texts) through which rows find them."""

    def __init__(self, benchmark: Iterable[Question], n: int, threshold: float):
        if n <= SEED:
            raise BadInput(f"decontaminate: n={n}; characters per n-gram, more than {SEED} (13 is usual)")
        if not 0 < threshold <= 1:
            raise BadInput(f"decontaminate: threshold={threshold}; a share above 0 and up to 1, e.g. 0.7")
        self.n, self.threshold = n, threshold
        self.items = list(benchmark)
        if not self.items:
            raise BadInput("decontaminate: the benchmark has no question; nothing would be found in any row")
        self.by_key: dict[tuple, list[int]] = defaultdict(list)
        self.by_stem: dict[str, list[int]] = defaultdict(list)
        self.options = [frozenset(map(normalise, q.options)) for q in self.items]
        self.parts: list[_Part] = []
        self.grams: dict[str, list[int]] = defaultdict(list)  # n-gram -> parts
        self.seeds: dict[str, list[int]] = defaultdict(list)
        parts: dict[tuple, list[int]] = defaultdict(list)  # texts -> items; a case is told once for all its questions
        for item, q in enumerate(self.items):
            stem, options = normalise(q.stem), list(map(normalise, q.options))
            if options:
                self.by_key[_key(stem, options)].append(item)
            if not q.context:
                self.by_stem[stem].append(item)
                parts[stem, *options].append(item)
            for long in (normalise(q.context), normalise(q.reference)):
                if len(long) >= 2 * n:  # a shorter answer is a phrase that anybody writes
                    parts[(long,)].append(item)
        self.stems = {stem for stem, *_ in self.by_key}
        for pieces, items in parts.items():
            self._add([piece for piece in pieces if piece], items)

    def _add(self, pieces: list[str], items: list[int]) -> None:
        text = "".join(pieces)
        if len(text) < self.n:
            return  # too little to be evidence within a longer text
        grams = {gram for piece in pieces for gram in _grams(piece, self.n)}
        for gram in grams:
            self.grams[gram].append(len(self.parts))
        if not grams and len(pieces[0]) >= SEED:
            self.seeds[pieces[0][:SEED]].append(len(self.parts))
        short = [piece for piece in pieces if len(piece) < self.n]
        self.parts.append(_Part(items, text, len(grams), len(text) - sum(map(len, short)), short))

    def find(self, row: object) -> dict[int, tuple[int, float, str]]:
        """Returns {benchmark item: (place in KINDS, containment, text)} of all that `row` overlaps."""
        text, overlapping = "\n".join([normalise(text) for text in row_texts(row) if text]), {}
        shared = set(filter(self.grams.__contains__, _grams(text, self.n)))
        counts = Counter([part for gram in shared for part in self.grams[gram]])
        for seed in set(filter(self.seeds.__contains__, _grams(text, SEED))):
            counts.update(dict.fromkeys(self.seeds[seed], 0))
        for number, count in counts.items():
            part = self.parts[number]
            if part.grams:
                covered = part.long * count / part.grams + sum([len(p) for p in part.short if p in text])
            else:
                covered = _in_order(part.short, text)
            if covered >= self.threshold * len(part.text):
                overlapping |= {item: (2, covered / len(part.text), part.text) for item in part.items}
        if isinstance(row, Question) and row.options and (stem := normalise(row.stem)) in self.stems:
            overlapping |= self._same_question(stem, list(map(normalise, row.options)))
        return overlapping

    def _same_question(self, stem: str, options: list[str]) -> dict[int, tuple[int, float, str]]:
        overlapping = {}
        items = self.by_stem.get(stem, ())
        alone = len({self.options[item] for item in items}) == 1 and len(stem) >= self.n
        for item in items:
            same = self.options[item].intersection(options)
            if alone or (same and 2 * len(same) >= len(self.options[item])):
                length = len(stem) + sum(map(len, same))
                overlapping[item] = (1, length / (len(stem) + sum(map(len, self.options[item]))), stem)
        for item in self.by_key.get(_key(stem, options), ()):
            overlapping[item] = (0, 1.0, stem)
        return overlapping


def _check(rows: Iterable, index: _Index) -> Iterator[tuple[object, Overlap | None]]:
    for number, row in enumerate(rows, 1):
        overlapping = index.find(row)
        if not overlapping:
            yield row, None
            continue
        item, (kind, share, text) = min(overlapping.items(), key=lambda hit: (hit[1][0], -hit[1][1], hit[0]))
        get = row.get if isinstance(row, dict) else lambda name, row=row: getattr(row, name, None)
        where = (get("meta") or {}).get("where") or f"row {number}"
        other, known = len(overlapping) - 1, index.items[item].id
        hit = Overlap(str(get("id") or where), where, known, KINDS[kind], round(share, 4), text[:EXCERPT], other)
        yield row, hit


def _key(stem: str, options: list[str]) -> tuple:
    return stem, *sorted(options)


def _in_order(pieces: list[str], text: str) -> int:
    """Returns how many characters of `pieces` stand in `text` after one another, the first of them for certain."""
    best, start = 0, text.find(pieces[0])
    while start >= 0:
        covered = len(pieces[0])
        at = start + covered
        for piece in pieces[1:]:
            place = text.find(piece, at, at + GAP + len(piece))
            if place >= 0:
                covered, at = covered + len(piece), place + len(piece)
        best, start = max(best, covered), text.find(pieces[0], start + 1)
    return best


def _grams(text: str, n: int) -> list[str]:
    return [text[i : i + n] for i in range(len(text) - n + 1)]
