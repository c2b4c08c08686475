"""Near-duplicates merged: "MinHash LSH (Diversity)" of Psyche-R1's figure 2, whose settings are unpublished: all ours.

A record becomes the set of its character n-grams (white-space n-grams find nothing in Chinese), each stem and option
by itself, so that shuffled options make no other question. MinHash LSH (rensa) finds candidates, each is then checked
on the texts themselves. Two records are the same when

- the Jaccard index of their n-grams, and that of their case introductions, reaches `threshold`;
- neither stem drowns in long options nor options in a long stem: stems are as near by characters (rapidfuzz), those
  shorter than `short` equal, and every option has a partner of its own. Texts without options that are shorter than
  `short` must be equal too: two short questions have their n-grams in common by chance;
- the right answers are the same texts, whatever their letters. Near-duplicates with different right answers are a
  conflict: both stay, and are reported for people to look at.

The most complete record (`completeness`, then the first) is kept first and takes in all of its candidates that are the
same; then the most complete of those left, and so on. So every merged record is the same as the one kept for it: where
a chain drifts (A like B, B like C, A unlike C), which union-find would make one cluster of, none is merged by hearsay.
"""

import re
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import NamedTuple

from pydantic import Field

from data_pipeline.parallel import in_processes
from data_pipeline.records import LETTERS, Dialogue, Passage, Post, Question, note
from data_pipeline.steps import Parted, SetOutcome, Step, StepSettings, tidy

NAME = "deduplicate"
Record = Question | Post | Dialogue | Passage
SEED = 1  # of the permutations; another one finds, by chance, slightly other pairs
MIX = 0x9E3779B97F4A7C15  # an odd number of 64 bits, for hashes modulo 2**64
END = "\n"  # of a text's line, stem or option
PARTNER = 0.5  # characters that an option and its partner have in common at least; ours
EXCERPT = 80
FEW = 100_000  # texts that are signed before processes would have started: ten microseconds each
_NUMBER = re.compile(r"\d+")
_NOISE = re.compile(r"[^\w\n]+")


class Settings(StepSettings):
    """All values are ours: the paper publishes neither n-gram, threshold nor permutations."""

    # characters per n-gram; ours: questions are short (median 50), a long one breaks at a slip
    n: int = Field(default=3, ge=1)
    threshold: float = Field(default=0.75, gt=0, le=1)  # Jaccard index from which records are the same; ours
    # bands of the LSH; ours: with 6 rows a pair of Jaccard 0.75 is found in 98 of 100 cases
    bands: int = Field(default=21, ge=1)
    rows: int = Field(default=6, ge=1)  # hashes per band, permutations = bands x rows; ours
    short: int = Field(default=10, ge=0)  # letters and digits below which stems and texts must be equal; ours


class _Spelled(NamedTuple):
    record: Record
    text: str  # what `_spell` makes of what is compared
    case: str


def _spelled(record: Record) -> _Spelled:
    return _Spelled(record, *map(_spell, texts(record)))


def _whole(record: Record) -> str:
    _, text, case = _spelled(record)
    return f"{text}{END}{case}" if case else text


def run(rows: Sequence, settings: Settings) -> SetOutcome:
    """Returns what is merged; a kept record's trail names those merged into it. `rows` may lie in a file: held are the
    keys of their bands, and of those that share one the places; texts are read again where they are compared.
    """
    return outcome(rows, [decide(rows, range(len(rows)), settings)], settings)


