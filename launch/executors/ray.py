"""`executor=ray`: the steps of synthesis that ask nobody, piece by piece on the nodes of a Ray cluster.

    RAY_ADDRESS=HOST:6379 python -m launch.data ... executor=ray shared=s3://BUCKET/PREFIX

Without RAY_ADDRESS a cluster of this machine's cores is started, and stopped at the end. Ray only says which node does
which piece; rows and results lie in the run's folder, or in `shared` where the nodes do not see that (`pieces.py`). So
a node that is lost costs its pieces, and the same command goes on from those that are finished.

Ray Data is not used: its blocks have no names by which a later run would find the finished ones.
"""

import hashlib
import logging
import os
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy
import orjson
import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from data_pipeline.errors import BadInput
from data_pipeline.records import RecordFile
from data_pipeline.safety.shown import text_column
from data_pipeline.steps import Outcome, SetOutcome
from data_pipeline.synthesis.apply import Bound
from launch.cli.arguments import REPOSITORY
from launch.cli.entry import StageFailed, console
from launch.executors import pieces
from launch.executors.pieces import Job, Piece
from launch.executors.storage import Store, explained, refusal
from launch.preflight.checks import check_ray

PIECE = 8 << 20  # bytes of rows in a piece: a second or two of cleaning is lost with a worker; ours
OF_SETS = 4  # times as much for a set step, whose pieces are each looked into once a column; ours
GROUP = 50_000  # rows that a set step decides about at once; ours
LEAST_GROUPS = 16  # so that a few workers share what is little; ours
PROCESS, HELD = 400 << 20, 16  # bytes of a worker, and times the bytes of its piece that it holds besides; measured
OF_KEY = 80  # bytes of a row while its keys in one column are compared; measured
RETRIES = 4  # of a piece whose worker was lost; ours
STORE = 200 << 20  # bytes of Ray's own store where Ray is started here: next to nothing goes through it
ADDRESS = "RAY_ADDRESS"


