"""What the workers of a cluster do: a piece of a step's rows each, from the place that all nodes see and back to it.

Every function writes one file and gives back nothing, so that a worker that is lost loses its piece and nothing else;
what is there already is never made again. No module of the commands is imported here.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import orjson
import pyarrow
import pyarrow.ipc

from data_pipeline.errors import BadInput
from data_pipeline.records import Reject, parse_record, read_lines
from data_pipeline.steps import Outcome, Parted, StepSettings, find_step, step_names
from data_pipeline.synthesis.apply import of_lines
from data_pipeline.synthesis.keys import code_hash
from launch.executors.storage import Store

OTHER = (
    "another version of PsyForge than the driver, and would make other rows; bring all nodes to the same commit, and "
    "start their Ray anew"
)
PRIVATE = 0o077  # umask: what people said is its owner's alone, on each node


@dataclass(frozen=True)
class Piece:
    """Some lines of a file of rows."""

    first: int  # place of its first row, from 0
    rows: int
    begin: int  # bytes
    end: int

    def name(self, what: str) -> str:
        return f"{what}-{self.begin:015}-{self.end:015}"


@dataclass(frozen=True)
class Job:
    """A step's work on the rows of one file, as every worker is told it."""

    store: Store
    folder: str  # of the files that the workers write, in the store
    rows: tuple[Store, str]  # place and name of the rows
    name: str
    settings: StepSettings
    kind: type
    code: str  # the version that the driver has

    def lines(self, piece: Piece) -> list[bytes]:
        store, name = self.rows
        with store.open(name) as file:
            return file.read_at(piece.end - piece.begin, piece.begin).splitlines(keepends=True)

    def records(self, piece: Piece) -> list:
        return [self.record(piece.first + n, line) for n, line in enumerate(self.lines(piece))]

    def record(self, place: int, line: bytes) -> Any:
        return parse_record(self.kind, Path(self.rows[1]), place + 1, line)

    @property
    def parted(self) -> Parted:
        parted = find_step(self.name, "step").parted
        assert parted is not None  # only such a step goes by groups
        return parted

    def begin(self) -> None:
        """Looks whether this worker has the driver's version; raises BadInput for another one."""
        os.umask(PRIVATE)
        if version(self.name) != self.code:
            raise BadInput(f"{self.name}: a node has {OTHER}")

    def read(self, name: str) -> bytes:
        return self.store.read(f"{self.folder}/{name}")

    def write(self, name: str, content: bytes) -> None:
        self.store.write(f"{self.folder}/{name}", content)

    def write_columns(self, name: str, **columns) -> None:
        """Writes numbers by column, each of which can be read by itself."""
        sink, table = pyarrow.BufferOutputStream(), pyarrow.table(columns)
        with pyarrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self.store.write(f"{self.folder}/{name}", sink.getvalue(), compression=None)

    def columns(self, name: str, *places: int) -> list[numpy.ndarray]:
        """Returns the columns at these places of a file that `write_columns` wrote."""
        options = pyarrow.ipc.IpcReadOptions(included_fields=list(places))
        with self.store.open(f"{self.folder}/{name}") as file:
            table = pyarrow.ipc.open_file(file, options=options).read_all()
        return [column.to_numpy() for column in table.columns]


@cache
def version(name: str) -> str:
    """Returns the hash of the code by which a step's pieces are made here."""
    return "".join(map(code_hash, (__name__, "launch.executors.storage", f"data_pipeline.steps.{name}")))


def all_versions() -> str:
    """Returns the hash of the code of all steps."""
    return hashlib.sha256("".join(map(version, step_names())).encode()).hexdigest()


def look(place: str, folder: str, node: str, code: str) -> str:
    """Returns what this node lacks to take part, "" where it has all: the driver's version, and its files."""
    os.umask(PRIVATE)
    if all_versions() != code:
        return f"has {OTHER}"
    try:
        store = Store(place)
        if store.read(f"{folder}/driver") != folder.encode():
            raise OSError("the driver's file has another content there")
        store.write(f"{folder}/{node}", b"seen")
    except (BadInput, OSError) as error:
        return f"does not see what the driver writes ({error}); say shared=, a folder or s3:// that all nodes see"
    return ""


def cut(path: Path, size: int) -> Iterator[Piece]:
    """Yields the pieces of a file of records, of about `size` bytes each."""
    first = begin = end = number = 0
    for number, line in read_lines(path):
        end += len(line)
        if end - begin >= size:
            yield Piece(first, number - first, begin, end)
            first, begin = number, end
    if end > begin:
        yield Piece(first, number - first, begin, end)


# --- row steps --------------------------------------------------------------------------------------------------------


def apply(job: Job, piece: Piece, tables: dict) -> None:
    """Writes what a row step makes of a piece."""
    job.begin()
    lines = job.lines(piece)
    numbered = list(enumerate(lines, piece.first + 1))
    made = of_lines(job.name, job.settings, tables, job.kind, Path(job.rows[1]), numbered)
    rows = [lines[row] if type(row) is int else row for row in made.rows]
    told = {"rows": [row.decode() for row in rows], "rejects": made.rejects, "files": made.files}
    job.write(piece.name("rows"), orjson.dumps(told | {"counts": [*made.counts.items()]}))


