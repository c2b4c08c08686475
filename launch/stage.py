"""What every stage shares: its entry (arguments, configuration, exit codes) and running a trainer with progress."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_pipeline.records import BadInput
from launch import arguments, configuration
from launch.arguments import REPOSITORY, Command, Stage

console = Console(highlight=False, soft_wrap=True)


def run_plain(work: Callable[[list[str]], int], about: str, argv: list[str]) -> int:
    """Returns the exit code of a command that is no Hydra stage (demo, audit, lineage): work(argv), 2 for BadInput."""
    if argv in (["-h"], ["--help"]):
        print(about)
        return 0
    os.chdir(REPOSITORY)
    try:
        return work(argv)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130


class StageFailed(Exception):
    """A trainer that was started did not finish; the message holds the cause and the log's path."""


def main(
    stage: Stage,
    run: Callable[[DictConfig, Command], None],
    subcommands: dict[str, Callable[[Command], None]] | None = None,
) -> None:
    """Parses, composes and runs a stage or its subcommand, then exits: 0 done, 2 wrong input, 1 any other failure."""
    os.chdir(REPOSITORY)
    try:
        command = arguments.parse(stage, sys.argv[1:])
        if command.subcommand:
            subcommands[command.subcommand](command)
        elif command.flags:  # --help, --cfg job, --multirun ...: Hydra's own entry
            _hydra_main(stage, command, run)
        else:
            run(configuration.compose_stage(stage, command), command)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except StageFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)


def _hydra_main(stage: Stage, command: Command, run: Callable[[DictConfig, Command], None]) -> None:
    import hydra

    sys.argv = [f"launch.{stage.name}", *command.flags, *configuration.hydra_overrides(stage, command)]
    sys.argv += ["hydra.output_subdir=null", "hydra.run.dir=.", "hydra.sweep.subdir=."]
    sys.argv += [f"hydra.sweep.dir={tempfile.mkdtemp()}"]  # its multirun.yaml is of no use to anybody
    sys.argv += ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    about = (sys.modules["__main__"].__doc__ or "").strip()
    words = "recipe=NAME hardware=NAME run=NAME base_model=ID|PATH dry_run=true pick what to run and where (README.md)."
    sys.argv += [f"hydra.help.header={arguments.quoted(about)}", f"hydra.help.footer={arguments.quoted(words)}"]

    @hydra.main(config_path=str(configuration.CONF), config_name=stage.name, version_base="1.3")
    def job(config: DictConfig) -> None:
        OmegaConf.resolve(config)
        arguments.check_run_name(config.run)
        run(config, command)

    job()


def show_plan(config: dict, command: list[str], env: dict[str, str], notes: list[str]) -> None:
    """Prints what a dry run prints: the resolved configuration, notes such as the batch plan, and the exact command."""
    print(OmegaConf.to_yaml(OmegaConf.create(config)).rstrip())
    for note in notes:
        print(f"# {note}")
    print("# command:")
    print(" ".join([*(f"{k}={shlex.quote(str(v))}" for k, v in env.items()), shlex.join(command)]))


def run_trainer(
    command: list[str],
    env: dict[str, str],
    log: Path,
    progress: Callable[[], tuple[int, int | None, str]],
    title: str,
    keep_open: tuple[int, ...] = (),
) -> None:
    """Runs `command` to its end with its output in `log`; shows progress() = (done, total, text) meanwhile.

    Raises StageFailed with the end of the log when it does not exit with 0. The trainer ends with this process.
    """
    console.print(f"[bold]{title}[/bold]: {shlex.join(command)}\n  log: {log}")
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, **{k: str(v) for k, v in env.items()}},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=keep_open,
            preexec_fn=_end_with_parent,
        )
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _show_progress(process, progress)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        signal.signal(signal.SIGTERM, previous)
    if process.returncode != 0:
        raise StageFailed(f"{title} ended with exit code {process.returncode}; the end of {log}:\n{_cause(log)}")


def _show_progress(process: subprocess.Popen, progress: Callable[[], tuple[int, int | None, str]]) -> None:
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task, told = bar.add_task("starting", total=None), time.monotonic()
        while process.poll() is None:
            time.sleep(0.5)
            done, total, text = progress()
            bar.update(task, completed=done, total=total, description=text or "starting")
            if not console.is_terminal and time.monotonic() - told >= 20:
                console.print(f"  {done}/{total or '?'} {text}")
                told = time.monotonic()
        done, total, text = progress()
        bar.update(task, completed=done, total=total, description=text)
    if not console.is_terminal:
        console.print(f"  {done}/{total or '?'} {text}")


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a killed stage leaves no trainer behind


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def _cause(log: Path, lines: int = 25) -> str:
    """Returns the log's last lines; for Ray's long endings, those of the first real exception."""
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [i for i, line in enumerate(text) if "Error:" in line or "Error(" in line or "Exception:" in line]
    start = max(0, (errors[0] if errors else len(text)) - lines + 3)
    return "\n".join(text[start : start + lines])
