"""Many items go to all cores and come back in order, an error too; no process outlives the one it works for."""

import os
import signal
import subprocess
import sys
import time

import pytest

from data_pipeline.parallel import FEW, in_processes
from data_pipeline.records import Post
from data_pipeline.synthesis import apply
from tests.conftest import REPOSITORY


def test_few_items_are_done_here_and_many_elsewhere_in_order():
    assert {process for _, process in in_processes(work, range(FEW))} == {os.getpid()}
    done = list(in_processes(twice, range(FEW + 1001)))
    assert [number for piece, _ in done for number in piece] == list(range(FEW + 1001))
    assert [number for _, piece in done for number in piece] == [2 * number for number in range(FEW + 1001)]
    if len(os.sched_getaffinity(0)) > 1:
        elsewhere = {process for _, process in in_processes(work, range(FEW + 1001))}
        assert elsewhere and os.getpid() not in elsewhere


def twice(numbers: list[int]) -> list[int]:
    return [2 * number for number in numbers]


def work(_) -> int:
    return os.getpid()


def inverse(numbers: list[int]) -> list[float]:
    return [1 / number for number in numbers]


def test_an_error_comes_back():
    with pytest.raises(ZeroDivisionError):
        list(in_processes(inverse, [1] * FEW + [0] * 2))


def test_posts_cleaned_by_all_cores_are_those_cleaned_here():
    texts = ("我不想活了，加我微信：abc12345", "妈妈今天和我谈了很久😭😭。。", "", "好的。")
    rows = [
        Post(f"p{n}", "test", texts[n % 4], f"今天第{n}次睡不着，白天上课也没有精神。", [texts[n % 3]], {})
        for n in range(FEW // 3 + 200)
    ]
    many, few = apply.run("clean", rows), [apply.run("clean", rows[at::2]) for at in (0, 1)]
    assert len(many.rows) + len(many.rejects) == len(rows) and many.report["crisis"]["suicide"] > 1000
    ours = {row.id: row for part in few for row in part.rows}
    assert [row.id for row in many.rows] == [row.id for row in rows if row.id in ours]
    assert all(row == ours[row.id] for row in many.rows)
    removed = sorted(str(row) for part in few for row in part.files["removed"])
    assert sorted(map(str, many.files["removed"])) == removed


ENDLESS = """
import os, sys, time
from data_pipeline.parallel import FEW, in_processes
def wait(numbers):
    if 0 in numbers:
        print(os.getpid(), flush=True)
        time.sleep(600)
if __name__ == "__main__":
    list(in_processes(wait, range(FEW + 1)))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core starts no process")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_it_works_for(tmp_path, how):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout
        worker = int(process.stdout.readline())
        process.send_signal(how)
        if how == signal.SIGINT:
            time.sleep(1)
            process.kill()
        process.wait(60)
    for _ in range(100):
        if not alive(worker):
            break
        time.sleep(0.2)
    assert not alive(worker)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
