"""A run as stages would leave it, without training: some hostile text stands in every part of it."""

import json
from pathlib import Path

from omegaconf import OmegaConf

from data_pipeline import reviews
from data_pipeline.counts import DataCounts, Decontamination, StepCounts
from data_pipeline.records import Dialogue, Passage, Post, Question, Reject, Response, Turn, write_jsonl
from data_pipeline.synthesis.files import StepFiles
from eval.contract import Scoring, find_benchmark
from eval.figures import Measured
from eval.items import fingerprint
from eval.measure import measure, read_all
from eval.responses import Asked, file_name, store, write_asked
from eval.settings import load_set, settings
from launch.cli.arguments import EVAL, parse
from launch.cli.configuration import as_dict, compose_stage
from launch.pages import comparing, tasks
from launch.running import overview
from launch.running.folder import LAYOUT, StageFolder

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp.exe\u2066 {{7*7}} **bold** [b]rich[/b]\x1b[31m"
)
SHOWN = "<script>alert(1)</script>"


def stage(run: str, name: str, status: str = "finished", layout: int = LAYOUT, **more) -> Path:
    """Writes the manifest of a stage; returns its folder."""
    folder = Path("runs", run, name)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "layout": layout, "stage": name, "run": run, "status": status, "command": {"recipe": "psyche_r1"},
        "inputs": {"source": {"path": f"data/{HOSTILE}.jsonl", "sha256": "0" * 64}}, "outputs": {},
        "config_sha256": "0", "code": {"commit": "1234567", "changed": False}, "packages": {"torch": "2"}, "seed": 42,
        "started": "2026-11-01T08:00:00+00:00", **more,
    }  # fmt: skip
    with (folder / ".lock").open("a+") as lock:
        StageFolder(folder, manifest, lock).save()
    return folder


def questions(n: int) -> list[Question]:
    made = []
    for i in range(n):
        trail = [{"step": "generate_questions", "row": "p0", "sample": 0, "prompt": "4a8ecf2e04ba"}]
        meta = {"parents": ["p0"], "trail": trail, "quality": {"answerable": True, "reasons": HOSTILE}}
        made.append(Question(f"q{i}", "passages", ("发展心理学", "咨询心理学")[i % 2], "single",
                             f"第{i}题：依恋类型 {HOSTILE if i == 0 else ''}", ["安全型", "反抗型", "回避型", HOSTILE],
                             "B", rationale=f"理由{i}", meta=meta))  # fmt: skip
    return made


def dialogues(n: int) -> list[Dialogue]:
    made = []
    for i in range(n):
        turns = [Turn("client", f"我很累{i} {HOSTILE}"), Turn("counselor", f"听起来很辛苦{i}", f"他很累{i} {HOSTILE}")]
        meta = {"parents": [f"post{i}"], "trail": [], **({"crisis": ["suicide"]} if i % 5 == 0 else {})}
        made.append(Dialogue(f"d{i}", "posts", turns, meta))
    return made


def step(data: Path, place: str, records: list, rejects: list[Reject] | None = None, of: int | None = None) -> None:
    files = StepFiles(data / "steps" / place)
    with files.writing() as writer:
        for record in records:
            writer.row(record)
        for reject in rejects or []:
            writer.reject(reject)
    rejected = len(rejects or [])
    files.finish("key", StepCounts(into=of or len(records) + rejected, out=len(records), rejected=rejected,
                                   seconds=1.5), {"told": HOSTILE}, {})  # fmt: skip


def data_stage(run: str, asked: list[Question], talks: list[Dialogue]) -> Path:
    """Writes a data stage of two pipelines."""
    counts = DataCounts(into=len(asked) + 1, out=len(asked), rejected=1, sft=len(asked), dialogues=len(talks), grpo=2,
                        heldout=2, decontaminated=Decontamination(not_decontaminated=HOSTILE), reasons={})  # fmt: skip
    data = stage(run, "data", counts=counts.as_json(), wall_s=75.0,
                 calls=[{"step": "generate_questions", "model": HOSTILE, "calls": 3, "failures": 0, "prompt_tokens": 9,
                         "completion_tokens": 4, "cost": 0.5}], cost=0.5)  # fmt: skip
    step(data, "questions/0_read", [Passage("p0", "passages", "发展心理学", f"安斯沃思 {HOSTILE}", {"where": "a"})])
    step(data, "questions/1_generate_questions", asked, [Reject("qx", "row 3", "no JSON", HOSTILE)])
    step(data, "posts/0_read", [Post(f"post{i}", "posts", HOSTILE, f"我很累{i}", [HOSTILE]) for i in range(len(talks))])
    step(data, "posts/1_rewrite_empathy", talks)
    write_jsonl(data / "questions.jsonl", asked)
    write_jsonl(data / "dialogues.jsonl", talks)
    write_jsonl(data / "heldout.jsonl", asked)
    (data / "config.yaml").write_text("source: synthesis\nselect: {single: 7}\n", encoding="utf-8")
    return data


