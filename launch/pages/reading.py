"""The pages where people look: runs, one run, several side by side, rows with their trail, responses."""

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from launch.cli.arguments import check_run_name
from launch.pages import answers, run_page, side_by_side
from launch.pages.rendering import page, streamed
from launch.running import overview, trail
from launch.running.lines import lines_of
from launch.running.overview import Run

router = APIRouter()
SHOWN, ANSWERS = 50, 20  # records, and responses, of a page


def known(name: str) -> Run:
    """Returns the run; raises BadInput or a 404 for one that is not there."""
    check_run_name(name)
    run = overview.read_run(name)
    if not run.stages:
        raise HTTPException(404, f"runs/{name}: there is no such run, or none of its stages was begun")
    return run


@router.get("/")
def runs(request: Request) -> Response:
    return page(request, "runs.html.jinja", runs=overview.all_runs())


@router.get("/side-by-side")
def several(request: Request) -> Response:
    names = list(dict.fromkeys(request.query_params.getlist("run")))
    return page(request, "side_by_side.html.jinja", of=side_by_side.gather([known(name) for name in names]))


@router.get("/runs/{name}")
def run(request: Request, name: str, verify: bool = False, audit: bool = False) -> Response:
    of = run_page.gather(known(name), verify=verify)
    if audit:
        run_page.hold(of)
    return page(request, "run.html.jinja", run=name, tab="Overview", of=of)


@router.get("/runs/{name}/state")
def state(name: str) -> dict:
    stages = [{"name": s.name, "state": s.state, "told": s.told, "done": s.done, "total": s.total, "share": s.share}
              for s in known(name).stages]  # fmt: skip
    return {"stages": stages}


@router.get("/runs/{name}/rows")
def rows(request: Request, name: str, table: str = "", q: str = "", first: int = 0) -> Response:
    data = known(name).path / "data"
    steps = trail.tables(data)
    at = trail.table_of(data, table) if table else _last_rows(steps)
    if table and at is None:
        raise HTTPException(404, f"{table}: run {name} has no such file of records")
    first, found, more = max(0, first), [], False
    lines = lines_of(at.path) if at else None
    if lines and q.strip():
        found, more = trail.search(lines, q.strip(), first, SHOWN)
    elif lines:
        found = lines.slice(first, SHOWN + 1)
        found, more = found[:SHOWN], len(found) > SHOWN
    return page(request, "rows.html.jinja", run=name, tab="Rows", steps=steps, at=at, q=q, first=first, found=found,
                following=found[-1][0] + 1 if more else None, text_of=trail.text_of)  # fmt: skip


def _last_rows(steps: dict[str, list[trail.Table]]) -> trail.Table | None:
    """Returns the rows of the last step of the first pipeline, else the first training file."""
    rows = [table for of in steps.values() for table in of if table.name == trail.ROWS]
    pipeline = rows[0].place.split("/")[0] if rows else ""
    last = [table for table in rows if table.place.startswith(f"{pipeline}/")]
    return last[-1] if last else next((of[0] for of in steps.values() if of), None)


@router.get("/runs/{name}/row")
def row(request: Request, name: str, id: str = "", table: str = "", number: int = -1) -> Response:
    data = known(name).path / "data"
    at = trail.table_of(data, table) if table else None
    lines = lines_of(at.path) if at else None
    if at and lines and number >= 0 and (record := lines.record(number)) is not None:
        version = trail.Version(at, number, record)
    elif id and (version := trail.last_version(data, id)):
        pass
    else:
        raise HTTPException(404, f"{id or table}: run {name} has no such row")
    id = str(version.record.get("id", ""))
    meta = version.record.get("meta") or {}
    parents = [str(parent) for parent in meta.get("parents", [])]
    ids = {one for one in (id, *parents) if one}
    return streamed(request, "row.html.jinja", run=name, tab="Rows", version=version, id=id, parents=parents, meta=meta,
                    versions=lambda: trail.versions(data, version) if id else [],
                    made_from=lambda: [one for parent in parents
                                       if (one := trail.last_before(data, version, parent))],
                    facts=lambda: list(trail.facts(data, ids)),
                    children=lambda: trail.children(data, version.record) if id else [],
                    endings=lambda: trail.endings(data, id) if id else [],
                    asked=lambda: list(trail.trail(data, version.record)), names=trail.prompt_names())  # fmt: skip


@router.get("/runs/{name}/responses")
def responses(request: Request, name: str, checkpoint: str = "", set: str = "", first: int = 0) -> Response:
    there, given = answers.stored(known(name).name), request.query_params
    at = next(
        (one for one in there if one.set == (set or one.set) and one.checkpoint == (checkpoint or one.checkpoint)), None
    )
    at = at or next((one for one in there if one.set == set), None)
    if at is None:
        return page(request, "responses.html.jinja", run=name, tab="Responses", at=None, there=there)
    wanted = answers.Filter(given.get("verdict", ""), given.get("subject", ""), given.get("cell", ""),
                            given.get("cut") == "1", given.get("differ") == "1", given.get("q", ""))  # fmt: skip
    about, shown = answers.overview(at.path), answers.shown_by(at)
    found, following, total = answers.chosen(at.path, wanted, max(0, first), ANSWERS)
    return page(request, "responses.html.jinja", run=name, tab="Responses", at=at, there=there, wanted=wanted,
                about=about, found=[(number, row, shown(at.checkpoint, row)) for number, row in found],
                total=total, first=first, following=following, verdicts=answers.VERDICTS)  # fmt: skip


@router.get("/runs/{name}/response")
def response(request: Request, name: str, set: str, id: str, other: str = "") -> Response:
    mine = [one for one in answers.stored(known(name).name) if one.set == set]
    others = [one for one in answers.of_set(set) if one.run != name]
    shown = [
        (one, row) for one in [*mine, *(one for one in others if one.name == other)] for row in answers.of_item(one, id)
    ]
    if not shown:
        raise HTTPException(404, f"{id}: no response to such an item in set {set} of run {name}")
    first = shown[0][1]
    beside = [
        (one, row, answers.shown_by(one)(one.checkpoint if one.run == name else one.name, row)) for one, row in shown
    ]
    at = trail.last_version(known(name).path / "data", id)
    return page(request, "response.html.jinja", run=name, tab="Responses", set=set, id=id, first=first, beside=beside,
                others=others, other=other, in_data=at is not None)  # fmt: skip
