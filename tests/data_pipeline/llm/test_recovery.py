"""What is saved of a broken ledger: all that can be read, nothing altered, and never less than there was."""

import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm.disk import is_on_network
from data_pipeline.llm.ledger import Call, Ledger, recover
from tests.conftest import REPOSITORY
from tests.data_pipeline.llm.damage import call, damages, make, places


def calls_of(path: Path) -> list[Call]:
    db = sqlite3.connect(path)
    rows = [Call(*values[1:-1]) for values in db.execute("SELECT * FROM calls ORDER BY id")]
    db.close()
    return rows


def damaged_and_recovered(folder: Path, kind: str, damage, whole: tuple[Path, list[Call], dict]) -> tuple[int, int]:
    """Returns (rows that had to be saved, rows that were); asserts that none is lost, altered or invented."""
    path, calls, where = folder / "ledger.sqlite", {c.key: c for c in whole[1]}, whole[2]
    folder.mkdir()
    for end in ("", "-wal"):
        shutil.copyfile(f"{whole[0]}{end}", f"{path}{end}")
    hurt = damage(path)
    expected = {
        key
        for key, copies in where.items()
        if any(
            all(not (end == h[0] and first <= h[2] and h[1] <= last) for end, first, last in copy for h in hurt)
            for copy in copies
        )
    }
    before = path.read_bytes()
    try:
        count = recover(path)
    except BadInput as error:
        assert not expected and "no call can be read" in str(error), (kind, hurt, error)
        assert path.read_bytes() == before, kind
        return 0, 0
    assert path.with_name("ledger.sqlite.broken").exists() or path.read_bytes() == before
    saved = calls_of(path)
    assert len(saved) == count
    assert all(calls.get(c.key) == c for c in saved), f"{kind}: an altered row was saved"
    assert len({c.key for c in saved}) == len(saved), f"{kind}: a row was saved twice"
    assert not (missing := expected - {c.key for c in saved}), (kind, hurt, len(missing))
    return len(expected), count


@pytest.mark.parametrize("count", [14, pytest.param(200, marks=pytest.mark.slow)])
def test_of_damaged_ledgers_every_readable_row_is_saved(tmp_path, count):
    path, calls = make(tmp_path, seed=1)
    where = places(path)
    assert len(where) > 200, "most rows stand on one page, and are looked for"
    chance, told = random.Random(count), {}
    for number, (kind, damage) in zip(range(count), damages(chance), strict=False):
        needed, saved = damaged_and_recovered(tmp_path / str(number), kind, damage, (path, calls, where))
        told.setdefault(kind, []).append((needed, saved))
        shutil.rmtree(tmp_path / str(number))
    for kind, figures in told.items():
        print(kind, len(figures), "ledgers:", sum(n for n, _ in figures), "rows had to be saved,",
              sum(s for _, s in figures), "were")  # fmt: skip


def test_a_whole_ledger_is_left_alone_and_so_is_one_without_a_row(tmp_path):
    path, calls = make(tmp_path, seed=2, count=30, waiting=0)
    before = path.read_bytes()
    assert recover(path) == 30 and path.read_bytes() == before
    assert not path.with_name("ledger.sqlite.broken").exists()
    path.write_bytes(b"no database" * 1000)
    command = [sys.executable, "-m", "data_pipeline.llm.ledger", "recover", str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and "no call can be read" in done.stderr and "Traceback" not in done.stderr
    assert path.read_bytes() == b"no database" * 1000 and sorted(p.name for p in tmp_path.glob("led*")) == [
        "ledger.sqlite",
        "ledger.sqlite-wal",
    ]


def test_a_reply_that_was_altered_is_told_and_the_others_are_saved(tmp_path):
    path, calls = make(tmp_path, seed=3, count=30, waiting=0)
    content = path.read_bytes()
    at = content.index(calls[4].at.encode())
    path.write_bytes(content[:at] + b"3" + content[at + 1 :])
    with Ledger(path) as ledger, pytest.raises(BadInput, match="row 5 is not as it was written.*recover"):
        list(ledger.replies([c.key for c in calls if c.finish != "failed"]))
    assert recover(path) == 29
    with Ledger(path) as ledger:
        kept = dict(ledger.replies([c.key for c in calls]))
    assert calls[4].key not in kept and kept[calls[5].key].text == calls[5].text


def test_a_ledger_of_an_earlier_version_is_recovered_too(tmp_path):
    path = tmp_path / "ledger.sqlite"
    calls = [call(number, random.Random(number)) for number in range(1, 40)]
    with Ledger(path) as ledger:
        ledger.add(calls)
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE calls DROP COLUMN checksum")
        db.execute("PRAGMA user_version = 2")
    db.close()
    content = path.read_bytes()
    path.write_bytes(b"\0" * 100 + content[100:-4096])
    assert 20 < recover(path) < 40
    assert set(calls_of(path)) <= set(calls)


def test_a_ledger_of_a_newer_version_says_so(tmp_path):
    path, _ = make(tmp_path, seed=4, count=5, waiting=0)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(BadInput, match="a ledger of version 9, and this PsyForge knows 3: go on with the newer one"):
        llm.totals(path)


def test_no_shared_memory_on_a_disk_of_the_network(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:21 / / rw - ext4 /dev/vda rw\n"
        f"23 22 0:40 / {tmp_path} rw,relatime shared:1 - nfs4 host:/x rw,vers=4.2\n"
        f"24 23 0:41 / {tmp_path}/here rw - tmpfs tmpfs rw\n"
    )
    assert is_on_network(tmp_path / "a.sqlite", mounts)
    assert not is_on_network(tmp_path / "here" / "a.sqlite", mounts)
    assert not is_on_network(Path("/elsewhere"), mounts)


def test_a_ledger_is_its_owners_alone(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.add([call(1, random.Random(1))])
        assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o600}
