"""What ended a trainer: its exception, found in the log, the place that raised it, and what helps.

KNOWN is the one table of cures. It goes by the exception's type and by the system's error number; by words only where
the type is one for everything, as what C++ throws.
"""

import os
import re
import shutil
import signal
from collections import Counter
from dataclasses import dataclass, replace
from errno import EACCES, EADDRINUSE, EEXIST, EISDIR, ENOENT, ENOMEM, ENOSPC, ENOTDIR, EROFS
from pathlib import Path

SHOWN = 25  # lines of a log in a message
FULL = 1 << 16  # bytes free: less is a full disk; ours
TOLD = 200  # characters of the second line of an exception's message


@dataclass(frozen=True)
class Known:
    cure: str
    types: tuple[str, ...] = ()  # ends of the exception's full name
    numbers: tuple[int, ...] = ()  # of the system's errors
    words: str = ""  # an expression
    signals: tuple[int, ...] = ()  # that ended the trainer


AGAIN = "the same command continues"
KNOWN = (
    Known(
        "the GPU is full: a smaller micro batch (SFT per_device_train_batch_size=1, GRPO "
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=), more cards=, or recipe=psyche_r1_lora; dry_run=true "
        "estimates",
        types=("torch.OutOfMemoryError", "cuda.OutOfMemoryError"),
        words=r"CUDA out of memory|CUDA error: out of memory|ALLOC_FAILED",
    ),
    Known(
        "vLLM finds no room beside the training: another actor_rollout_ref.rollout.gpu_memory_utilization=, and no "
        "other process on the card (`nvidia-smi`)",
        words=r"No available memory for the cache blocks|less than desired GPU memory utilization",
    ),
    Known(
        "the machine's memory is full (`free -g`): end what else runs, fewer cards= or reward.num_workers=, a smaller "
        f"base_model=; {AGAIN}",
        types=("exceptions.OutOfMemoryError", "MemoryError"),
        numbers=(ENOMEM,),
        words=r"can't allocate memory|exitcode +: -9|Signal 9 \(SIGKILL\)",
        signals=(signal.SIGKILL,),
    ),
    Known(
        "shared memory is full: `df -h /dev/shm`; in a container --ipc=host or a larger --shm-size",
        words=r"Bus error|unable to allocate shared memory",
        signals=(signal.SIGBUS,),
    ),
    Known(
        "another process listens at that port (`ss -ltnp` names it): end it, or name another port",
        numbers=(EADDRINUSE,),
        words=r"EADDRINUSE|[Aa]ddress already in use",
    ),
    Known(
        "it is not in .venv: bash launch/install.sh brings what the locks have, .venv/bin/pip install the rest",
        types=("ModuleNotFoundError", "ImportError"),
    ),
    Known(
        "the cards cannot talk: psyforge.env.NCCL_DEBUG=INFO tells more, NCCL_SOCKET_IFNAME names the network between "
        "nodes, NCCL_P2P_DISABLE=1 goes around a broken link between cards",
        types=("DistBackendError",),
        words=r"\bNCCL|ncclInternalError|ncclSystemError",
    ),
    Known(
        f"a process or node of Ray's was lost, as when the system kills for memory (`dmesg | tail`); {AGAIN}",
        types=("ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "NodeDiedError"),
        words=r"[Rr]aylet",
    ),
    Known(f"the disk is full (`df -h .`): free it, or keep fewer checkpoints; {AGAIN}", numbers=(ENOSPC,),
          # the last two are what torch says when a checkpoint cannot be written to its end
          words=r"No space left on device|file write failed|basic_ios::clear: iostream error|\bunexpected pos \d+ vs"),
    Known(
        f"it cannot be written: make its folder writable, or move away what has its name; {AGAIN}",
        types=("PermissionError", "FileExistsError", "NotADirectoryError", "IsADirectoryError"),
        numbers=(EACCES, EROFS, EEXIST, ENOTDIR, EISDIR),
    ),
    Known(
        "the model is not on this machine and the hub does not answer: download it where there is a network "
        "(`.venv/bin/hf download ID --local-dir DIR`), copy DIR here and say base_model=DIR",
        types=("LocalEntryNotFoundError", "OfflineModeIsEnabled", "MaxRetryError"),
        words=r"couldn't connect to 'https://huggingface.co",
    ),
    Known("it is not there: mend the path, or make the file", types=("FileNotFoundError",), numbers=(ENOENT,)),
)  # fmt: skip

_CONTROL = re.compile(r"\x1b\[[0-9;]*m")
# what Ray, torch and vLLM's logger put before a worker's line
_WORKER = re.compile(
    r"^(?:\([\w.:-]+ (?:pid|ip)=[^)]*\) |\[rank\d+\]: ?|ERROR \d\d-\d\d \d\d:\d\d:\d\d \[[\w.]+:\d+\] )+"
)
# of an exception that is shown above or below it
_WRAPPER = re.compile(
    r"ray\.exceptions\.(RayTaskError\(|ActorDiedError: The actor died because of an error raised)"
    r"|vllm\.v1\.engine\.exceptions\.EngineDeadError|RuntimeError: Worker failed with error "
)
_EXCEPTION = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit))(?:\(\w+\))?(?::|$)")
_FRAME = re.compile(r'\s+File "([^"]+\.py)", line (\d+)')
_NOT_OWN = (str(Path(os.__file__).parent), str(Path(__file__).parents[1]), "<")  # Python's library, and launch/
_NUMBER = re.compile(r"\[Errno (\d+)\]")