def decide(rows: Sequence, places: Sequence[int], settings: Settings) -> dict:
    """Returns what becomes of the rows, named by their `places`; those that share a band are all among `rows`.

    {"merges": [[completeness, kept, merged, similarity], ...], "conflicts": [[first, second, similarity], ...],
    "candidates": pairs that were checked}: as JSON has it, for it may come from another machine.
    """
    buckets = defaultdict(list)  # of each row that shares one
    for bucket in set(map(tuple, _buckets(map(_whole, rows), settings))):
        for i in bucket:
            buckets[i].append(bucket)
    spelled = lru_cache(maxsize=4096)(lambda i: _spelled(rows[i]))
    grams = lru_cache(maxsize=4096)(partial(_grams, n=settings.n))  # the sets of all rows would take gigabytes
    rank = {i: (*(-value for value in completeness(rows[i])), i) for i in sorted(buckets)}
    decided, kept_of, conflicts, merges, candidates = set(), {}, {}, [], 0
    for i in sorted(rank, key=rank.__getitem__):
        if i in decided:
            continue
        decided.add(i)
        for j in sorted({j for bucket in buckets[i] for j in bucket} - decided):
            candidates += 1
            kind, similarity = _judge(spelled(i), spelled(j), grams, settings)
            if kind == "same":
                decided.add(j)
                kept_of[j] = i
                merges.append([rank[i][:-1], places[i], places[j], similarity])
            elif kind == "conflict":
                conflicts[i, j] = similarity
    # a conflict with a merged record is one with the record that stands for it
    standing = {tuple(sorted((i, kept_of.get(j, j)))): similarity for (i, j), similarity in conflicts.items()}
    disputed = [[places[i], places[j], standing[i, j]] for i, j in standing if i != j]
    return {"merges": merges, "conflicts": disputed, "candidates": candidates}


def outcome(rows: Sequence, decisions: Iterable[dict], settings: Settings) -> SetOutcome:
    """Returns the outcome of all rows, of what `decide` said of groups that share no band with one another.

    `report`: in, out, merged, merged_ids, clusters, sizes {members: clusters}, candidates (pairs checked), conflicts,
    lsh_recall (chance that a pair at the threshold is found) and settings. `files`: "clusters", one row per merged
    record, and "conflicts", one row per pair of near-duplicates with different right answers.
    """
    decisions = list(decisions)
    merges = [tuple(pair[1:]) for pair in sorted(chain.from_iterable(one["merges"] for one in decisions))]
    disputed = sorted(chain.from_iterable(one["conflicts"] for one in decisions))
    kept_of = {j: i for i, j, _ in merges}
    ids = {j: rows[j].id for j in sorted(kept_of)}
    into = defaultdict(list)
    for j in ids:
        into[kept_of[j]].append(ids[j])
    opposed = defaultdict(list)
    for i, j, _ in disputed:
        opposed[i].append(j)
        opposed[j].append(i)

    def changed() -> Iterator[tuple[int, Record]]:
        for i in sorted({*into, *opposed}):
            record = tidy(rows[i])
            if i in into:
                note(record, NAME, merged=into[i])
            for j in opposed[i]:
                note(record, NAME, conflict=rows[j].id)
            yield i, record

    def pairs(places: Iterable, names: tuple[str, str]) -> Iterator[dict]:
        return (_pair(rows[i], rows[j], similarity, names) for i, j, similarity in places)

    report = {
        "in": len(rows),
        "out": len(rows) - len(kept_of),
        "merged": len(kept_of),
        "merged_ids": list(ids.values()),
        "clusters": len(into),
        "sizes": dict(sorted(Counter(len(merged) + 1 for merged in into.values()).items())),
        "candidates": sum(one["candidates"] for one in decisions),
        "conflicts": len(disputed),
        "lsh_recall": round(1 - (1 - settings.threshold**settings.rows) ** settings.bands, 4),
        "settings": settings.model_dump(),
    }
    files = {"clusters": pairs(merges, ("kept", "merged")), "conflicts": pairs(disputed, ("first", "second"))}
    return SetOutcome(merged=kept_of, changed=changed(), report=report, files=files)


def band_keys(rows: Sequence, settings: Settings):
    """Returns (places of the rows that can be near to others, a number for each of their bands, (places, bands))."""
    spelled = [_whole(row) for row in rows]
    return [place for place, text in enumerate(spelled) if text.strip()], _band_keys(settings, spelled)


