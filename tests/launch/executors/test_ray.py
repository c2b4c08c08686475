"""`executor=ray`: the files of one machine, whatever becomes of the nodes; one message for what a cluster lacks."""

import json
import os
import random
import shutil
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Post
from data_pipeline.steps import deduplicate
from data_pipeline.synthesis import run
from data_pipeline.synthesis.configuration import configuration
from launch.executors import pieces, storage
from launch.executors import ray as executor
from tests.benchmarks import synthesis
from tests.benchmarks.deduplicate import base_questions, near_copy
from tests.conftest import REPOSITORY, launch, refused
from tests.data_pipeline.synthesis.test_run import contents, write_posts
from tests.launch.executors.cluster import cluster, free_port, kill
from tests.object_store import object_store

STEPS = ["clean", "deduplicate"]
SMALL = 60_000  # bytes of a piece


def posts(count: int) -> list[Post]:
    """Returns posts of which some are near copies, some too short, some flagged, some with contact data."""
    made = list(synthesis.posts(count))
    for n in range(9, count, 10):
        made[n] = replace(made[n - 7], id=f"p{n}", text=made[n - 7].text.replace("的话", "说的话"))
    made[3] = Post("p3", "test", "", "嗯", [])
    made[4] = replace(made[4], text=made[4].text + "我不想活了，已经写好了遗书。")
    return made


def config(file: Path, **more):
    return configuration({"run": "x", "posts": str(file), "pipelines": {"posts": STEPS}, "steps": STEPS, **more})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """Returns (a file of posts, the files of its steps on one machine)."""
    folder = tmp_path_factory.mktemp("one")
    file = write_posts(folder / "posts.jsonl", posts(1200))
    run.run(config(file), folder, lambda text: None)
    files = contents(folder)
    assert len(json.loads(files["steps/posts/2_deduplicate/report.json"])["merged_ids"]) > 100
    assert files["steps/posts/1_clean/rejects.jsonl"] and files["steps/posts/1_clean/crisis.jsonl"]
    return file, files


def ran(file: Path, folder: Path, shared: str | None = None) -> dict[str, bytes]:
    with executor.connected(folder, shared) as on:
        on.piece, on.group = SMALL, 40
        run.run(config(file), folder, lambda text: None, executor=on)
    return contents(folder)


def test_pieces_hold_every_line_once_and_components_are_whole(made):
    cut = list(pieces.cut(made[0], SMALL))
    assert len(cut) > 5 and cut[0].begin == 0 and cut[-1].end == made[0].stat().st_size
    for one, after in zip(cut, cut[1:], strict=False):
        assert (one.end, one.first + one.rows) == (after.begin, after.first)
    edges = [list(numpy.array(pairs).T) for pairs in ([[5, 9], [1, 7]], [[7, 9], [2, 3]])]
    places, component = pieces.components(edges, 10)
    assert places.tolist() == [1, 2, 3, 5, 7, 9] and component.tolist() == [0, 1, 1, 0, 0, 0]
    assert pieces.grouped(component, 1).tolist() == [0, 4, 4, 0, 0, 0]
    empty = pieces.components([], 10)
    assert [len(one) for one in (*empty, pieces.grouped(empty[1], 5))] == [0, 0, 0]


def test_what_groups_decide_is_what_all_rows_decide():
    rng = random.Random(3)
    rows = base_questions([], 60, rng)
    rows += [near_copy(rng.choice(rows[:60]), rng.uniform(0.75, 1), rng) for _ in range(140)]
    rows = [replace(row, id=f"q{n}", rationale="因" * rng.randrange(3)) for n, row in enumerate(rows)]
    rows = [replace(row, answer=rng.choice("ABCD")) if rng.random() < 0.2 else row for row in rows]
    rng.shuffle(rows)
    settings = deduplicate.Settings()
    there, keys = deduplicate.band_keys(rows, settings)
    shared = {}
    for n, row in enumerate(keys.tolist()):
        for band, key in enumerate(row):
            shared.setdefault((band, key), []).append(there[n])
    edges = [[numpy.array([(at[0], other) for at in shared.values() for other in at[1:]])[:, n] for n in (0, 1)]]
    places, component = pieces.components(edges, len(rows))
    groups = pieces.grouped(component, 10)
    decided = []
    for group in set(groups.tolist()):
        mine = places[groups == group].tolist()
        decided.append(json.loads(json.dumps(deduplicate.decide([rows[i] for i in mine], mine, settings))))
    assert len(decided) > 3
    whole, parts = deduplicate.run(rows, settings), deduplicate.outcome(rows, decided, settings)
    assert whole.report["merged"] > 50 and whole.report["conflicts"] > 5
    assert parts.report == whole.report and parts.merged == whole.merged
    assert list(parts.changed) == list(whole.changed)
    assert {name: list(table) for name, table in parts.files.items()} == {
        name: list(table) for name, table in whole.files.items()
    }


