"""The pages of a review: who judges what, one record at a time beside its guideline, and what came of it."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi import APIRouter
from markdown_it import MarkdownIt
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from data_pipeline import reviews
from data_pipeline.errors import BadInput
from data_pipeline.reviews import Review
from data_pipeline.safety.helplines import HELPLINES_BY_COUNTRY
from data_pipeline.verdicts import content_hash, read_verdicts, sample_rows, write_sample
from launch.pages import tasks, texts
from launch.pages.reading import known
from launch.pages.rendering import HERE, address, language_of, page
from launch.pages.tasks import Plan
from launch.running import trail
from launch.running.overview import Run

router = APIRouter()


class Given(BaseModel):
    """A verdict as the page sends it."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=8, max_length=64)
    item: str
    content: str
    verdict: str
    reason: str = ""
    edits: dict[str, str] = {}
    seconds: float = Field(default=0, ge=0, le=86400)
    before: str = ""  # key of the verdict that the page shows as the last one


class NewPlan(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: str
    table: str
    size: int
    overlap: float
    reviewers: str  # names, parted by commas or blanks


class Sheet(BaseModel):
    """A sheet that somebody has filled in, as its file's name and text."""

    model_config = ConfigDict(extra="forbid")

    name: str
    text: str


@router.get("/runs/{name}/review")
def overview(request: Request, name: str) -> Response:
    run = known(name)
    plans = tasks.plans(run)
    free = {kind: tables for kind in reviews.KINDS if kind not in plans and (tables := tasks.tables_for(run, kind))}
    return page(request, "review.html.jinja", run=name, tab="Review", free=free,
                plans={kind: (plan, tasks.progress(run, plan)) for kind, plan in plans.items()})  # fmt: skip


@router.post("/runs/{name}/review")
def draw(name: str, asked: NewPlan) -> dict:
    run = known(name)
    if asked.kind not in reviews.KINDS:
        raise BadInput(f"kind {asked.kind!r}: {', '.join(reviews.KINDS)}")
    table = trail.table_of(run.path / "data", asked.table)
    if table is None:
        raise BadInput(f"{asked.table}: run {name} has no such file of records")
    tasks.draw(run, asked.kind, table, asked.size, asked.overlap, asked.reviewers.replace(",", " ").split())
    return {"to": address(f"/runs/{name}/review")}


@router.get("/runs/{name}/review/stop")
def stop(request: Request, name: str) -> Response:
    return page(request, "stop.html.jinja", run=name, tab="Review", helplines=HELPLINES_BY_COUNTRY["cn"])


@router.get("/runs/{name}/review/{kind}/results")
def results(request: Request, name: str, kind: str) -> Response:
    run, plan = planned(name, kind)
    return page(request, "review_results.html.jinja", run=name, tab="Review", plan=plan, of=tasks.results(run, plan),
                progress=tasks.progress(run, plan), command=command(run, plan))  # fmt: skip


@router.get("/runs/{name}/review/{kind}/{reviewer}")
def item(request: Request, name: str, kind: str, reviewer: str, at: int = -1) -> Response:
    run, plan = planned(name, kind)
    mine, given = plan.of(reviewer), tasks.latest(run, plan, reviewer)
    if not mine:
        raise BadInput(f"{reviewer}: not among the reviewers of this plan ({', '.join(plan.reviewers)})")
    if not 0 <= at < len(mine):
        at = next((n for n, task in enumerate(mine) if task.id not in given), len(mine))
    done = sum(task.id in given for task in mine)
    if at == len(mine):
        return page(
            request, "review_end.html.jinja", run=name, tab="Review", plan=plan, reviewer=reviewer, of=len(mine)
        )
    record, last = tasks.record_of(run, plan, mine[at]), given.get(mine[at].id)
    meta = record.meta if record else {}
    others = {one: theirs for one in plan.reviewers if one != reviewer
              and (theirs := tasks.latest(run, plan, one).get(mine[at].id))} if last else {}  # fmt: skip
    said = {key: meta[key] for key in ("quality", "check", "validation", "selection") if meta.get(key)} if last else {}
    return page(
        request, "review_item.html.jinja", run=name, tab="Review", plan=plan, reviewer=reviewer, at=at, of=len(mine),
        done=done, task=mine[at], record=record, last=last, others=others, said=said,
        content=content_hash(record) if record else "", crisis=meta.get("crisis") or meta.get("crisis_replies") or [],
        edits={field: reviews.value_of(record, field) for field in reviews.editable(record)} if record else {},
        guideline=guideline(run, kind, language_of(request)),
    )  # fmt: skip


@router.post("/runs/{name}/review/{kind}/{reviewer}")
def judge(name: str, kind: str, reviewer: str, given: Given) -> Response:
    run, plan = planned(name, kind)
    task = next((one for one in plan.of(reviewer) if one.id == given.item), None)
    if task is None:
        raise BadInput(f"{given.item}: {reviewer} has no such record to judge")
    last = tasks.latest(run, plan, reviewer).get(task.id)
    if last and last.key == given.key:
        return JSONResponse({"saved": True, "new": False})  # its answer was lost on the way
    if (last.key if last else "") != given.before:
        return JSONResponse(
            {"error": "judged meanwhile in another tab; look at that verdict first", "reload": True}, 409
        )
    record = tasks.record_of(run, plan, task)
    if record is None:
        return JSONResponse({"error": "this record is gone: the stage has been run again", "gone": True}, 409)
    if content_hash(record) != given.content:
        return JSONResponse({"error": "this record has changed since you opened it; look again", "reload": True}, 409)
    review = Review(given.key, given.item, kind, given.content, given.verdict, given.reason, given.edits,
                    round(given.seconds, 1))  # fmt: skip
    checked = reviews.check(review, record)
    try:
        new = reviews.append(tasks.folder_of(run), reviewer, checked)
    except OSError as error:
        return JSONResponse({"error": f"{error.filename}: cannot be written ({error.strerror})"}, 507)
    return JSONResponse({"saved": True, "new": new})


@router.get("/runs/{name}/review/{kind}/{reviewer}/sheet.csv")
def sheet(name: str, kind: str, reviewer: str) -> Response:
    """Gives a reviewer's share as a sheet, with the verdicts that stand."""
    run, plan = planned(name, kind)
    given = tasks.latest(run, plan, reviewer)
    records = [record for task in plan.of(reviewer) if (record := tasks.record_of(run, plan, task))]
    rows = sample_rows(records)
    for row in rows:
        row["reviewer"] = reviewer
        if (last := given.get(row["id"])) and last.verdict in reviews.DECIDED:
            row |= {"verdict": last.verdict, "comment": last.reason,
                    "corrected_answer": last.edits.get("answer", last.edits.get("reference", ""))}  # fmt: skip
    with TemporaryDirectory() as folder:
        content = write_sample(Path(folder), rows)["sample.csv"].read_bytes()
    return Response(
        content, media_type="text/csv", headers={"content-disposition": 'attachment; filename="review.csv"'}
    )


@router.post("/runs/{name}/review/{kind}/{reviewer}/sheet")
def take_sheet(name: str, kind: str, reviewer: str, given: Sheet) -> dict:
    """Takes the verdicts of a sheet into the reviewer's file; those that stand there already stay as they are."""
    run, plan = planned(name, kind)
    mine = {task.id: task for task in plan.of(reviewer)}
    records = [record for task in mine.values() if (record := tasks.record_of(run, plan, task))]
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{reviewer}.csv"
        file.write_text(given.text, encoding="utf-8")
        try:
            judged = read_verdicts([file], records)
        except BadInput as error:
            raise BadInput(str(error).replace(str(file), given.name)) from None
    of, before, taken = {record.id: record for record in records}, tasks.latest(run, plan, reviewer), 0
    for one in judged.verdicts:
        if one.id in before:
            continue
        field = "reference" if getattr(of[one.id], "kind", "") == "open" else "answer"
        edits = {field: one.corrected_answer} if one.corrected_answer else {}
        reason = one.comment or ("in the sheet" if one.verdict == "rejected" else "")
        content = content_hash(of[one.id])
        review = Review(f"sheet-{content}-{one.id}"[:64], one.id, kind, content, one.verdict, reason, edits)
        taken += reviews.append(tasks.folder_of(run), reviewer, reviews.check(review, of[one.id]))
    return {"taken": taken, "outdated": [f"{one.id}: {one.why}" for one in judged.outdated]}


def planned(name: str, kind: str) -> tuple[Run, Plan]:
    """Returns the run and its plan; raises a 404 without one."""
    run = known(name)
    plan = tasks.plan_of(run, kind) if kind in reviews.KINDS else None
    if plan is None:
        raise HTTPException(404, f"run {name} has no review of {kind}s; draw one first")
    return run, plan


def command(run: Run, plan: Plan) -> str:
    """Returns the command by which the step `review` takes the verdicts, "" before the first."""
    files = ",".join(str(reviews.file_of(tasks.folder_of(run), name)) for name in plan.reviewers
                     if reviews.file_of(tasks.folder_of(run), name).is_file())  # fmt: skip
    return f"python -m launch.data run={run.name} 'synthesis.review.verdicts=[{files}]'" if files else ""


def guideline(run: Run, kind: str, language: str) -> Markup:
    """Returns the run's own guideline, reviews/guideline.KIND.md, else ours, as HTML; Markdown alone is markup."""
    own = tasks.folder_of(run) / f"guideline.{kind}.md"
    ours = HERE / "guidelines" / f"{kind}.{language}.md"
    text = (own if own.is_file() else ours).read_text(encoding="utf-8", errors="replace")
    return Markup(_markdown().render(texts.visible(text)))


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).disable(["image", "link", "autolink"])
