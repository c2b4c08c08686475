"""Anything at all, given to what reads foreign bytes: a result or a refusal in words, never another exception."""

import io
import sqlite3
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data_pipeline.errors import BadInput
from data_pipeline.llm.completions import Arriving, read_reply
from data_pipeline.llm.ledger import Call, Ledger, recover
from data_pipeline.llm.structured import parse
from data_pipeline.records import Reject
from data_pipeline.safety.credentials import could_be_key, hide_keys
from data_pipeline.safety.safe_yaml import load_yaml
from data_pipeline.safety.shown import STEERING, shown
from data_pipeline.sources import cpsyexam, passages
from data_pipeline.tables.rows import Layout, table_rows
from launch.cli import arguments
from launch.cli.arguments import DATA, EVAL, SFT

pytestmark = pytest.mark.slow
fuzzed = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
texts = st.text(max_size=200)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["choices", "message", "content", "delta", "finish_reason", "usage", "prompt_tokens", "type",
                         "completion_tokens", "reasoning_content", "refusal", "tool_calls", "text"])  # fmt: skip
replies = st.recursive(
    json_values, lambda inner: st.dictionaries(names, inner, max_size=4) | st.lists(inner, max_size=3), max_leaves=15
)


@fuzzed
@given(st.binary(max_size=400))
@example(b"\xff\xfe")
def test_replies_of_any_bytes(content):
    response, _ = read_reply(content.decode("utf-8", "replace"), "geheimer-schluessel")
    assert isinstance(response.text, str) and response.tokens >= 0


@fuzzed
@given(replies, st.lists(replies, max_size=4))
def test_replies_of_any_shape(reply, chunks):
    import json

    response, again = read_reply(json.dumps(reply), "geheimer-schluessel")
    assert response.finish and isinstance(again, bool)
    assert isinstance(response.text.encode() + response.reasoning.encode(), bytes)
    arriving = Arriving("geheimer-schluessel")
    for chunk in chunks:
        for kind, text in arriving.take(chunk):
            assert kind in ("text", "reasoning") and text.encode()
    list(arriving.rest())
    arriving.response()


@fuzzed
@given(texts)
def test_structured_replies_of_any_text(text):
    from pydantic import BaseModel

    class Shape(BaseModel):
        keep: bool

    try:
        parse(text, Shape)
    except ValueError:
        pass


@fuzzed
@given(
    st.lists(st.tuples(st.integers(0, 60_000), st.binary(min_size=1, max_size=600)), max_size=6), st.integers(0, 70_000)
)
def test_ledgers_with_any_bytes_in_any_place(changes, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger"
        calls = [Call(f"{n:064x}", "step", f"row {n}", 0, "m", "u", "stop", "答" * n * 9, "", "", 1, n, None, 0.5, 1,
                      "2026-01-01T00:00:00", "m") for n in range(40)]  # fmt: skip
        with Ledger(path) as ledger:
            ledger.add(calls)
        content = bytearray(path.read_bytes())
        for at, what in changes:
            content[at : at + len(what)] = what
        path.write_bytes(content[: cut if cut > 100 else None])
        try:
            count = recover(path)
        except BadInput:
            return
        db = sqlite3.connect(path)
        saved = [Call(*row[1:-1]) for row in db.execute("SELECT * FROM calls")]
        db.close()
        assert len(saved) == count and set(saved) <= set(calls)


@fuzzed
@given(
    st.dictionaries(texts.filter(lambda name: "\0" not in name), st.binary(max_size=300), max_size=4),
    st.integers(0, 3000),
)
def test_archives_of_any_members_cut_anywhere(members, cut):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", '<c><rootfile full-path="p.opf"/></c>')
        for name, content in members.items():
            try:
                archive.writestr(name or "p.opf", content)
            except (ValueError, UnicodeEncodeError):
                pass
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.epub", "cpsyexam.zip", "t.xlsx"):
            file = Path(folder) / name
            file.write_bytes(packed.getvalue()[: cut if cut > 50 else None])
            try:
                if name == "a.epub":
                    assert all(isinstance(row, Reject) or row.text for row in passages.read(file))
                elif name == "t.xlsx":
                    list(table_rows(file, Layout()))
                else:
                    list(cpsyexam.read(file))
            except BadInput:
                pass


@fuzzed
@given(st.binary(max_size=500))
@example(b"PAR1")
@example(b"\x80\x04\x95")
def test_tables_of_any_bytes(content):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.csv"
        file.write_bytes(content)
        try:
            list(table_rows(file, Layout()))
        except BadInput:
            pass


@fuzzed
@given(st.lists(st.sampled_from(["llm", "run", "recipe", "limit", "a.b", "+x", "~y", "--cfg", "--multirun", "hydra.x"])
                | texts, max_size=4), st.lists(texts, max_size=4), st.sampled_from([DATA, SFT, EVAL]))  # fmt: skip
def test_command_lines_of_any_words(keys, values, stage):
    words = [f"{key}={value}" for key, value in zip(keys, values, strict=False)] + keys[len(values) :]
    try:
        arguments.parse(stage, words)
    except BadInput as error:
        assert str(error)


@fuzzed
@given(texts)
@example("a: &a [*a]")
@example("? [a]\n: b")
@example("- 2023-02-31")
@example("!!binary x")
def test_yaml_of_any_text(text):
    try:
        load_yaml(text, "x")
    except BadInput:
        pass


@fuzzed
@given(texts)
def test_what_is_shown_steers_nothing_and_hides_keys(text):
    assert not STEERING.search(shown(text))
    assert not could_be_key(hide_keys(f"a {text} sk-LEAKED-abcdef0123456789")) or could_be_key(text)