def test_a_cluster_of_this_machine_makes_the_same_files_and_goes_on_from_finished_pieces(made, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    file, files = made
    read, seen = pieces.Job.read, []

    def stop(job, name):
        if name.startswith("rows-"):
            seen.append(name)
            if len(seen) == 4:
                raise KeyboardInterrupt
        return read(job, name)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pieces.Job, "read", stop)
        ran(file, tmp_path / "data")
    written = {one: one.stat().st_mtime_ns for one in (tmp_path / "data/pieces").rglob("rows-*")}
    assert len(written) >= 4
    kept = []
    monkeypatch.setattr(pieces.Job, "read", lambda job, name: (look(job, name, kept), read(job, name))[1])

    def look(job, name, kept):
        kept.append((path := Path(job.store.place, job.folder, name), path.stat().st_mtime_ns))

    assert ran(file, tmp_path / "data") == files
    assert dict(kept).items() >= written.items(), "what was finished is not made again"
    assert not [one for one in (tmp_path / "data/pieces").rglob("*") if one.is_file()], "nor left behind"
    assert all(one.stat().st_mode & 0o077 == 0 for one in written if one.exists())


# --- bad input --------------------------------------------------------------------------------------------------------


def asked(run_name: str, *words: str, posts: str = "data_pipeline/samples/corpus/posts.jsonl", **env: str):
    given = ("recipe=psyche_r1", f"run={run_name}", f"posts={posts}", "steps=[clean]", *words)
    return launch("data", *given, env={**os.environ, **env})


def test_what_no_cluster_can_do_is_told_at_once(run_name):
    told = refused(
        asked(run_name, "executor=ray", RAY_ADDRESS="127.0.0.1:1"), "RAY_ADDRESS=127.0.0.1:1: no Ray cluster"
    )
    assert "unset RAY_ADDRESS" in told
    refused(asked(run_name, "executor=slurm"), "executor='slurm': Input should be 'machine' or 'ray'")
    refused(asked(run_name, "shared=/tmp"), "shared=: only the nodes of executor=ray read it")
    refused(launch("data", "recipe=demo", f"run={run_name}", "source=table", "source_path=x.csv", "executor=ray"),
            "executor=ray: it takes the steps of source=synthesis")  # fmt: skip
    refused(asked(run_name, "executor=ray", "shared=s4://bucket/x"), "s4://bucket/x: no place that can be read")


# --- several nodes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A cluster of two nodes, to which nothing happens."""
    with cluster(tmp_path_factory.mktemp("ray")) as two:
        yield two


@pytest.mark.slow
@pytest.mark.parametrize("when", ["rows", "keys", "edges", "decision"])
def test_a_node_that_is_lost_costs_nothing(made, tmp_path, monkeypatch, when):
    file, files = made
    with cluster(tmp_path / "ray") as two:
        monkeypatch.setenv("RAY_ADDRESS", two.address)

        def begun() -> bool:
            with suppress(FileNotFoundError):  # the folder of the step before, which is deleted meanwhile
                return any((tmp_path / "data/pieces").rglob(f"{when}-*"))
            return False

        def lose() -> None:
            while not begun():
                time.sleep(0.005)
            kill(two.nodes[0])

        loser = threading.Thread(target=lose)
        loser.start()
        assert ran(file, tmp_path / "data") == files
        loser.join(60)
        assert two.nodes[0].poll() is not None and two.nodes[1].poll() is None


