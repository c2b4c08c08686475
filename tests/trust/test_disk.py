"""A disk that fills up, or cannot be written, ends a stage in words, and the same command then goes on. Slow."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput, storage_fault
from tests.conftest import REPOSITORY, TABLE, launch
from tests.data_pipeline import counsellor, examiner
from tests.data_pipeline.synthesis.test_run import write_posts
from tests.launch.test_faulty_server import CORPUS, posts
from tests.launch.test_training import GRPO, SFT, metrics, prepare
from tests.model_server import Answer, ModelServer, completion
from tests.trust.small_disk import filled_when, mount, small_disk, used

ROOMY = 1 << 20  # kilobytes
# What says when it was made, or how long it took
TIMED = ("manifest.json", "config.yaml", "step.json", "report.json", "report.html", "report.md", "datacard.md",
         "datacard.html", "metrics.json", "recipe", ".lock")  # fmt: skip


def content(folder: Path) -> dict[str, str]:
    """Returns {file: hash} of what a run has made, without what tells the time."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in TIMED and "ledger" not in p.name]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def ended_cleanly(done: subprocess.CompletedProcess) -> None:
    """What a trainer wrote stands above the message, with its traceback."""
    _, _, told = done.stderr.rstrip().rpartition("\n\n")
    assert "Traceback" not in told, done.stderr
    assert done.returncode == 1 and "the disk is full" in told, (done.returncode, done.stderr)
    assert "goes on from what is finished" in told or "the same command continues" in told


@contextmanager
def answering() -> Iterator[ModelServer]:
    with counsellor.server(lambda messages: Answer(completion(examiner.answer(messages)))) as server:
        yield server


@pytest.mark.slow
def test_a_full_disk_in_data_and_evaluation_at_ten_moments(tmp_path, run_name):
    chance = random.Random(16)
    given = write_posts(tmp_path / "posts.jsonl", posts(40))
    with answering() as server:
        llm = ["llm=openai", "llm.model=m", "llm.api_key_env=null", f"llm.base_url={server.url}"]
        select = ["split.heldout=8", "selectors={one: {model: one}, two: {model: two}}"]
        data = ["data", "recipe=psyche_r1", f"passages={CORPUS}", f"posts={given}", *llm, *select]
        asked = [f"endpoint.base_url={server.url}", "endpoint.model=m", "max_new_tokens=64"]
        evaluation = ["eval", "recipe=demo", "hardware=cpu", *asked]
        whole = Path("runs", f"{run_name}-whole")
        try:
            sizes = [0]
            for stage, *words in (data, evaluation):
                done = launch(stage, *words, f"run={whole.name}", timeout=900)
                assert done.returncode == 0, done.stdout + done.stderr
                sizes.append(used(whole))
            expected, told = content(whole), []
            for moment in range(10):
                of_data = moment < 5
                first, last = sizes[:2] if of_data else sizes[1:]
                size = first + 8 + int(chance.random() * max(8, last - first - 24))
                folder = Path("runs", f"{run_name}-{moment}")
                with small_disk(folder, size) as grow:
                    if not of_data:
                        shutil.copytree(whole / "data", folder / "data")
                    stage, *words = data if of_data else evaluation
                    cut = launch(stage, *words, f"run={folder.name}", timeout=900)
                    told.append((stage, size, cut.returncode))
                    if cut.returncode:
                        ended_cleanly(cut)
                    grow(ROOMY)
                    for stage, *words in (data, evaluation) if of_data else (evaluation,):
                        done = launch(stage, *words, f"run={folder.name}", timeout=900)
                        assert done.returncode == 0, (size, done.stdout + done.stderr)
                    found = content(folder)
                    differing = {n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n)}
                    assert differing == set(), (size, cut.stderr, differing)
            print(sizes, told)
            assert sum(code != 0 for *_, code in told) >= 7, told
        finally:
            shutil.rmtree(whole, ignore_errors=True)


