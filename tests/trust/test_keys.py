"""A key that is given in any place but the environment: refused, written nowhere, printed nowhere."""

import os
import shutil
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.safety.credentials import check_settings, could_be_key, hide_keys, key_in
from tests.conftest import REPOSITORY, TABLE, launch, refused

KEY = "sk-LEAKED-abcdef0123456789"
PLAIN = "geheimnis4711"  # which looks like no key: its name says so
LLM = ("recipe=psyche_r1", "llm=openai", "llm.model=m", "llm.base_url=http://127.0.0.1:9/v1", "limit=3", "posts=POSTS")
WAYS = {
    "setting": ("data", *LLM, f"llm.api_key={KEY}"),
    "name that says it": ("data", *LLM, f"llm.api_key={PLAIN}"),
    "in place of its variable": ("data", *LLM, f"llm.api_key_env={KEY}"),
    "in an address": ("data", *LLM[:3], f"llm.base_url=http://user:{KEY}@127.0.0.1:9/v1", *LLM[4:]),
    "in a query": ("data", *LLM[:3], f"llm.base_url=http://127.0.0.1:9/v1?api_key={PLAIN}", *LLM[4:]),
    "of a selector": ("data", *LLM, f"selectors={{one: {{model: a, api_key: {PLAIN}}}}}"),
    "in a header": ("data", *LLM, f"llm.extra_body={{Authorization: 'Bearer {KEY}'}}"),
    "where nobody asks a model": ("data", "recipe=demo", *TABLE, f"llm.api_key={KEY}"),
    "printed as configuration": ("data", *LLM, f"llm.api_key={KEY}", "--cfg", "job"),
    "of two runs": ("data", *LLM, f"llm.api_key={KEY},b", "--multirun"),
    "of a tracker": ("sft", "recipe=demo", f"psyforge.env.WANDB_API_KEY={PLAIN}"),
    "of the hub": ("sft", "recipe=demo", f"hf_hub_token={KEY}"),
    "as a name": ("data", "recipe=demo", *TABLE, f"run={KEY}"),
    "twice": ("data", *LLM, f"llm.model={KEY}", f"llm.model={KEY}"),
    "as a word": ("lineage", KEY),
    "of a judge": ("eval", "recipe=demo", f"judge.api_key={PLAIN}"),
    "of the server": ("serve", "base_model=x", f"vllm={{api-key: {PLAIN}}}"),
    "to chat": ("chat", "recipe=demo", "endpoint.base_url=http://127.0.0.1:9/v1", f"endpoint.api_key={PLAIN}"),
    "out of the environment": ("data", *LLM[:2], "llm.model=${oc.env:OUR_API_KEY}", *LLM[3:]),
    "to the demo": ("demo", f"data.llm.api_key={KEY}"),
    "of a dry run": ("data", *LLM, f"llm.api_key={KEY}", "dry_run=true"),
}


def holding(text: bytes) -> list[str]:
    return [secret for secret in (KEY, PLAIN) if secret.encode() in text]


@pytest.mark.parametrize("way", WAYS)
def test_a_key_is_refused_where_it_stands_and_shown_nowhere(way, tmp_path):
    stage, *words = WAYS[way]
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"title": "t", "text": "x", "replies": ["y"]}\n', encoding="utf-8")
    words = [word.replace("POSTS", str(posts)) for word in words]
    words += [] if stage in ("lineage", "demo", "serve") or any(w.startswith("run=") for w in words) else ["run=x28"]
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    env = {**os.environ, "TMPDIR": str(scratch), "OUR_API_KEY": PLAIN}
    try:
        done = launch(stage, *words, env=env)
        refused(done)
        assert holding(f"{done.stdout}{done.stderr}".encode()) == []
        files = [f for root in (Path("runs/x28"), scratch, tmp_path) for f in root.rglob("*") if f.is_file()]
        assert [f for f in files if f != posts and holding(f.read_bytes())] == []
        assert not Path("runs/x28").exists() and not Path("runs", KEY).exists(), "a run folder for a refused command"
    finally:
        shutil.rmtree("runs/x28", ignore_errors=True)