def completeness(record) -> tuple[int, ...]:
    """Returns what decides which of several near-duplicates is kept, the greater first: flagged for crisis (a flag is
    never merged away), then for a question the lengths of rationale and model answer, for a post that of its replies,
    for a dialogue that of its thoughts.
    """
    flagged = int(bool(record.meta.get("crisis")))
    if isinstance(record, Question):
        return flagged, len(record.rationale), len(record.reference)
    if isinstance(record, Post):
        return flagged, sum(map(len, record.replies))
    if isinstance(record, Dialogue):
        return flagged, sum(len(turn.thought) for turn in record.turns)
    return (flagged,)


def texts(record) -> tuple[list[str], list[str]]:
    """Returns (the texts that are compared, the case introduction of a question)."""
    if isinstance(record, Question):
        return [record.stem, *record.options], [record.context]
    if isinstance(record, Post):
        return [record.title, record.text], []
    if isinstance(record, Dialogue):
        return [turn.content for turn in record.turns], []
    if isinstance(record, Passage):
        return [record.text], []
    raise TypeError(f"{NAME}: no text is known of a {type(record).__name__}")


def _spell(parts: list[str]) -> str:
    """Returns the letters, characters and digits of `parts`, NFKC and lower case, a line each."""
    if not any(parts):
        return ""
    text = _NOISE.sub("", END.join([part.replace(END, " ") for part in parts])).replace("_", "")
    return unicodedata.normalize("NFKC", text).lower()


def _grams(spelled: str, n: int) -> set[str]:
    """Returns the n-grams of each line, those at its end filled up with line ends: "ab" has "ab\\n" and "b\\n\\n"."""
    text = spelled.replace(END, END * max(1, n - 1)) + END * (n - 1)
    return {gram for gram in {text[i : i + n] for i in range(len(text))} if gram[0] != END}


def _hashes(spelled: list[str], n: int):
    """Returns (hashes of the n-grams of all texts, where each text's begin and end), as `_grams` has them."""
    import numpy

    mix = numpy.uint64(MIX)
    gap = END * max(1, n - 1)
    text = gap.join([one.replace(END, gap) for one in spelled]) + gap
    codes = numpy.frombuffer(text.encode("utf-32-le"), dtype=numpy.uint32)
    characters = codes != ord(END)
    padded = numpy.concatenate((codes, numpy.zeros(n, dtype=numpy.uint32))).astype(numpy.uint64)
    hashes = numpy.zeros(len(codes), dtype=numpy.uint64)
    for i in range(n):
        hashes = hashes * mix + padded[i : i + len(codes)]
    hashes ^= hashes >> numpy.uint64(32)
    lengths = [len(one) + (len(gap) - 1) * one.count(END) + len(gap) for one in spelled]
    before = numpy.concatenate(([0], numpy.cumsum(characters)))
    offsets = before[numpy.concatenate(([0], numpy.cumsum(lengths)))]
    return hashes[characters], offsets.astype(numpy.uint64)


def _band_keys(settings: Settings, spelled: list[str]):
    """Returns one number for each band of the signature of each text that is not blank, (texts, bands); what collides
    is checked anyway.
    """
    import numpy
    from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]  (compiled)

    known = [text for text in spelled if text.strip()]
    keys = numpy.zeros((len(known), settings.bands), dtype=numpy.uint64)
    if not known:
        return keys
    hashes, offsets = _hashes(known, settings.n)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, settings.bands * settings.rows, SEED)
    digests = numpy.fromiter(chain.from_iterable(matrix.to_rows()), dtype=numpy.uint64)
    digests = digests.reshape(-1, settings.bands, settings.rows)
    for row in range(settings.rows):
        keys = keys * numpy.uint64(MIX) + digests[:, :, row]
    return keys


def _buckets(spelled: Iterable[str], settings: Settings) -> Iterator[list[int]]:
    """Yields the places (two or more, ascending) of texts that share a band of their signatures."""
    import numpy

    known, pieces, number = array("Q"), [], 0
    for piece, keys in in_processes(partial(_band_keys, settings), spelled, FEW):
        known.extend(number + i for i, text in enumerate(piece) if text.strip())  # blank: nothing to compare
        pieces.append(keys)
        number += len(piece)
    if not known:
        return
    known = numpy.array(known, dtype=numpy.int64)
    for band in range(settings.bands):
        keys = numpy.concatenate([piece[:, band] for piece in pieces])
        order = numpy.argsort(keys, kind="stable")
        keys = keys[order]
        cuts = numpy.flatnonzero(numpy.diff(keys, prepend=keys[0] + 1, append=keys[-1] + 1))
        shared = numpy.diff(cuts) > 1
        places = known[order]
        for start, end in zip(cuts[:-1][shared].tolist(), cuts[1:][shared].tolist(), strict=True):
            yield [int(place) for place in places[start:end]]


