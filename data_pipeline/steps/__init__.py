"""Steps of data synthesis, one file each, named as in the papers' figures.

A step is a function `run(rows, settings, ask) -> Result`: pure but for its calls, which go through `ask` and so
through the ledger (or through recorded replies); one that asks nobody does without. Every row that goes in comes out,
is rejected with its reason, or is merged into another: `check_balance` holds that.

Provenance: `records.note` appends to `record.meta["trail"]` what a step did to a record. A call is named by (step, row,
sample), under which the ledger has model and reply, and by the hash of its prompt.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from data_pipeline.records import Reject


@dataclass
class Result:
    """What a step gives back. `report` holds figures and examples for people and may hold "merged": a number of rows.

    `files` are further tables under their names (edits, clusters, traces), each a list of dicts.
    """

    rows: list
    rejects: list[Reject] = field(default_factory=list)
    report: dict = field(default_factory=dict)
    files: dict[str, list[dict]] = field(default_factory=dict)


def check_balance(step: str, ids: Iterable[str], result: Result) -> None:
    """Raises AssertionError, naming the ids, unless every id that went in is among the rows (itself, or as their
    `meta["parents"]`), the rejects, or `report["merged_ids"]`.
    """
    seen = {r.id for r in result.rejects} | set(result.report.get("merged_ids", ()))
    for row in result.rows:
        seen.add(row.id)
        seen.update(row.meta.get("parents", ()))
    if lost := [id for id in ids if id not in seen]:
        raise AssertionError(f"{step}: {len(lost)} rows were lost, first {', '.join(lost[:5])}")
