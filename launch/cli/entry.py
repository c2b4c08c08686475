"""What every stage shares: its entry (arguments, configuration, exit codes) and running a trainer with progress."""

import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_pipeline.errors import BadInput
from launch.cli import arguments, configuration
from launch.cli.arguments import REPOSITORY, Command, Stage

HELP = {"-h", "--help"}
console = Console(highlight=False, soft_wrap=True)


def run_command(work: Callable[[list[str]], int], about: str | None, argv: list[str]) -> int:
    """Returns the exit code of a command that is no Hydra stage (demo, audit, lineage): work(argv), 2 for BadInput."""
    if HELP & set(argv):
        print((about or "").strip())
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


def run_stage(
    stage: Stage,
    run: Callable[[DictConfig, Command], None],
    subcommands: dict[str, Callable[[Command], None]] | None = None,
) -> None:
    """Parses, composes and runs a stage or its subcommand, then exits: 0 done, 2 wrong input, 1 any other failure."""
    os.chdir(REPOSITORY)
    if HELP & set(sys.argv[1:]):
        from launch.cli import help  # here, since it imports every step, reader and benchmark

        help.show(stage)
        return
    try:
        command = arguments.parse(stage, sys.argv[1:])
        if command.subcommand:
            (subcommands or {})[command.subcommand](command)
        elif command.flags:  # --cfg job, --multirun ...: Hydra's own entry
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

    sys.argv = [f"launch.{stage.name}", *command.flags]
    if "--hydra-help" not in command.flags:  # which takes no key of ours
        sys.argv += configuration.hydra_overrides(stage, command)
    sys.argv += ["hydra.output_subdir=null", "hydra.run.dir=.", "hydra.sweep.subdir=."]
    sys.argv += [f"hydra.sweep.dir={tempfile.mkdtemp()}"]  # its multirun.yaml is of no use to anybody
    sys.argv += ["hydra/job_logging=none", "hydra/hydra_logging=none"]

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


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table whose names are whole, however narrow the terminal."""
    table = Table(*map(escape, head), title=escape(title))
    for row in rows:
        table.add_row(*map(escape, row))
    table.width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.print(table)
