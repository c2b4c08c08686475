"""Synthesis through the data stage, on the demo corpus with its recorded replies: whole, in parts, again, traced."""

import json
import shutil
from pathlib import Path

import pytest

from data_pipeline.prompts import prompt_hash
from tests.conftest import launch, refused
from tests.data_pipeline import counsellor
from tests.model_server import ModelServer

WORDS = ("recipe=demo",)


@pytest.fixture(scope="module")
def made(run_name):
    """A finished synthesis; returns its data folder."""
    done = launch("data", *WORDS, f"run={run_name}")
    assert done.returncode == 0, done.stdout + done.stderr
    return Path("runs", run_name, "data")


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_all_steps_run_and_every_row_is_accounted_for(made):
    counts = manifest(made)["counts"]
    assert list(counts["steps"]) == [
        "questions/0_read", "questions/1_clean", "questions/2_generate_questions", "questions/3_deduplicate",
        "questions/4_filter_quality", "questions/5_review", "questions/6_write_rationales",
        "questions/7_select_challenging", "posts/0_read", "posts/1_clean", "posts/2_deduplicate",
        "posts/3_rewrite_empathy",
    ]  # fmt: skip
    assert counts["in"] == counts["out"] + counts["rejected"]
    assert counts["sft"] - counts["dialogues"] + counts["grpo"] >= 120  # questions that reach training
    assert counts["grpo"] == 16
    assert counts["dialogues"] > 0
    assert counts["steps"]["questions/3_deduplicate"]["merged"] >= 4
    assert counts["steps"]["questions/4_filter_quality"]["rejected"] >= 4


def test_no_passage_is_on_both_sides(made):
    held = {q["meta"]["passage"] for q in rows(made / "heldout.jsonl")}
    trained = {q["meta"]["passage"] for q in rows(made / "questions.jsonl")} - held
    assert held and trained
    ids = {q["id"] for q in rows(made / "heldout.jsonl")}
    assert not [q["id"] for q in rows(made / "questions.jsonl") if q["meta"]["passage"] in held and q["id"] not in ids]


def test_crisis_content_waits_for_people_and_is_not_lost(made):
    flagged = [d for d in rows(made / "steps/posts/3_rewrite_empathy/rows.jsonl") if d["meta"].get("crisis")]
    assert len(flagged) == 1
    assert flagged[0]["id"] not in {d["id"] for d in rows(made / "dialogues.jsonl")}
    rejects = {r["id"]: (r["code"], r["detail"]) for r in rows(made / "questions.rejects.jsonl")}
    code, detail = rejects[flagged[0]["id"]]
    assert code == "flagged for people" and detail.startswith("crisis content")


def test_the_card_has_funnel_lengths_and_samples(made):
    page = (made / "datacard.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") >= 3 and "select_challenging" in page
    card = (made / "datacard.md").read_text(encoding="utf-8")
    assert "| questions/2_generate_questions |" in card and "samples of its rejects" in card
    for line in (
        "- recipe: recipes/demo/data.yaml", "- seed: 42", "recorded replies out of replies/ stood in",
        "| posts.jsonl | posts | not known here: name it before you publish |", "| link | link | 2 |",
        f"| filter_quality | filter_quality | {prompt_hash('filter_quality')} |", "- Not compared with any benchmark",
        "| questions/4_filter_quality | quality | 4 |", "| training files | flagged for people | 1 |",
        "Contact data (numbers, addresses, accounts) is taken out by rules, which do not find everything.",
        f"| training | system_empathy | {prompt_hash('system_empathy')} |", "5_review: not reviewed by people",
    ):  # fmt: skip
        assert line in card, line
    for name in ("datacard.md", "datacard.html"):
        assert (made / name).stat().st_mode & 0o777 == 0o600, "it shows what people said"


def test_the_same_again_is_done_and_the_status_shows_the_funnel(made, run_name):
    done = launch("data", *WORDS, f"run={run_name}")
    assert done.returncode == 0 and "done already" in done.stdout
    status = launch("data", "status", f"run={run_name}")
    assert status.returncode == 0 and "rewrite_empathy" in status.stdout


def test_a_part_of_the_steps_and_then_the_rest(run_name, made):
    name = f"{run_name}-part"
    folder = Path("runs", name, "data")
    try:
        refused(launch("data", *WORDS, f"run={name}", "steps=[filter_quality]"), "need clean before")
        done = launch("data", *WORDS, f"run={name}", "steps=[clean,deduplicate]")
        refused(done, "questions need generate_questions before")
        done = launch("data", *WORDS, f"run={name}", "steps=[clean,generate_questions,deduplicate]")
        assert done.returncode == 0, done.stderr
        assert not (folder / "questions.jsonl").exists()
        state = folder / "steps/questions/2_generate_questions/step.json"
        before = state.stat().st_mtime_ns
        assert "deduplicate" in launch("data", "status", f"run={name}").stdout
        done = launch("data", *WORDS, f"run={name}")
        assert done.returncode == 0, done.stderr
        assert state.stat().st_mtime_ns == before  # what was done is not done again
        for file in ("questions.jsonl", "sft.jsonl", "dialogues.jsonl"):
            assert (folder / file).read_bytes() == (made / file).read_bytes()
    finally:
        shutil.rmtree(Path("runs", name), ignore_errors=True)


