"""Readers, one file each: `read(path, **options)` yields records and Rejects in file order.

Everybody else calls `read` of this module, which also sees to it that ids are unique from here on: later steps, files
and people's verdicts name a record by its id.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from data_pipeline.errors import BadInput, check_options, did_you_mean
from data_pipeline.records import Dialogue, Passage, Post, Question, Reject

Record = Question | Passage | Post | Dialogue


def find_reader(name: str, key: str = "source") -> ModuleType:
    """Returns the module data_pipeline/sources/NAME.py; raises BadInput that lists those there are."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in names:
        raise BadInput(f"{key}={name}: no such reader; there is {', '.join(names)}{did_you_mean(name, names)}")
    return importlib.import_module(f"data_pipeline.sources.{name}")


def read(name: str, path: str | Path, key: str = "source", /, **options) -> Iterator[Record | Reject]:
    """Returns an iterator over what the reader data_pipeline/sources/NAME.py finds at `path`, in its order, ids unique.

    A record whose id stood before comes as a Reject. `key` is the setting that messages name. Raises BadInput for a
    reader that there is not and for options that it does not take, here and now; and for what is wrong with the
    files, while they are read. Raises TypeError for a reader that yields something else than records.
    """
    reader = find_reader(name, key).read
    check_options(reader, path, options, f"{key}={name}")
    mapped = "columns" in inspect.signature(reader).parameters
    cure = "; columns: {id: null} numbers the rows where an id is of several" if mapped else ""
    return _unique(_records(name, reader(path, **options)), cure)


def _records(name: str, records: Iterable) -> Iterator[Record | Reject]:
    for record in records:
        if not isinstance(record, Record | Reject):
            raise TypeError(f"data_pipeline/sources/{name}.py: read yields a {type(record).__name__}, no record")
        yield record


def _unique(records: Iterable[Record | Reject], cure: str) -> Iterator[Record | Reject]:
    """Yields the records; in place of one whose id an earlier one bears, a Reject that names both places and the cure.

    An id that only a Reject bears is free: what was left out is mixed up with nothing.
    """
    stands: dict[str, str] = {}
    for record in records:
        if isinstance(record, Reject):
            yield record
            continue
        where = record.meta.get("where", record.id)
        if record.id in stands:
            yield Reject(record.id, where, "the id stands already", stands[record.id] + cure)
        else:
            stands[record.id] = where
            yield record
