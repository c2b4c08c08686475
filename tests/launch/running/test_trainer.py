"""A trainer that fails is told by the exception that ended it, whatever else its log says."""

import sys

import pytest

from launch.cli.entry import StageFailed
from launch.running import trainer
from launch.running.failure import cause
from launch.running.trainer import run_trainer

NOISE = """INFO: Platform override
(TaskRunner pid=11) engine/__init__.py:32: UserWarning: not available: ModuleNotFoundError("No module named 'x'")
(TaskRunner pid=11) {'error': 'Error:', 'fallback': ValueError}
"""
RAY = """(Worker pid=7) Traceback (most recent call last):
(Worker pid=7)   File "a.py", line 3, in load
(TaskRunner pid=11) Training Progress:   0%|          | 0/14
(Worker pid=7)     raise FileNotFoundError(path)
(Worker pid=7) FileNotFoundError: no such file: 'reward.py'
Error executing job with overrides: []
"""
TORCHRUN = """[rank0]: Traceback (most recent call last):
[rank0]:   File "b.py", line 9, in step
[rank0]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
Traceback (most recent call last):
  File "run.py", line 5, in main
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
launch.frameworks.llama_factory FAILED
"""
CHAINED = """Traceback (most recent call last):
  File "c.py", line 1, in inner
KeyError: 'prompt'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "c.py", line 4, in outer
our.own.Refusal: row 3 has no prompt
Exception ignored in: <function Pool.__del__ at 0x7f>
Traceback (most recent call last):
  File "pool.py", line 2, in __del__
AttributeError: 'NoneType' object has no attribute 'close'
"""