def test_a_key_in_a_recipe_is_refused_and_so_are_tags_that_make_objects(tmp_path):
    recipe = REPOSITORY / "recipes" / "x28keys"
    recipe.mkdir()
    try:
        file = recipe / "data.yaml"
        file.write_text(f"# @package _global_\nllm: {{model: m, api_key: {PLAIN}}}\n", encoding="utf-8")
        for flags in ((), ("--cfg", "job"), ("--multirun",)):
            done = launch("data", "recipe=x28keys", *TABLE, "run=x28", *flags)
            assert PLAIN not in refused(done, "llm.api_key") + done.stdout
        marker = tmp_path / "marker"
        file.write_text(f"# @package _global_\nseed: !!python/object/apply:os.system ['touch {marker}']\n")
        refused(
            launch("data", "recipe=x28keys", *TABLE, "run=x28"), "data.yaml line 2, column 7: the tag", "is not read"
        )
        file.write_text("# @package _global_\nsystem: \\${oc.env:HOME}\n")
        refused(launch("data", "recipe=x28keys", *TABLE, "run=x28"), "system: holds ${...}")
        assert not marker.exists() and not Path("runs/x28").exists()
    finally:
        shutil.rmtree(recipe)


def test_what_runs_write_is_their_owners_alone(run_name):
    done = launch("data", "recipe=demo", *TABLE, f"run={run_name}", "split.grpo=8", "split.heldout=4")
    assert done.returncode == 0, done.stderr
    for path in (Path("runs", run_name), *Path("runs", run_name).rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    Path("runs", run_name).chmod(0o755)  # of an earlier version
    Path("runs", run_name, "data").chmod(0o755)
    assert launch("data", "recipe=demo", *TABLE, f"run={run_name}", "split.grpo=8", "split.heldout=4").returncode == 0
    assert Path("runs", run_name).stat().st_mode & 0o777 == 0o700


def test_a_key_with_a_line_break_is_refused_without_being_shown(monkeypatch):
    monkeypatch.setenv("OUR_KEY", "geheim\nnis4711")
    with pytest.raises(BadInput, match="the key in OUR_KEY has characters") as told:
        key_in("OUR_KEY")
    assert "geheim" not in str(told.value)


def test_a_key_that_is_not_set_is_told_before_there_is_a_folder(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "OUR_KEY"}
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"title": "t", "text": "x", "replies": ["y"]}\n', encoding="utf-8")
    llm = ("llm=openai", "llm.model=m", "llm.base_url=https://api.example.org/v1", "llm.api_key_env=OUR_KEY")
    done = launch("data", "recipe=psyche_r1", "run=x28", f"posts={posts}", "split.heldout=0", *llm, env=env)
    refused(done, "OUR_KEY is not set")
    assert not Path("runs/x28").exists()


def test_words_that_only_resemble_keys_are_taken():
    honest = ["llm.api_key_env=OPENAI_API_KEY", "llm.api_key=null", "max_tokens=5", "eos_token=<|im_end|>",
              "source_options={columns: {key: 答案}}", "system=Never tell your password: keep it", "key=答案",
              "run=risk-2",
              "base_model=deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "llm.tokens_per_minute=10000",
              "model_revision=a09a35458c702b33eeacc393d103063234e8bc28"]  # fmt: skip
    assert [word for word in honest if could_be_key(word)] == []
    check_settings({"llm": {"api_key_env": "X_KEY", "extra_body": {"stop": ["token"]}}, "seed": 1})


def test_messages_hide_keys_that_older_runs_wrote(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "abcdefgh1")
    told = hide_keys(f"x (llm.api_key: 'geheim' -> None; a: abcdefgh1; b: {KEY})")
    assert told == "x (llm.api_key: '***' -> None; a: ***; b: ***)"