def eval_stage(run: str, replies: dict[str, list[str]]) -> Path:
    """Writes an evaluation of {checkpoint: a response to each held-out question}."""
    folder = stage(run, "eval", counts={}, wall_s=9.0)
    benchmark, scoring = find_benchmark("heldout", "benchmark"), Scoring(resamples=20)
    config = compose_stage(EVAL, parse(EVAL, ["recipe=demo", f"run={run}", "hardware=cpu"]))
    OmegaConf.save(config, folder / "config.yaml")
    items = load_set("heldout", settings(as_dict(config)).sets["heldout"], folder.parent / "data").loaded.items
    measured, about = Measured({"heldout": {}}, dict.fromkeys(replies, 0.5), dict.fromkeys(replies, "m")), {}
    for checkpoint, texts in replies.items():
        answered = read_all(items, [[Response(text, "stop", len(text))] for text in texts], scoring)
        measured.sets["heldout"][checkpoint] = measure(benchmark, answered, scoring)[0]
        file = file_name(checkpoint, "heldout")
        store(folder / file, benchmark, answered)
        about[file] = Asked(checkpoint, "heldout", fingerprint(items), "m", 1, 0.0, 1.0, None, None, 64, 42, 8)
    write_asked(folder, about)
    measured.write(folder / "metrics.json")
    return folder


def whole(run: str) -> None:
    """Writes a run with every stage, a review and a comparison; GRPO has been stopped in its midst."""
    asked = questions(60)
    data_stage(run, asked, dialogues(10))
    model = stage(run, "sft", counts={"loss_first": 5.0, "loss_last": 0.5}, wall_s=60.0) / "model"
    model.mkdir()
    history = [{"step": n, "loss": 5 / (n + 1), "learning_rate": 1e-5, "grad_norm": 1.0} for n in range(30)]
    (model / "trainer_state.json").write_text(json.dumps({"log_history": history}), encoding="utf-8")
    grpo = stage(run, "grpo", "running", planned_steps=40)
    steps = [{"step": n, "data": {"critic/score/mean": n / 20, "critic/score/max": 1.0,
                                  "actor/kl_loss": n / 1e3, "actor/entropy": 1.0,
                                  "response_length/mean": 90.0 + n}} for n in range(20)]  # fmt: skip
    (grpo / "metrics.1.jsonl").write_text(
        "".join(json.dumps(s) + "\n" for s in steps) + '{"step": 20', encoding="utf-8"
    )
    (grpo / "train.log").write_text(f"Training {HOSTILE}\n", encoding="utf-8")
    thought = f"<think>\n依恋 {HOSTILE}\n</think>\n\n"
    eval_stage(run, {
        "base": [f"我觉得是{'ABCD'[n % 4]} {HOSTILE}" for n in range(60)],
        "sft": [f"{thought}答案：{'BA'[n % 3 == 0]}" for n in range(60)],
    })  # fmt: skip
    made = overview.read_run(run)
    for kind in ("question", "dialogue"):
        tasks.draw(made, kind, tasks.tables_for(made, kind)[0], 10, 0.5, ["li", "王"])
    first = plan(made, "question").of("li")[0]
    said = reviews.Review("key-of-the-first", first.id, "question", first.content, "rejected", HOSTILE)
    reviews.append(tasks.folder_of(made), "li", said)
    comparing.choose(run, comparing.NewPairs(set="heldout", first=f"{run}/base", second=f"{run}/sft", size=10))
    chat = Path("runs", run, "chat")
    chat.mkdir()
    turns = [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": "嗯", "thought": HOSTILE}]
    (chat / "transcript.json").write_text(json.dumps({"messages": turns}), encoding="utf-8")


def plan(run: overview.Run, kind: str) -> tasks.Plan:
    """Returns the plan of a review that was drawn."""
    found = tasks.plan_of(run, kind)
    assert found
    return found
