"""What `python -m launch.data status` prints: where the rows went, how far they are, who answers and what it costs."""

from pathlib import Path

from rich.table import Table

from data_pipeline.counts import DataCounts, StepCounts
from data_pipeline.llm.ledger import Ledger, is_there
from data_pipeline.synthesis import progress
from data_pipeline.synthesis import run as synthesis
from data_pipeline.synthesis.files import told_by_steps
from launch.cli.entry import console
from launch.running.folder import finished_manifest, ledger_of, read_manifest


def show_status(name: str) -> None:
    """Prints where the rows went; of a synthesis that is not finished, what is done."""
    manifest = read_manifest(name, "data")
    steps = synthesis.done_steps(Path("runs") / name / "data" / "steps")
    if manifest and manifest["status"] != "finished" and (steps or is_there(ledger_of(Path("runs") / name / "data"))):
        show_steps(name, steps)
        return show_calls(name)
    manifest = finished_manifest(name, "data", f"python -m launch.data run={name}")
    counts = DataCounts.model_validate(manifest["counts"])
    if counts.steps:
        show_steps(name, counts.steps)
        show_calls(name)
    table = Table("rows", "", title=f"run {name}: data", title_justify="left")
    table.add_row(str(counts.into), "in")
    table.add_row(str(counts.rejected), "rejected")
    table.add_row(str(counts.out), "out")
    table.add_row(str(counts.sft), "  of these SFT")
    if counts.dialogues:
        table.add_row(str(counts.dialogues), "    of these dialogues")
    table.add_row(str(counts.grpo), "  GRPO prompts")
    if counts.grpo_dialogues:
        table.add_row(str(counts.grpo_dialogues), "    of these dialogues, for a judge")
    table.add_row(str(counts.heldout), "  held out")
    if why := counts.decontaminated.not_decontaminated:
        table.caption = f'not decontaminated: {why} (decontaminate.against="[{{source: pceb, path: DIR}}]")'
    for reason, number in counts.reasons.items():
        table.add_row(str(number), f"rejected: {reason}")
    console.print(table)


def show_steps(name: str, steps: dict[str, StepCounts]) -> None:
    """Prints the funnel of a synthesis."""
    table = Table("step", "in", "out", "rejected", "merged", "s", title=f"run {name}: synthesis", title_justify="left")
    for step, counts in steps.items():
        seconds = "" if counts.seconds is None else counts.seconds
        cells = (counts.into, counts.out, counts.rejected, counts.merged, seconds)
        table.add_row(step, *map(str, cells))
    console.print(table)
    for step, told in told_by_steps(Path("runs") / name / "data" / "steps").items():
        console.print(f"  {step}: {told}")


def show_calls(name: str) -> None:
    """Prints how far the rows are whose models are being asked, and of all calls the servers, cost and slowest step."""
    folder = Path("runs") / name / "data"
    for line in progress.last_seen(folder / "steps"):
        console.print(f"  {line}")
    if not is_there(where := ledger_of(folder)):
        return
    with Ledger(where) as ledger:
        servers, slowest, priced = ledger.servers(), ledger.slowest(), [t for t in ledger.totals() if t["cost"]]
    if not servers:
        return
    table = Table("server", "calls", "failed", "calls/s", title="models", title_justify="left")
    table.caption = "calls/s: in the last minute in which any answered"
    for address, calls, failures, rate in servers:
        table.add_row(address, str(calls), str(failures), f"{rate:.1f}")
    console.print(table)
    cost = f"cost so far {sum(total['cost'] for total in priced):,.4f}; " if priced else ""
    console.print(f"  {cost}slowest step, by the time that was waited for answers: {slowest}")
