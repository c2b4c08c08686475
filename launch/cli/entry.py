"""What every stage shares: its entry (arguments, configuration, exit codes) and what it prints.

What a command writes is its owner's alone, and what it says holds no key. Foreign text is printed as it stands: it is
no markup here, and steers no terminal.
"""

import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_pipeline.errors import BadInput, storage_fault
from data_pipeline.safety.credentials import check_settings, check_words, hide_keys
from data_pipeline.safety.shown import shown
from launch.cli import arguments, configuration
from launch.cli.arguments import REPOSITORY, Command, Stage

HELP = {"-h", "--help"}
PRIVATE = 0o077  # umask: files are 600 and folders 700, for they hold what people said


class _Plain(Console):
    """A console to which every string is plain text: of messages, cells and titles."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **{**options, "markup": False, "emoji": False})


console = _Plain(highlight=False, soft_wrap=True)


class StageFailed(Exception):
    """A trainer that was started did not finish; the message holds the cause and the log's path."""


def run_command(work: Callable[[list[str]], int], about: str | None, argv: list[str]) -> int:
    """Returns the exit code of a command that is no Hydra stage (demo, audit, lineage): work(argv), or `ending`'s."""
    if HELP & set(argv):
        print((about or "").strip())
        return 0

    def checked() -> int:
        check_words(argv)
        return work(argv)

    return ending(checked)


def ending(work: Callable[[], int | None]) -> int:
    """Returns the exit code of a command's work, told where it is not its own: 2 for wrong input, 130 for Ctrl-C, 1 for
    what failed, a full disk among it.
    """
    os.chdir(REPOSITORY)
    os.umask(PRIVATE)
    try:
        return work() or 0
    except BadInput as error:
        return _told(f"error: {error}", 2)
    except StageFailed as error:
        return _told(f"failed: {error}", 1)
    except KeyboardInterrupt:
        return _told("interrupted; the same command continues", 130)
    except Exception as error:
        if (told := storage_fault(error)) is None:
            raise
        return _told(f"failed: {told}", 1)


def _told(message: str, code: int) -> int:
    print(hide_keys(shown(message)), file=sys.stderr)
    return code


def run_stage(
    stage: Stage,
    run: Callable[[DictConfig, Command], None],
    subcommands: dict[str, Callable[[Command], None]] | None = None,
) -> None:
    """Parses, composes and runs a stage or its subcommand, then exits: 0 done, 2 wrong input, 1 any other failure."""
    if HELP & set(sys.argv[1:]):
        os.chdir(REPOSITORY)
        from launch.cli import help  # here, since it imports every step, reader and benchmark

        help.show(stage)
        return

    def work() -> None:
        check_words(sys.argv[1:])  # before a word is repeated by any message
        command = arguments.parse(stage, sys.argv[1:])
        if command.subcommand:
            (subcommands or {})[command.subcommand](command)
        elif command.flags:  # --cfg job, --multirun ...: Hydra's own entry
            _hydra_main(stage, command, run)
        else:
            run(configuration.compose_stage(stage, command), command)

    if code := ending(work):
        sys.exit(code)


def _hydra_main(stage: Stage, command: Command, run: Callable[[DictConfig, Command], None]) -> None:
    import hydra

    sys.argv = [f"launch.{stage.name}", *command.flags]
    if "--hydra-help" not in command.flags:  # which takes no key of ours
        sys.argv += configuration.hydra_overrides(stage, command)
    sys.argv += ["hydra.output_subdir=null", "hydra.run.dir=.", "hydra.sweep.subdir=."]
    sys.argv += [f"hydra.sweep.dir={tempfile.mkdtemp()}"]  # its multirun.yaml is of no use to anybody
    sys.argv += ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    configuration.check_files(stage, command)  # before Hydra prints any of it

    @hydra.main(config_path=str(configuration.CONF), config_name=stage.name, version_base="1.3")
    def job(config: DictConfig) -> None:
        OmegaConf.resolve(config)
        check_settings(configuration.as_dict(config))
        arguments.check_run_name(config.run)
        run(config, command)

    job()


def show_plan(config: dict, command: list[str], env: dict[str, str], notes: list[str]) -> None:
    """Prints what a dry run prints: the resolved configuration, notes such as the batch plan, and the exact command."""
    variables = [f"{key}={shlex.quote(str(value))}" for key, value in env.items()]
    settings = OmegaConf.to_yaml(OmegaConf.create(config)).rstrip()
    for line in [settings, *(f"# {note}" for note in notes), "# command:", " ".join([*variables, shlex.join(command)])]:
        print(shown(line))


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table whose names are whole, however narrow the terminal."""
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*row)
    table.width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.print(table)