@pytest.mark.slow
def test_a_full_disk_in_sft_at_three_moments(run_name):
    whole = f"{run_name}-whole"
    try:
        prepare(whole)
        before = used(Path("runs", whole))
        done = launch("sft", *SFT, f"run={whole}", timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        after, weights = used(Path("runs", whole)), Path("sft/model/model.safetensors")
        for share in (0.2, 0.5, 0.8):
            folder = Path("runs", f"{run_name}-{int(10 * share)}")
            with small_disk(folder, ROOMY):
                shutil.copytree(Path("runs", whole, "data"), folder / "data")
                with filled_when(folder / "sft/train.log", folder, int(share * (after - before))):
                    cut = launch("sft", *SFT, f"run={folder.name}", timeout=900)
                ended_cleanly(cut)
                done = launch("sft", *SFT, f"run={folder.name}", timeout=900)
                assert done.returncode == 0, done.stdout + done.stderr
                assert json.loads((folder / "sft/manifest.json").read_text())["counts"]["steps"] == 6
                assert (folder / weights).read_bytes() == Path("runs", whole, weights).read_bytes(), share
    finally:
        shutil.rmtree(Path("runs", whole), ignore_errors=True)


@pytest.mark.slow
def test_a_full_disk_in_grpo_at_three_moments(run_name):
    whole = f"{run_name}-whole"
    try:
        prepare(whole)
        assert launch("sft", *SFT, f"run={whole}", timeout=900).returncode == 0
        before = used(Path("runs", whole))
        done = launch("grpo", *GRPO, f"run={whole}", timeout=1200)
        assert done.returncode == 0, done.stdout + done.stderr
        after = used(Path("runs", whole))
        for share in (0.25, 0.5, 0.75):
            folder = Path("runs", f"{run_name}-{int(100 * share)}")
            with small_disk(folder, ROOMY):
                for stage in ("data", "sft", "base"):
                    shutil.copytree(Path("runs", whole, stage), folder / stage)
                for file in folder.rglob("manifest.json"):
                    moved(file, whole, folder.name)
                with filled_when(folder / "grpo/train.log", folder, int(share * (after - before))):
                    cut = launch("grpo", *GRPO, f"run={folder.name}", timeout=1200)
                ended_cleanly(cut)
                done = launch("grpo", *GRPO, f"run={folder.name}", timeout=1200)
                assert done.returncode == 0, done.stdout + done.stderr
                assert [step["step"] for step in metrics(folder.name)] == [1, 2, 3]
                assert all("actor/lr" in step for step in metrics(folder.name)), "no gap"
    finally:
        shutil.rmtree(Path("runs", whole), ignore_errors=True)


def moved(manifest: Path, old: str, new: str) -> None:
    """Makes a copied manifest that of the new run, its own hash right."""
    from launch.running.folder import _own_hash

    content = json.loads(manifest.read_text(encoding="utf-8").replace(f"runs/{old}", f"runs/{new}"))
    content["run"] = new
    content["manifest_sha256"] = _own_hash(content)
    manifest.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.slow
def test_a_disk_that_is_read_only_is_told_with_its_cure(run_name):
    folder = Path("runs", run_name)
    with small_disk(folder, 10_000):
        words = ("data", "recipe=demo", *TABLE, f"run={run_name}", "split.grpo=8", "split.heldout=4")
        assert launch(*words).returncode == 0
        mount("-o", "remount,ro", str(folder))
        done = launch(*words, "seed=7")
        assert done.returncode in (1, 2) and "read-only" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_run_folder_of_another_user_is_told(tmp_path, monkeypatch):
    """Root, as tests in containers are, may write everywhere: the system's refusal is put in its place."""
    from launch.running import folder

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "sft").mkdir()
    monkeypatch.setattr(folder.os, "geteuid", lambda: 65534)
    monkeypatch.setattr(folder, "open", refuse, raising=False)
    with pytest.raises(BadInput, match=r"belongs to user \w+; use another run=NAME, or run as that user"):
        folder._opened(tmp_path / "sft")


def test_what_the_disk_says_is_found_however_deep():
    full = OSError(28, "No space left on device", "x/y")
    wrapped = RuntimeError("a library's words")
    wrapped.__cause__ = ExceptionGroup("tasks", [ValueError("a"), full])
    told = storage_fault(wrapped)
    assert told and told.startswith("x/y: No space left on device; the disk is full") and "df -h" in told
    assert "quota" in (storage_fault(OSError(122, "Disk quota exceeded")) or "")
    assert "read-only" in (storage_fault(RuntimeError("Read-only file system: x")) or "")
    assert storage_fault(KeyError("x")) is None and storage_fault(FileNotFoundError(2, "no", "x")) is None


@pytest.mark.slow
def test_a_ledger_on_a_full_disk_ends_in_words_and_goes_on(tmp_path):
    """Replies of 4 kB each on a disk of 300: what is recorded is never asked again."""
    code = (
        "import sys; from pathlib import Path; from data_pipeline import llm; from data_pipeline.errors import *\n"
        "url, ledger = sys.argv[1:]\n"
        "said = [[{'role': 'user', 'content': f'row {n}'}] for n in range(150)]\n"
        "requests = [llm.Request('step', f'row {n}', 0, one) for n, one in enumerate(said)]\n"
        "try: llm.run_all(llm.Server(url, 'tiny', concurrency=8), requests, Path(ledger), 'batch')\n"
        "except Exception as error: sys.exit(f'failed: {storage_fault(error) or repr(error)}')\n"
    )
    long = [Answer(completion("答" * 1500))]
    folder = REPOSITORY / "runs" / "x16ledger"
    with ModelServer(plan={f"row {n}": list(long) for n in range(150)}) as server, small_disk(folder, 300) as grow:
        command = [sys.executable, "-c", code, server.url, str(folder / "ledger.sqlite")]
        cut = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert cut.returncode == 1 and "the disk is full" in cut.stderr, cut.stderr
        first = len(server.calls)
        grow(ROOMY)
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        again = [text for text, count in server.counts().items() if count > 1]
        print(first, "asked before the disk was full,", len(again), "of them were in flight and asked once more")
        assert len(again) <= 16 and max(server.counts().values()) <= 2 and len(server.counts()) == 150