def outcome(content: bytes) -> Outcome:
    """Returns the outcome that `apply` wrote, its rows as lines."""
    told = orjson.loads(content)
    counts = Counter({tuple(key) if isinstance(key, list) else key: number for key, number in told["counts"]})
    rejects = [Reject(**reject) for reject in told["rejects"]]
    return Outcome([row.encode() for row in told["rows"]], rejects, told["files"], counts)


# --- set steps, group by group ----------------------------------------------------------------------------------------


def edges(column: int) -> str:
    return f"edges-{column:03}"


def decision(group: int) -> str:
    return f"decision-{group:06}"


def write_keys(job: Job, piece: Piece) -> None:
    """Writes the keys of a piece's rows, column by column behind the rows' places."""
    job.begin()
    there, keys = job.parted.keys(job.records(piece), job.settings)
    places = piece.first + numpy.asarray(there, numpy.int64)
    job.write_columns(piece.name("keys"), place=places, **{f"{n}": keys[:, n] for n in range(keys.shape[1])})


def write_edges(job: Job, column: int, pieces: list[Piece]) -> None:
    """Writes (first, other) for all rows that share their key in a column with an earlier one, the first of them."""
    job.begin()
    found = [job.columns(piece.name("keys"), 0, 1 + column) for piece in pieces]
    places, keys = (numpy.concatenate(parts) for parts in zip(*found, strict=True))
    order = numpy.argsort(keys, kind="stable")  # places ascend, so the first of a key stays the first
    places, keys = places[order], keys[order]
    begins = numpy.flatnonzero(numpy.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else order
    first = numpy.repeat(places[begins], numpy.diff(numpy.append(begins, len(keys))))
    other = first != places
    job.write_columns(edges(column), first=first[other], other=places[other])


def write_shares(job: Job, piece: Piece, places: numpy.ndarray, groups: numpy.ndarray) -> None:
    """Writes the piece's rows that are in a group, sorted by group, and behind them where each group begins."""
    job.begin()
    lines, order = job.lines(piece), numpy.argsort(groups, kind="stable")
    mine, their_places = [lines[place - piece.first] for place in places[order].tolist()], places[order]
    begins = numpy.concatenate(([0], numpy.cumsum([len(line) for line in mine], dtype=numpy.int64)))
    job.store.write(f"{job.folder}/{piece.name('share')}", b"".join(mine), compression=None)
    job.write_columns(piece.name("index"), group=groups[order], place=their_places, begin=begins[:-1], end=begins[1:])


def write_decision(job: Job, group: int, pieces: list[Piece]) -> None:
    """Writes what the step decides of the rows of a group."""
    job.begin()
    places, rows = [], []
    for piece in pieces:
        groups, theirs, begins, ends = job.columns(piece.name("index"), 0, 1, 2, 3)
        low, high = numpy.searchsorted(groups, [group, group + 1])
        if low == high:
            continue
        with job.store.open(f"{job.folder}/{piece.name('share')}") as file:
            content = file.read_at(int(ends[high - 1] - begins[low]), int(begins[low]))
        places += theirs[low:high].tolist()
        rows += map(job.record, theirs[low:high].tolist(), content.splitlines(keepends=True))
    job.write(decision(group), orjson.dumps(job.parted.decide(rows, places, job.settings)))


def components(found: Iterable[Sequence[numpy.ndarray]], rows: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Returns (places of the rows that share a key, ascending; the component of each, counted by its first row)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = numpy.empty(0, numpy.uint64)  # first x rows + other: below 2**64 up to four billion rows
    for first, other in found:  # most columns say the same, so one after the other
        coded = first.astype(numpy.uint64) * numpy.uint64(rows) + other.astype(numpy.uint64)
        pairs = numpy.unique(numpy.concatenate((pairs, coded)))
    pairs = numpy.stack(numpy.divmod(pairs, numpy.uint64(rows)), axis=1).astype(numpy.int64)
    places, index = numpy.unique(pairs.ravel(), return_inverse=True)
    ends = index.reshape(-1, 2)
    graph = coo_matrix((numpy.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(len(places),) * 2)
    _, labels = connected_components(graph, directed=False)
    _, begins, of = numpy.unique(labels, return_index=True, return_inverse=True)
    rank = numpy.empty(len(begins), numpy.int64)
    rank[numpy.argsort(begins)] = numpy.arange(len(begins))
    return places, rank[of]


def grouped(component: numpy.ndarray, size: int) -> numpy.ndarray:
    """Returns the group of each row: whole components, in their order, about `size` rows a group."""
    if not len(component):
        return component
    rows = numpy.bincount(component)
    return ((numpy.cumsum(rows) - rows) // size)[component]