@pytest.mark.parametrize(
    ("log", "first"),
    [
        (NOISE + RAY, "FileNotFoundError: no such file: 'reward.py'"),
        (NOISE + TORCHRUN, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
        (NOISE + CHAINED + "bye\n", "our.own.Refusal: row 3 has no prompt"),
        ("Traceback (most recent call last):\n  File 'd.py'\nAssertionError\n", "AssertionError"),
        ("\x1b[36m(Worker pid=7)\x1b[0m ValueError: in colours\n", "ValueError: in colours"),
        ("loading\nKilled\n", "Killed"),
    ],
)
def test_the_exception_that_ended_a_trainer_comes_first(tmp_path, log, first):
    path = tmp_path / "train.log"
    path.write_text(log, encoding="utf-8")
    assert cause(path).line == first


def test_what_many_workers_ran_into_is_told_with_what_the_trainer_made_of_it(tmp_path):
    failed = """(Loop pid=7) Traceback (most recent call last):
(Loop pid=7)   File "a.py", line 3, in run
(Loop pid=7) ray.exceptions.RayTaskError(TypeError): ray::Reward.compute_score() (pid=5)
(Loop pid=7)   File "b.py", line 4, in compute_score
(Loop pid=7) TypeError: the reward takes no 'weight'
"""
    ended = 'Traceback (most recent call last):\n  File "c.py", line 8, in end\nRuntimeError: no group was left\n'
    path = tmp_path / "train.log"
    path.write_text(NOISE + RAY + failed * 4 + ended, encoding="utf-8")
    assert cause(path).line == "RuntimeError: no group was left"
    assert (cause(path).before, cause(path).times) == ("TypeError: the reward takes no 'weight'", 4)
    assert cause(path).place == "b.py line 4"
    path.write_text(NOISE + ended, encoding="utf-8")
    assert cause(path).before == ""
    assert cause(path).more == "\nraised in c.py line 8: mend it there; the same command continues"


def test_what_ended_vllm_is_told_and_not_that_it_has_ended(tmp_path):
    def logged(worker: str, *lines: str) -> str:
        at = f"({worker} pid=9) ERROR 11-29 11:37:11 [core.py:1348] "
        return "".join(f"(vLLMHttpServer pid=7) {at}{line}\n" for line in lines)

    traceback = ("Traceback (most recent call last):", '  File "a.py", line 3, in run')
    log = logged("Worker", *traceback, "RuntimeError: Unsupported CPU attention configuration: head_dim=16")
    log += logged("EngineCore", *traceback, "RuntimeError: Worker failed with error 'Unsupported ...', please check")
    dead = "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)."
    log += "".join(f"(Loop pid=8) {line}\n" for line in (*traceback, dead)) * 20
    log += 'Traceback (most recent call last):\n  File "c.py", line 8, in end\nRuntimeError: no group was left\n'
    path = tmp_path / "train.log"
    path.write_text(log, encoding="utf-8")
    assert cause(path).line == "RuntimeError: no group was left"
    assert cause(path).before == "RuntimeError: Unsupported CPU attention configuration: head_dim=16"
    path.write_text('Traceback (most recent call last):\n  File "uvloop/loop.pyx", line 8, in run\nValueError: bad\n')
    assert cause(path).place == ""  # compiled code of a package has no path


def test_the_second_line_of_a_message_is_shown_where_ray_says_which_actor_died(tmp_path):
    died = """(Loop pid=7) Traceback (most recent call last):
(Loop pid=7)   File "a.py", line 3, in run
(Loop pid=7) ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.
(Other pid=8) between
(Loop pid=7) \tclass_name: HFServer
(Loop pid=7) \tactor_id: 5d2f
"""
    path = tmp_path / "train.log"
    path.write_text(
        died * 3 + "Traceback (most recent call last):\nRuntimeError: no group was left\n", encoding="utf-8"
    )
    assert cause(path).before.endswith("before finishing this task. class_name: HFServer") and cause(path).times == 3


def test_an_earlier_attempts_exception_is_not_shown(tmp_path):
    path = tmp_path / "train.log"
    path.write_text("ValueError: of the first attempt\n", encoding="utf-8")
    with pytest.raises(StageFailed) as failed:
        run_trainer([sys.executable, "-c", "raise OSError('of the second')"], {}, path, lambda: (0, 1, ""), "test")
    assert "OSError: of the second" in str(failed.value) and "first attempt" not in str(failed.value)
    assert "exit code 1" in str(failed.value)


def test_a_trainer_that_was_killed_says_by_which_signal(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(StageFailed, match=r"signal 9 \(SIGKILL\)[^\n]*\n.*the machine's memory is full"):
        run_trainer([sys.executable, "-c", code], {}, tmp_path / "train.log", lambda: (0, 1, ""), "test")


@pytest.mark.parametrize(
    ("line", "cure"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "the GPU is full"),
        ("RuntimeError: CUDA error: out of memory", "the GPU is full"),
        ("ValueError: No available memory for the cache blocks.", "gpu_memory_utilization"),
        ("ray.exceptions.OutOfMemoryError: 1 worker(s) were killed", "the machine's memory is full"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", "the machine's memory is full"),
        ("OSError: [Errno 12] Cannot allocate memory", "the machine's memory is full"),
        ("OSError: [Errno 98] Address already in use", "another process listens at that port"),
        ("torch.distributed.DistNetworkError: failed to bind, code: -98, name: EADDRINUSE", "another process listens"),
        ("ModuleNotFoundError: No module named 'x'", "bash launch/install.sh"),
        ("torch.distributed.DistBackendError: NCCL error in: x.cpp", "NCCL_DEBUG=INFO"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("RuntimeError: [enforce fail at inline_container.cc:672] . unexpected pos 128 vs 36", "the disk is full"),
        ("FileExistsError: [Errno 17] File exists: 'global_step_1'", "cannot be written"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'x'", "mend the path"),
        ("ray.exceptions.ActorDiedError: The actor died unexpectedly", "of Ray's was lost"),
        ("KeyError: 'prompt'", ""),
    ],
)
def test_what_people_meet_most_comes_with_a_cure(tmp_path, line, cure):
    code = f"import sys; sys.stderr.write('Traceback (most recent call last):\\n' + {line!r} + '\\n'); sys.exit(1)"
    with pytest.raises(StageFailed) as failed:
        run_trainer([sys.executable, "-c", code], {}, tmp_path / "train.log", lambda: (0, 1, ""), "test")
    last_ten = str(failed.value).splitlines()[-10:]
    assert any(line in one for one in last_ten)
    assert cure in last_ten[-2]


def test_the_cure_of_what_workers_met_comes_before_that_of_their_loss(tmp_path):
    lost = "Traceback (most recent call last):\nray.exceptions.ActorDiedError: The actor died unexpectedly\n"
    full = "(W pid=7) Traceback (most recent call last):\n(W pid=7) torch.OutOfMemoryError: CUDA out of memory.\n"
    path = tmp_path / "train.log"
    path.write_text(full + lost, encoding="utf-8")
    assert "the GPU is full" in cause(path).more


def test_silence_is_told_and_ends_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "SILENT", 1.0)
    code = "import time; print('begins', flush=True); time.sleep(3.5); print('ends')"
    run_trainer([sys.executable, "-c", code], {}, tmp_path / "train.log", lambda: (0, 1, ""), "test")
    told = capsys.readouterr().out
    assert 1 <= told.count("no new line in") <= 4 and "is waited for" in told
    assert (tmp_path / "train.log").read_text().endswith("ends\n")
