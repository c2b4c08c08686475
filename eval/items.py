"""Items of a benchmark: their fingerprint, the comparison with the full release, the order of stored responses."""

import difflib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import orjson

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Question, Reject, Response
from eval.contract import Item

_CONTENT = [f.name for f in fields(Question) if f.name != "meta"]  # meta says where the file lay


def fingerprint(items: Sequence[Item]) -> str:
    """Returns the sha256 over ids and content of the items and their examples, whatever folder they were read from.

    Responses may be scored again only against items of the same fingerprint.
    """
    digest = hashlib.sha256()
    for item in items:
        rows = [_content(record) for record in (item.record, *item.shots)]
        digest.update(orjson.dumps([item.cell, rows]) + b"\n")
    return digest.hexdigest()


def _content(record: Question | Dialogue) -> list:
    if isinstance(record, Dialogue):
        return [record.id, record.source, [asdict(turn) for turn in record.turns]]
    return [getattr(record, name) for name in _CONTENT]


def compare(path: Path, items: Sequence[Item], rejects: Sequence[Reject], release: dict[str, int]) -> list[str]:
    """Returns a note per cell that holds fewer items than the `release`, and one on the rejected ones.

    Raises BadInput, naming every count that differs, for cells that hold more or that the release does not have.
    """
    sizes = Counter(item.cell for item in items)
    if more := [f"{c} {n} instead of {release.get(c, 0)}" for c, n in sizes.items() if n > release.get(c, 0)]:
        raise BadInput(f"{path}: another version of the benchmark: it holds {', '.join(more)} items; get the release")
    notes = [f"partial: {c} has {sizes[c]} of {full} items" for c, full in release.items() if sizes[c] < full]
    codes = Counter(r.code for r in rejects)
    if rejects:
        why = ", ".join(f"{n} {code}" for code, n in codes.items())
        notes.append(f"{len(rejects)} items are left out, since they cannot be asked or have no usable key: {why}")
    return notes


def match(items: Sequence[Item], responses: dict[str, list[Response]]) -> list[list[Response]]:
    """Returns stored responses, keyed by item id, in the order of the items.

    Raises BadInput for an id that the benchmark does not have (naming the nearest) and for items without responses.
    """
    ids = [item.id for item in items]
    known = set(ids)
    for id in responses:
        if id not in known:
            near = difflib.get_close_matches(id, ids, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise BadInput(f"responses: the benchmark has no item with id {id!r}{hint}")
    return check(items, [responses.get(id, []) for id in ids])


def check(items: Sequence[Item], responses: list[list[Response]]) -> list[list[Response]]:
    """Returns the responses; raises BadInput unless every item has the same number of them, at least one."""
    if not items:
        raise BadInput("the benchmark holds no item to score; look at the rejects of its loader")
    if len(items) != len(responses):
        raise BadInput(f"{len(responses)} lists of responses for {len(items)} items; one list per item, in their order")
    bare = [item.id for item, samples in zip(items, responses, strict=True) if not samples]
    if bare:
        raise BadInput(f"{len(bare)} of {len(items)} items have no response, first {bare[0]}; finish the run first")
    sizes = Counter(map(len, responses))
    if len(sizes) > 1:
        usual = sizes.most_common(1)[0][0]
        odd = next(item.id for item, samples in zip(items, responses, strict=True) if len(samples) != usual)
        raise BadInput(f"item {odd} has not {usual} responses as the others; finish the run first")
    return responses


def group_by(keys: Sequence[str], values: Sequence) -> dict[str, list]:
    """Returns the values under each key, both in their order."""
    groups = defaultdict(list)
    for key, value in zip(keys, values, strict=True):
        groups[key].append(value)
    return dict(groups)
