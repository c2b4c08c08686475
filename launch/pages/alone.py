"""The page of a run as one file: no script, no request, for people who get it by mail. Its Markdown beside it."""

from pathlib import Path

from markupsafe import Markup

from data_pipeline.records import write_text
from eval import report
from launch.pages import rendering, run_page
from launch.running.overview import Run


def write(
    run: Run, folder: Path, figures: list[tuple[str, str]] | None = None, language: str = "en"
) -> dict[str, Path]:
    """Writes report.html and report.md into the folder, for the owner's eyes; returns {file name: path}. `figures` are
    (label, text) in the place of the run's own. Raises OSError where it cannot write.
    """
    of = run_page.gather(run, alone=True)
    of.figures = figures or of.figures
    style = Markup((Path(__file__).parent / "style.css").read_text(encoding="utf-8"))
    page = (
        rendering.environment()
        .get_template("alone.html.jinja")
        .render(rendering.context(language, "", of=of, style=style))
    )
    content = report.Page(f"PsyForge run {run.name}", of.sections, of.figures)
    made = {folder / "report.html": page, folder / "report.md": report.markdown(content)}
    for file, text in made.items():
        write_text(file, text, 0o600)  # they show what people and models said
    return {file.name: file for file in made}
