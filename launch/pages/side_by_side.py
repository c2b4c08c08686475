"""Several runs beside one another: figures in one table, curves in one picture, the settings that differ."""

from dataclasses import dataclass, field

from data_pipeline.errors import BadInput
from eval.charts import Chart, chart
from eval.contract import Table
from eval.figures import Measured, share
from launch.pages import run_page, texts
from launch.running import overview
from launch.running.overview import Run


@dataclass
class SideBySide:
    runs: list[Run]
    tables: list[Table] = field(default_factory=list)
    charts: dict[str, list[Chart]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def gather(runs: list[Run]) -> SideBySide:
    made = SideBySide(runs)
    names = [run.name for run in runs]
    figures = {run.name: dict(run_page.figures(run)) for run in runs}
    labels = list(dict.fromkeys(label for of in figures.values() for label in of))
    made.tables.append(
        Table("Figures", ["", *names], [[label, *(figures[n].get(label, "–") for n in names)] for label in labels])
    )
    made.tables.append(Table("Evaluation", ["set, checkpoint, figure", *names], _evaluated(runs, made.notes)))
    made.tables += [table for stage in overview.STAGES if (table := _differing(runs, stage)).rows]
    curves = {run.name: overview.curves(run) for run in runs}
    for stage in ("sft", "grpo"):
        kinds = list(dict.fromkeys(kind for of in curves.values() for kind in of.get(stage, {})))
        charts = []
        for kind in kinds:
            lines = {n: next(iter(of[stage][kind].values())) for n, of in curves.items() if kind in of.get(stage, {})}
            if drawn := chart(kind, "step", lines):
                charts.append(drawn)
        made.charts |= {stage: charts} if charts else {}
    return made


def _evaluated(runs: list[Run], notes: list[str]) -> list[list[str]]:
    cells: dict[str, dict[str, str]] = {}
    for run in runs:
        file = run.path / "eval" / "metrics.json"
        try:
            measured = Measured.read(file) if file.is_file() else None
        except (BadInput, ValueError) as error:
            notes.append(str(error))
            continue
        for name, results in measured.sets.items() if measured else ():
            for checkpoint, of in results.items():
                for reading, values in of.readings.items():
                    if values["accuracy"] is not None:
                        cells.setdefault(f"{name}, {checkpoint}, {reading}", {})[run.name] = share(
                            values["accuracy"], values["accuracy_ci"]
                        )
                for score, mean in of.means.items():
                    cells.setdefault(f"{name}, {checkpoint}, {score}", {})[run.name] = texts.number(mean.value)
    return [[label, *(of.get(run.name, "–") for run in runs)] for label, of in cells.items()]


def _differing(runs: list[Run], stage: str) -> Table:
    """Returns the settings of a stage in which the runs differ."""
    values = {run.name: overview.settings(run, stage) for run in runs if run.stage(stage)}
    keys = dict.fromkeys(key for of in values.values() for key in of)
    rows = []
    for key in keys:
        said = [texts.plain(v) if (v := of.get(key)) is not None else "–" for of in values.values()]
        if len(set(said)) > 1 and key != "run":
            rows.append([key, *said])
    return Table(f"Settings that differ: {stage}", ["key", *values], rows)