def cure_of(lines: list[str], ended_by: int = 0) -> str:
    """Returns what helps against one of these exceptions, "" where we know nothing: "TYPE: message", or a log's last
    line; `ended_by` is the signal that ended the process, if one has.
    """
    named = [found[1] if (found := _EXCEPTION.match(line)) else "" for line in lines]
    numbers = [int(found[1]) for line in lines if (found := _NUMBER.search(line))]
    for known in KNOWN:
        if any(f".{name}".endswith(f".{one}") for one in known.types for name in named):
            return known.cure
        if set(numbers) & set(known.numbers):
            return known.cure
    for known in KNOWN:
        if ended_by in known.signals or (known.words and any(re.search(known.words, line) for line in lines)):
            return known.cure
    return ""


@dataclass(frozen=True)
class Cause:
    line: str  # the exception that ended a trainer
    context: str  # the lines around it, of the log
    before: str = ""  # the exception that came most often before it: of workers whose failure the trainer gathers
    times: int = 0  # how often
    place: str = ""  # FILE line N of a person's own code that raised one of the two
    ended_by: int = 0  # the signal that ended the process, if one has

    @property
    def cure(self) -> str:
        return cure_of([line for line in (self.line, self.before) if line], self.ended_by)

    @property
    def more(self) -> str:
        """Returns the exception before it, where it was raised and what helps, each on a line of its own."""
        cure = self.cure
        lines = [f"before it: {self.before} ({self.times} times)"] if self.before else []
        lines += [f"raised in {self.place}" + ("" if cure else f": mend it there; {AGAIN}")] if self.place else []
        return "".join(f"\n{line}" for line in lines + [cure] * bool(cure))


def with_detail(said: list[str], number: int) -> str:
    """Returns an exception's line with its message's second one, where there is one: Ray names the dead actor there."""
    match = _WORKER.match(said[number])
    worker = match[0] if match else ""
    line = said[number][len(worker) :]
    after = next((one[len(worker) :] for one in said[number + 1 : number + SHOWN] if one.startswith(worker)), "")
    return f"{line} {after.strip()[:TOLD]}" if after.startswith(("\t", "  ")) and after.strip() else line


def own_place(said: list[str], end: int) -> str:
    """Returns "FILE line N", the last frame of the traceback ending at `end` that is neither a package's nor ours."""
    match = _WORKER.match(said[end])
    worker = match[0] if match else ""
    for line in reversed(said[:end]):
        if not line.startswith(worker):
            continue  # another worker's, between
        line = line[len(worker) :]
        if line.startswith("Traceback ("):
            break
        frame = _FRAME.match(line)
        if frame and "site-packages" not in Path(frame[1]).parts and not frame[1].startswith(_NOT_OWN):
            return f"{frame[1]} line {frame[2]}"
    return ""


def cause(log: Path, start: int = 0, ended_by: int = 0) -> Cause:
    """Returns the exception that ended a trainer, and the lines around it, from the log's byte `start` on.

    That is the last one that has a message: wrappers, such as torchrun's, end without one. Warnings that name an
    exception, and those of destructors ("Exception ignored in"), are none. Without any, the log's last lines. Where
    that says nothing known and the log's own disk is full, the disk ended it: then the log lacks its end.
    """
    found = _last_exception(log, start, ended_by)
    if not found.cure and shutil.disk_usage(log.parent).free < FULL:
        return replace(found, line=f"[Errno {ENOSPC}] {os.strerror(ENOSPC)}: {log.parent}", place="")
    return found


def _last_exception(log: Path, start: int, ended_by: int) -> Cause:
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode("utf-8", "replace")
    said = [_CONTROL.sub("", line) for line in re.split(r"[\r\n]+", text)]
    plain = [_WORKER.sub("", line) for line in said]
    ends, opened = [], {}  # lines that end a traceback; the worker whose traceback is open, and whether it is ignored
    for number, (line, whole) in enumerate(zip(plain, said, strict=True)):
        worker = whole[: len(whole) - len(line)]
        if line.startswith("Exception ignored in"):
            opened[worker] = True
        elif line.startswith("Traceback (most recent call last)"):
            opened[worker] = opened.get(worker, False)
        elif line.strip() and not line.startswith((" ", "\t")):
            ignored = opened.pop(worker, None)
            if ignored is False or (ignored is None and _EXCEPTION.match(line)):
                ends.append(number)
    told = [number for number in ends if ": " in plain[number].rstrip()]
    if not told and not ends:
        last = next((line for line in reversed(plain) if line.strip()), "its log says nothing")
        return Cause(last, "\n".join(said[-SHOWN:]).strip(), ended_by=ended_by)
    end = (told or ends)[-1]
    earlier = [n for n in told[:-1] if plain[n] != plain[end] and not _WRAPPER.match(plain[n])]
    counted = Counter(plain[number] for number in earlier).most_common(1)
    context = "\n".join(said[max(0, end - SHOWN + 5) : end + 5]).rstrip()
    before, times = counted[0] if counted else ("", 0)
    of_before = [n for n in earlier if plain[n] == before]
    place = next(filter(None, (own_place(said, number) for number in [*of_before, end])), "")
    return Cause(
        with_detail(said, end), context, with_detail(said, of_before[0]) if before else "", times, place, ended_by
    )
