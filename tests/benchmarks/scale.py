"""Posts of 222 characters through clean and deduplicate, on one machine's processes and on Ray: seconds, memory, files.

    python -m tests.benchmarks.scale [POSTS] [ray]

The data stage as a user runs it, once with executor=machine and once with executor=ray on a cluster of this machine's
cores, in turns; with the word `ray` the second alone, for more posts than are wanted twice. All files of both steps
must be the same, byte for byte: rows, rejects, what was removed, merges, reports. Memory is the PSS of the process and
all its children, Ray's among them. Bars: 1.6 times the time of one machine, and 4 GiB.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import psutil

from tests.benchmarks.million_posts import posts, pss
from tests.conftest import REPOSITORY

LENGTH, PART = 222, 200_000
GIB, TIME = 4, 1.6
WORDS = ("recipe=psyche_r1", "passages=null", "steps=[clean,deduplicate]")


@dataclass(frozen=True)
class Measured:
    seconds: float
    cpu_seconds: float  # of all processes: other work on the machine disturbs it less
    gib: float
    steps: dict[str, dict]  # their counts, with seconds


def measure(run: str, folder: Path, executor: str) -> Measured:
    """Returns what the data stage takes for a folder of posts; its files stay in runs/RUN."""
    command = [sys.executable, "-m", "launch.data", f"run={run}", f"posts={folder}", f"executor={executor}", *WORDS]
    before, started, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    cpu = {}
    while process.poll() is None:
        peak = max(peak, pss(psutil.Process(process.pid)))
        cpu |= cpu_of(process.pid)
        time.sleep(1)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    waited = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {place.parent.name: json.loads(place.read_bytes())["counts"] for place in steps(run).rglob("step.json")}
    return Measured(seconds, max(waited, sum(cpu.values())), peak / 2**30, found)


def cpu_of(pid: int) -> dict[int, float]:
    """Returns {process: its CPU seconds}: Ray's workers are waited for by nobody of ours."""
    found = {}
    try:
        for one in (process := psutil.Process(pid), *process.children(recursive=True)):
            times = one.cpu_times()
            found[one.pid] = times.user + times.system
    except psutil.Error:
        pass
    return found


def steps(run: str) -> Path:
    return REPOSITORY / "runs" / run / "data" / "steps"


def differing(one: str, other: str) -> list[str]:
    """Returns the files of two runs that are not the same; times, in step.json, are not looked at."""
    found = [
        {str(file.relative_to(steps(run))): file for file in steps(run).rglob("*.json*") if file.name != "step.json"}
        for run in (one, other)
    ]
    names = found[0].keys() | found[1].keys()
    return sorted(name for name in names if not all(name in files for files in found) or not same(name, found))


def same(name: str, found: list[dict[str, Path]]) -> bool:
    return subprocess.run(["cmp", "-s", *(files[name] for files in found)]).returncode == 0


def main() -> int:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    executors = ["ray"] if "ray" in sys.argv else ["machine", "ray"]
    runs = {executor: f"bench-{uuid.uuid4().hex[:8]}" for executor in executors}
    measured = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = posts(number, LENGTH)
            for part in count():  # one file of more than 500 MB is not read
                if not (rows := list(islice(made, PART))):
                    break
                text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                Path(folder, f"{part:04}.jsonl").write_text(text, encoding="utf-8")
            for executor, run in runs.items():
                measured[executor] = one = measure(run, Path(folder), executor)
                told = ", ".join(f"{step} {of['seconds']:.0f} s" for step, of in sorted(one.steps.items()))
                print(f"{executor}: {number:,} posts, {one.seconds:.1f} s (CPU {one.cpu_seconds:.1f} s; {told}), peak "
                      f"{one.gib:.2f} GiB (bar {GIB}), load {psutil.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
        if len(executors) == 1:
            return int(measured["ray"].gib > GIB)
        ratio = measured["ray"].seconds / measured["machine"].seconds
        wrong = differing(*runs.values())
        print(
            f"{ratio:.2f} of one machine's time (bar {TIME}); {f'OTHER FILES: {wrong}' if wrong else 'the same files'}"
        )
        return int(ratio > TIME or bool(wrong) or measured["ray"].gib > GIB)
    finally:
        for run in runs.values():
            shutil.rmtree(REPOSITORY / "runs" / run, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