def test_a_file_that_cannot_be_read_stands_in_the_rejects(run_name, made, tmp_path):
    """A binary, an empty file and GBK text in the folder of passages."""
    name, books = f"{run_name}-books", tmp_path / "书 (1)"
    (books / "普通心理学").mkdir(parents=True)
    ours = next(Path("data_pipeline/samples/corpus/passages/普通心理学").glob("*.txt")).read_text(encoding="utf-8")
    (books / "普通心理学" / "a.txt").write_bytes(ours.encode("gbk"))
    (books / "普通心理学" / "b.txt").write_bytes(bytes(range(256)) * 9)
    (books / "普通心理学" / "c.txt").write_bytes(b"")
    try:
        done = launch("data", *WORDS, f"run={name}", f"passages={books}", "posts=null", "steps=[clean]")
        assert done.returncode == 0, done.stderr
        rejects = rows(Path("runs", name, "data/steps/questions/0_read/rejects.jsonl"))
        assert sorted(Path(r["where"].split(" row")[0]).name for r in rejects) == ["b.txt", "c.txt"]
        (cleaned,) = rows(Path("runs", name, "data/steps/questions/1_clean/rows.jsonl"))
        assert cleaned["text"][:20] == ours[:20] and cleaned["subject"] == "普通心理学"
    finally:
        shutil.rmtree(Path("runs", name), ignore_errors=True)


def test_a_reader_of_dialogues_is_no_source_of_questions(run_name, tmp_path):
    (tmp_path / "d.json").write_text(
        '[{"role": "client", "content": "你好"}, {"role": "counselor", "content": "你好"}]'
    )
    words = ("source=smilechat", f"source_path={tmp_path}")
    refused(launch("data", *WORDS, f"run={run_name}-x", *words), "reads dialogues, not questions", "dialogues=")


def test_one_row_is_traced_back_to_its_passage_and_calls(made, run_name):
    question = rows(made / "sft.jsonl")[0]["id"]
    done = launch("lineage", f"run={run_name}", f"row={question}")
    assert done.returncode == 0, done.stderr
    for expected in ("made from", "generate_questions", "filter_quality", "select_challenging", "prompt"):
        assert expected in done.stdout, expected
    refused(launch("lineage", f"run={run_name}", "row=nothing"), "has no such row")


def test_a_dry_run_counts_the_calls_before_anything_is_paid(run_name):
    name = f"{run_name}-dry"
    done = launch("data", *WORDS, f"run={name}", "llm=openai", "llm.model=m", "llm.input_price=1",
                  "llm.output_price=2", "dry_run=true")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "generate_questions: expected 30 calls, at most 60" in done.stdout and "cost" in done.stdout
    assert not Path("runs", name).exists()


def test_a_server_that_answers_prose_is_no_source_of_questions(run_name):
    name = f"{run_name}-server"
    words = (*WORDS, f"run={name}", "posts=null", "limit=3", "llm=openai", "llm.model=m", "llm.api_key_env=null")
    try:
        with ModelServer() as server:
            done = launch("data", *words, f"llm.base_url={server.url}")
            refused(done, "no question is left", "questions/2_generate_questions/rejects.jsonl")
    finally:
        shutil.rmtree(Path("runs", name), ignore_errors=True)


@pytest.mark.parametrize("budget", [None, 100], ids=["no budget", "budget"])
def test_each_post_goes_ahead_by_itself_but_not_under_a_budget(run_name, tmp_path, budget):
    name, posts = f"{run_name}-ahead", tmp_path / "posts.jsonl"
    texts = ["考研没考上", "和室友吵架", "爸妈要离婚", "项目没评上", "孩子不肯上学", "搬到新城市没有朋友"]
    lines = [
        {"id": f"p{n}", "title": text, "text": f"{text}，心里很乱。", "replies": []} for n, text in enumerate(texts)
    ]
    posts.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    words = ["llm=vllm", "llm.model=m", "llm.concurrency=2", "llm.input_price=1", "llm.output_price=1"]
    words += [f"budget={budget}"] if budget else []
    try:
        with counsellor.server() as server:
            done = launch(
                "data", "recipe=psyllm", f"run={name}", f"posts={posts}", *words, f"llm.base_url={server.url}"
            )
        asked = [counsellor.step_of(call.body["messages"]) for call in server.calls]
        made = manifest(Path("runs", name, "data"))
    finally:
        shutil.rmtree(Path("runs", name), ignore_errors=True)
    assert done.returncode == 0, done.stderr
    assert made["counts"]["dialogues"] == 6
    assert sum(calls["calls"] for calls in made["calls"]) == len(asked), "no call twice"
    last_plan = len(asked) - asked[::-1].index("plan_dialogue")
    assert ("validate_dialogue" in asked[:last_plan]) == (budget is None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["steps=[clena]"], "Did you mean clean?"),
        (["synthesis.clean.foo=1"], "synthesis.clean: no setting 'foo'"),
        (["synthesis.select_challenging.samples=0"], "samples=0"),
        (["llm=recorded", "llm.replies=/nowhere"], "/nowhere"),
        (["passages=/nowhere"], "passages=/nowhere: no such file or folder"),
        (["llm=vllm", "llm.model=m", "llm.base_url=ftp://x"], "is not an address"),
        (["selectors=null"], "selector"),
    ],
)
def test_settings_that_fit_nothing_are_refused(run_name, words, expected):
    name = f"{run_name}-bad"
    try:
        refused(launch("data", *WORDS, f"run={name}", *words), expected)
    finally:
        shutil.rmtree(Path("runs", name), ignore_errors=True)