@contextmanager
def connected(folder: Path, shared: str | None) -> Iterator["RayExecutor"]:
    """Gives an executor on the cluster at RAY_ADDRESS, or on one that is started here; `folder` is the data stage's.

    Raises BadInput for an address that nobody serves, for a place that cannot be written, and for nodes that lack this
    version of the repository or do not see the files.
    """
    address = os.environ.get(ADDRESS)
    if address not in (None, "", "auto", "local"):
        check_ray(address, ADDRESS)
    own = address in (None, "", "local")
    ours = {"include_dashboard": False, "object_store_memory": STORE, "num_cpus": len(os.sched_getaffinity(0))}
    environment: dict[str, Any] = {"env_vars": {"PYTHONPATH": str(REPOSITORY)}}
    if own and shlex.quote(sys.executable) != sys.executable:  # Ray starts its workers through a shell, unquoted
        environment["py_executable"] = shlex.quote(sys.executable)
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        context = ray.init("local" if own else address, runtime_env=environment, **quiet, **(ours if own else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        told = str(error).splitlines()[0]
        cure = f"start Ray (`ray start --head`) or unset {ADDRESS}"
        raise BadInput(f"{ADDRESS}={address}: {told}; {cure}") from None
    with context:
        place, prefix = (shared, folder.parent.name) if shared else (str(folder.absolute()), "pieces")
        executor = RayExecutor(Store(place), prefix, in_place=not shared)
        executor.check_nodes()
        yield executor


@dataclass
class RayExecutor:
    """Applies steps on the cluster to which this process is connected; `in_place`: its nodes see the run's folder."""

    store: Store
    prefix: str  # folder in the store
    in_place: bool
    piece: int = PIECE
    group: int = GROUP

    def check_nodes(self) -> None:
        """Raises BadInput that names a node that could not do its part."""
        nodes, folder = _nodes(), f"{self.prefix}/seen-{uuid4().hex}"
        with explained(self.store.place):
            self.store.write(f"{folder}/driver", folder.encode())
        try:
            look = ray.remote(_look(self.store.place, folder, pieces.all_versions()))
            strategies = {node: NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes}
            options = {
                node: {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": one} for node, one in strategies.items()
            }
            asked = {node: look.options(**one).remote(node) for node, one in options.items()}
            for node, ref in asked.items():
                if fault := _got("executor=ray", self.store.place, ref):
                    raise BadInput(f"executor=ray: node {nodes[node]['NodeManagerAddress']} {fault}")
        finally:
            self.store.delete(folder)

    def lines(self, bound: Bound, kind: type, path: Path, key: str) -> Iterator[tuple[int, Outcome]]:
        """Yields as `apply.Executor.lines`."""
        job, tables = self._job(bound, kind, path, key), ray.put(dict(bound.tables))
        cut = list(pieces.cut(path, self.piece))
        work = [(piece.name("rows"), (piece, tables)) for piece in cut]
        made = self._made(job, pieces.apply, work, PROCESS + HELD * self.piece)
        with explained(self.store.place):
            for piece, name in zip(cut, made, strict=True):
                yield piece.rows, pieces.outcome(job.read(name))

    def select(self, bound: Bound, rows: RecordFile, key: str) -> SetOutcome:
        """Returns as `apply.Executor.select`; a step that cannot be parted runs in this process."""
        if (parted := bound.step.parted) is None:
            assert bound.step.rows is not None  # a set step
            return bound.step.rows(rows, bound.settings)
        job = self._job(bound, rows.kind, rows.path, key)
        cut = list(pieces.cut(rows.path, OF_SETS * self.piece))
        columns = parted.keys([], bound.settings)[1].shape[1]
        with explained(self.store.place):
            decisions = list(self._decisions(job, cut, columns))
        return parted.outcome(rows, decisions, bound.settings)

    def finished(self, key: str) -> None:
        """Deletes the pieces of a step."""
        with explained(self.store.place):
            self.store.delete(f"{self.prefix}/{key}")

    def _decisions(self, job: Job, cut: list[Piece], columns: int) -> Iterator[dict]:
        """Yields what is decided of each group of rows that share a key."""
        rows, held = sum(piece.rows for piece in cut), PROCESS + HELD * OF_SETS * self.piece
        work = [(piece.name("keys"), (piece,)) for piece in cut]
        deque(self._made(job, pieces.write_keys, work, held), maxlen=0)
        work = [(pieces.edges(column), (column, cut)) for column in range(columns)]
        made = self._made(job, pieces.write_edges, work, PROCESS + OF_KEY * rows)
        places, component = pieces.components((job.columns(name, 0, 1) for name in made), rows)
        groups = pieces.grouped(component, max(1, min(self.group, len(places) // LEAST_GROUPS)))
        slices = {piece: slice(*numpy.searchsorted(places, [piece.first, piece.first + piece.rows])) for piece in cut}
        slices = {piece: mine for piece, mine in slices.items() if mine.start < mine.stop}
        work = [(piece.name("index"), (piece, places[mine], groups[mine])) for piece, mine in slices.items()]
        deque(self._made(job, pieces.write_shares, work, held), maxlen=0)
        sizes = numpy.bincount(groups) if len(groups) else groups
        held = PROCESS + HELD * int(max(sizes, default=0)) * (cut[-1].end // rows if rows else 0)
        work = [(pieces.decision(group), (group, [*slices])) for group in numpy.flatnonzero(sizes).tolist()]
        for name in self._made(job, pieces.write_decision, work, held):
            yield orjson.loads(job.read(name))

    def _job(self, bound: Bound, kind: type, path: Path, key: str) -> Job:
        code = pieces.version(bound.name)
        how = hashlib.sha256(f"{code} {self.piece} {self.group}".encode()).hexdigest()  # other pieces, other names
        folder, rows = f"{self.prefix}/{key}/{how[:16]}", (Store(str(path.absolute().parent)), path.name)
        if not self.in_place:
            rows = self.store, f"{folder}/{path.name}"
            with explained(self.store.place):
                self.store.copy_in(path, rows[1])
        return Job(self.store, folder, rows, bound.name, bound.settings, kind, code)

    def _made(self, job: Job, function: Any, work: list[tuple[str, tuple]], memory: int) -> Iterator[str]:
        """Yields the names of `work` in order, each when its file is there; `function(job, *arguments)` writes it where
        it was not there before. Raises BadInput where no node has this much memory.
        """
        there = self.store.names(job.folder)
        self._check_memory(job.name, memory)
        task = ray.remote(function).options(num_cpus=1, memory=memory, max_retries=RETRIES)
        columns = text_column("  {task.description}"), MofNCompleteColumn(), TimeElapsedColumn()
        pending: deque = deque()
        with Progress(*columns, transient=True, disable=not console.is_terminal) as progress:
            shown = progress.add_task(f"{job.name}: {function.__name__}", total=len(work))

            def done() -> str:
                name, ref = pending.popleft()
                if ref is not None:
                    _got(job.name, job.store.place, ref)
                progress.update(shown, advance=1)
                return name

            for name, arguments in work:
                pending.append((name, None if name in there else task.remote(job, *arguments)))
                while len(pending) > 2 * ray.cluster_resources().get("CPU", 1) + 2:
                    yield done()
            while pending:
                yield done()

    def _check_memory(self, step: str, memory: int) -> None:
        most = max((node["Resources"].get("memory", 0) for node in _nodes().values()), default=0)
        if most < memory:
            raise BadInput(
                f"{step}: a piece needs {memory / 2**20:,.0f} MiB, and the largest node of the Ray cluster gives "
                f"{most / 2**20:,.0f} MiB; start one with more (`ray start --memory=BYTES` is what it gives)"
            )


def _nodes() -> dict[str, dict]:
    """Returns {id: what Ray knows} of the nodes that take work; raises StageFailed when none is left."""
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1}
    if not nodes:
        raise StageFailed(
            "no node of the Ray cluster has a CPU for work; start one (`ray start --address=HOST:PORT`), and the same "
            "command goes on from the pieces that are finished"
        )
    return nodes


def _look(place: str, folder: str, code: str) -> Callable[[str], str]:
    """Returns what a node is asked: what it lacks, "" for nothing. It is sent whole, for a node may lack us."""
    repository = str(REPOSITORY)

    def look(node: str) -> str:
        try:
            from launch.executors import pieces
        except ImportError as error:
            return (
                f"has no PsyForge at {repository} ({error}); put the repository and its .venv at the same path on all "
                "nodes, and start Ray with it"
            )
        return pieces.look(place, folder, node, code)

    return look


def _got(step: str, place: str, ref: ray.ObjectRef) -> Any:
    """Returns what a task gives; raises BadInput for what its node lacks, StageFailed where its workers are lost."""
    try:
        while not ray.wait([ref], timeout=30)[0]:
            _nodes()
        return ray.get(ref)
    except exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        if isinstance(cause, OSError):
            raise refusal(place, cause) from None
        if "import" in str(cause) and isinstance(cause, ImportError | RuntimeError):
            raise BadInput(f"{step}: a node that joined later has no PsyForge at {REPOSITORY}: {cause}") from None
        raise cause from None
    except exceptions.RayError as error:
        told = str(error).strip().splitlines()[0]
        raise StageFailed(
            f"{step}: the workers of a piece were lost {RETRIES + 1} times in a row ({told}); see that nodes have "
            "memory left and stay up: the same command goes on from the pieces that are finished"
        ) from None