@pytest.mark.slow
def test_nodes_see_another_place_than_the_run(made, tmp_path, monkeypatch, nodes):
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    assert ran(made[0], tmp_path / "data", str(tmp_path / "shared")) == made[1]
    assert not [one for one in (tmp_path / "shared").rglob("*") if one.is_file()]


@pytest.mark.slow
def test_what_only_the_driver_sees_is_told_before_anything_is_done(made, tmp_path, monkeypatch, nodes):
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    monkeypatch.chdir(tmp_path)  # every process sees its own folder there
    with pytest.raises(BadInput, match="node .* does not see what the driver writes .*; say shared=, a folder"):
        ran(made[0], Path("/proc/self/cwd/data"))


@pytest.mark.slow
@pytest.mark.parametrize("other", ["none", "another"])
def test_a_node_without_this_version_is_told_before_anything_is_done(made, tmp_path, monkeypatch, nodes, other):
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    monkeypatch.chdir(tmp_path)  # Ray's workers look there too
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "x")])
    there = tmp_path / "repository"
    if other == "another":
        for room in ("data_pipeline", "reward", "launch"):
            shutil.copytree(REPOSITORY / room, there / room, ignore=shutil.ignore_patterns("__pycache__"))
        step = there / "data_pipeline/steps/clean.py"
        step.write_text(step.read_text(encoding="utf-8").replace("EXCERPT = 80", "EXCERPT = 81"), encoding="utf-8")
    monkeypatch.setattr(executor, "REPOSITORY", there)
    match = {"none": f"node .* has no PsyForge at {there}", "another": "node .* has another version"}
    with pytest.raises(BadInput, match=match[other]):
        ran(made[0], tmp_path / "data")


@pytest.mark.slow
def test_a_cluster_with_too_little_memory_is_told(made, tmp_path, monkeypatch):
    with cluster(tmp_path / "ray", 0) as small:
        small.add("--memory=100000000")
        small.wait(2)
        monkeypatch.setenv("RAY_ADDRESS", small.address)
        with pytest.raises(BadInput, match=r"clean: a piece needs \d+ MiB, .* gives 95 MiB; start one with more"):
            ran(made[0], tmp_path / "data")


@pytest.mark.slow
def test_source_and_pieces_lie_in_an_object_store(made, tmp_path, monkeypatch, run_name):
    file, files = made
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with object_store(free_port()) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert ran(file, tmp_path / "run/data", "s3://open/work") == files
        store = storage.Store("s3://open")
        assert store.names("work/run") == set(), "no piece is left behind"
        store.copy_in(file, "in/posts.jsonl")
        made_here = asked(run_name, "executor=ray", "shared=s3://open/work", posts="s3://open/in/posts.jsonl")
        assert made_here.returncode == 0, made_here.stdout + made_here.stderr
        rows = Path("runs", run_name, "data/steps/posts/1_clean/rows.jsonl").read_bytes()
        here = f"runs/{run_name}/inputs/posts/posts.jsonl"
        assert rows.replace(here.encode(), str(file).encode()) == files["steps/posts/1_clean/rows.jsonl"]
        assert "tests" not in json.dumps(json.loads(Path("runs", run_name, "data/manifest.json").read_text()))
        other = f"{run_name}-other"
        try:
            told = refused(asked(other, "executor=ray", "shared=s3://closed/work"), "ACCESS_DENIED")
            assert "shared=s3://closed/work: " in told and "all nodes may list, read and write it" in told
            refused(asked(other, "executor=ray", "shared=s3://absent/work"), "shared=s3://absent/work: ", "not exist")
            refused(asked(other, posts="s3://closed/posts.jsonl"), "s3://closed/posts.jsonl: ", "ACCESS_DENIED")
            refused(asked(other, posts="s3://open/in/absent.jsonl"), "s3://open/in/absent.jsonl: no such file")
        finally:
            shutil.rmtree(Path("runs", other), ignore_errors=True)