def _jaccard(a: str, b: str, grams) -> float:
    if a == b:
        return 1.0
    if not a or not b:
        return 0.0
    shared = len(grams(a) & grams(b))
    return shared / (len(grams(a)) + len(grams(b)) - shared)


def _judge(a: _Spelled, b: _Spelled, grams, settings: Settings) -> tuple[str, float]:
    """Returns ("same", "conflict" or "", Jaccard index); `grams` gives the n-grams of a text."""
    similarity = round(_jaccard(a.text, b.text, grams), 4)
    if similarity < settings.threshold or _jaccard(a.case, b.case, grams) < settings.threshold:
        return "", similarity
    return _judge_records(a.record, b.record, a.text, b.text, settings), similarity


def _judge_records(a, b, text_a: str, text_b: str, settings: Settings) -> str:
    from rapidfuzz import fuzz

    if type(a) is not type(b):
        return ""
    question = isinstance(a, Question)
    if question:  # its first line is the stem
        text_a, text_b = (text.partition(END)[0] for text in (text_a, text_b))
    if text_a != text_b:
        if min(len(text_a), len(text_b)) < settings.short:
            return ""
        if question and fuzz.ratio(text_a, text_b) < 100 * settings.threshold:
            return ""
    if not question:
        return "same"
    partners = _partners(a.options, b.options, PARTNER)
    if partners is None:
        return ""
    ours, theirs = ([question.options[LETTERS.index(letter)] for letter in question.answer] for question in (a, b))
    places = sorted(partners[LETTERS.index(letter)] for letter in a.answer)
    agree = a.kind == b.kind and "".join(LETTERS[i] for i in places) == b.answer
    return "same" if agree and _partners(ours, theirs, settings.threshold) is not None else "conflict"


def _partners(a: list[str], b: list[str], least: float) -> list[int] | None:
    """Returns for each option of `a` the place of its partner in `b`: the equal one, else the nearest one left; None
    where one has no partner. Numbers must be equal, and punctuation counts here: "p<0.05" is not "p>0.05".
    """
    from rapidfuzz import fuzz

    if a == b:
        return list(range(len(a)))
    if len(a) != len(b):
        return None
    a, b = (["".join(unicodedata.normalize("NFKC", text).lower().split()) for text in texts] for texts in (a, b))
    left = list(range(len(b)))
    partners = []
    for text in a:
        place = next((j for j in left if b[j] == text), None)
        partners.append(place)
        if place is not None:
            left.remove(place)
    for i in [i for i, partner in enumerate(partners) if partner is None]:
        near = [fuzz.ratio(a[i], b[j]) if _NUMBER.findall(a[i]) == _NUMBER.findall(b[j]) else 0 for j in left]
        if max(near) < 100 * least:
            return None
        partners[i] = left.pop(near.index(max(near)))
    return partners


def _pair(a, b, similarity: float, names: tuple[str, str]) -> dict:
    """Returns a row for people: ids, Jaccard index, right answers of questions, beginnings of the texts."""
    row = {names[0]: a.id, names[1]: b.id, "similarity": similarity}
    for name, record in zip(names, (a, b), strict=True):
        if isinstance(record, Question):
            row[f"{name}_answer"] = " | ".join(record.options[LETTERS.index(letter)] for letter in record.answer)
        row[f"{name}_text"] = " ".join(texts(record)[0])[:EXCERPT]
    return row


PARTED = Parted(keys=band_keys, decide=decide, outcome=outcome)
STEP = Step(takes=(Question, Post, Dialogue, Passage), settings=Settings, rows=run, parted=PARTED)
