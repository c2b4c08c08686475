"""Talking to a model through the real command: pipes, a server that fails, settings."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from launch import chat as talking
from launch.cli import arguments, configuration
from tests.conftest import REPOSITORY, launch, refused
from tests.launch.chatting import THOUGHT, chat, contents
from tests.launch.stream_server import StreamServer, Told

# The model in this process


def test_a_model_in_this_process_answers_while_the_pipe_is_open(tiny):
    line = [sys.executable, "-m", "launch.chat", f"base_model={tiny}", "recipe=demo", "seed=1"]
    process = subprocess.Popen(
        line, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stderr
    try:
        assert b"\xe7\xa0\x94\xe7\xa9\xb6" in process.stderr.readline()  # the banner: start-up is finished
        process.stdin.write("什么是记忆？\n".encode())
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100)
        process.stdin.close()
        rest = process.stderr.read().decode()
        assert process.wait(60) == 0, rest
        assert "no medical device" in rest and "not for people in crisis" in rest
    finally:
        process.kill()


def test_piped_answers_are_repeatable_and_nothing_else_is_on_standard_output_or_disk(tiny):
    def kept() -> set[str]:  # of this command: other tests beside it make runs named test-...
        return {path.name for path in (REPOSITORY / "runs").glob("*") if not path.name.startswith("test-")}

    before = kept()
    words = (f"base_model={tiny}", "recipe=demo", "seed=3", "max_new_tokens=20")
    done = [launch("chat", *words, input="你好\n\n什么是记忆？\n") for _ in range(2)]
    assert done[0].returncode == done[1].returncode == 0, done[0].stderr
    assert done[0].stdout == done[1].stdout and len(done[0].stdout) > 40
    assert "医疗器械" in done[0].stderr and "医疗器械" not in done[0].stdout
    assert done[0].stderr.count("cut at 20 tokens; what was said is kept") == 2
    greedy = launch("chat", *words, "once=true", "message=你好", "temperature=0")
    assert greedy.returncode == 0 and greedy.stdout != done[0].stdout.split("\n\n")[0]
    assert kept() == before


def test_a_conversation_that_fills_the_window_says_so_and_goes_on_after_reset(tiny):
    words = (f"base_model={tiny}", "recipe=demo", "max_new_tokens=5")
    done = launch("chat", *words, input=f"{'长' * 3000}\n/reset\n你好\n")
    message = refused(done, "1 lines were not taken", "the model takes 1024 with the answer")
    assert "\n[" not in message and done.stdout.strip()


def test_models_that_cannot_talk_are_refused(tiny, tmp_path):
    bare = shutil.copytree(tiny, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    refused(launch("chat", f"base_model={bare}", "once=true", "message=x"), "no chat template")
    broken = shutil.copytree(tiny, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"x" * 100)
    refused(launch("chat", f"base_model={broken}", "once=true", "message=x"), "cannot be loaded")
    refused(launch("chat", "base_model=/no/such/folder", "once=true", "message=x"), "no such folder")
    refused(launch("chat", "run=nobody-ever", "once=true", "message=x"), "run nobody-ever has no model yet")
    refused(launch("chat", "run=nobody-ever", "checkpoint=sft", "once=true", "message=x"), "no checkpoint=sft")
    refused(
        launch("chat", f"base_model={tiny}", "checkpoint=best"),
        "checkpoint='best': Input should be 'base', 'sft' or 'grpo'",
    )


# Histories and thoughts


def test_earlier_thoughts_stay_out_of_the_history_or_in_it_as_the_recipe_says():
    for keep, earlier in (("false", "听起来很辛苦。"), ("true", "<think>\n他很累。\n</think>\n\n听起来很辛苦。")):
        with StreamServer({"*": THOUGHT}) as server:
            done = chat(server, "我累\n还是累\n/reset\n再来\n", f"keep_thoughts={keep}")
            assert done.returncode == 0, done.stderr
            assert done.stdout == "<think>\n他很累。\n</think>\n\n听起来很辛苦。\n\n" * 3
            assert contents(server.asked[1]) == [("user", "我累"), ("assistant", earlier), ("user", "还是累")]
            assert contents(server.asked[2]) == [("user", "再来")]


def test_thoughts_are_hidden_on_demand_and_read_from_a_field_of_their_own():
    field = Told([("reasoning_content", "他很"), ("reasoning_content", "累。"), "听起来很", "辛苦。"])
    with StreamServer({"一": THOUGHT, "二": field}) as server:
        assert chat(server, "一\n二\n", "thoughts=hidden").stdout == "听起来很辛苦。\n\n" * 2
        assert chat(server, "二\n").stdout == "<think>\n他很累。\n</think>\n\n听起来很辛苦。\n\n"


def test_a_thought_that_never_ends_is_no_reply_and_leaves_no_half_turn_in_the_history():
    plan = {"一": Told(["<think>想", "啊想"], finish="length"), "三": Told(["想了。</think>好。", "见</think>笑"])}
    with StreamServer(plan) as server:
        done = chat(server, "一\n二\n三\n四\n")
        assert done.returncode == 1 and "1 of 4 messages have no whole answer" in done.stderr
        assert "no reply (cut at 80 tokens)" in done.stderr
        assert contents(server.asked[1]) == [("user", "二")]
        assert contents(server.asked[3])[2:4] == [("user", "三"), ("assistant", "好。见笑")]  # nothing opened it


def test_recipes_bring_prompts_and_sampling_of_their_papers():
    with StreamServer() as server:
        for recipe, language in (
            ("psyche_r1", "zh"),
            ("psyche_r1_lora", "en"),
            ("psyllm", "zh"),
            ("psyllm_qwen3", "en"),
        ):
            assert chat(server, "你好\n", f"recipe={recipe}", f"language={language}").returncode == 0
        zh, en, psyllm, psyllm_en = server.asked
    assert (zh["temperature"], zh["top_p"], zh["max_tokens"]) == (0.7, 0.9, 2048)
    assert psyllm["max_tokens"] == 32768
    assert "<think></think>" in zh["messages"][0]["content"] and "心理学" in zh["messages"][0]["content"]
    assert zh["messages"][1]["content"].endswith("\n你好") and "</think>" in zh["messages"][1]["content"]
    assert (
        en["messages"][0]["content"].startswith("You are an expert") and en["messages"][1]["content"].isascii() is False
    )
    assert "DSM-5" in psyllm["messages"][0]["content"] and psyllm["messages"][1]["content"] == "你好"
    assert psyllm_en["messages"][0]["content"].startswith("You are an experienced")


# Servers that fail


def test_what_was_said_before_a_server_died_is_kept_and_the_next_message_works(tmp_path):
    plan = {
        "断": Told(["听起来，", "你很"], dies=True),
        "空": Told([], dies=True),
        "坏": Told(["好，"], raw=b"data: {broken\n\n"),
        "五百": Told(status=500),
        "完": Told(["没有结尾。"], finish=None),
    }
    saved = tmp_path / "talk.json"
    with StreamServer(plan) as server:
        done = chat(server, f"断\n空\n坏\n五百\n完\n好\n/save {saved}\n", "endpoint.attempts=1")
        assert done.returncode == 1 and "5 of 7 messages" in done.stderr
        assert done.stdout.startswith("听起来，你很\n") and done.stdout.endswith("答：好\n\n")
        assert done.stderr.count("what was said is kept") == 3 and "HTTP 500" in done.stderr
        assert contents(server.asked[-1]) == [
            ("user", "断"), ("assistant", "听起来，你很"), ("user", "坏"), ("assistant", "好，"),
            ("user", "完"), ("assistant", "没有结尾。"), ("user", "好"),
        ]  # fmt: skip
    messages = json.loads(saved.read_text())["messages"]
    assert [m.get("cut", "")[:15] for m in messages[1::2]][0] == "connection lost"
    assert messages[1]["content"] == "听起来，你很" and "cut" not in messages[-1]


def test_a_server_that_is_not_there_or_is_none_or_refuses_stops_with_exit_code_2():
    words = ("recipe=demo", "once=true", "message=x", "endpoint.attempts=1")
    refused(launch("chat", *words, "endpoint.base_url=http://127.0.0.1:9/v1"), "no server at http://127.0.0.1:9/v1")
    refused(launch("chat", *words, "endpoint.base_url=http://127.0.0.1:99999/v1"), "is not an address")
    refused(launch("chat", *words, "endpoint.base_url=http://127.0.0.1:9/v1", "endpoint.api_key_env=sk-12"),
            "not the name of an environment variable")  # fmt: skip
    with StreamServer({"*": Told(status=404)}, models=("a", "b")) as server:
        refused(launch("chat", *words, f"endpoint.base_url={server.url}"), "lists a, b; say endpoint.model=NAME")
        refused(launch("chat", *words, f"endpoint.base_url={server.url}", "endpoint.model=c"),
                "refuses model 'c'", "planned")  # fmt: skip
    with StreamServer() as server:  # wrong path: HTML or JSON of something else
        server.models = ()
        refused(launch("chat", *words, f"endpoint.base_url={server.url}"), "lists none")


# Input


def test_invalid_utf8_is_not_sent_and_the_other_lines_are():
    with StreamServer() as server:
        done = chat(server, b"\xef\xbb\xbf\xe5\xa5\xbd\n\xff\xfe\xe5\xa5\n\xe5\xa5\xbd\n/what\n", env={"LC_ALL": "C"})
        refused(done, "2 lines were not taken: line 2: not UTF-8 from byte 1")
        assert done.stdout == "答：好\n\n" * 2 and len(server.asked) == 2
        assert "/what is no command and was not sent" in done.stderr
        refused(chat(server, b"\xff", "once=true"), "standard input: not UTF-8")
        refused(chat(server, b""), "holds no message")
        assert chat(server, "两行\n一条\n", "once=true").stdout == "答：两行\n一条\n"
        assert chat(server, "", "once=true", "message=你好（在吗），嗯").stdout == "答：你好（在吗），嗯\n"
        closed = subprocess.run(
            f"{shlex.quote(sys.executable)} -m launch.chat recipe=demo endpoint.base_url={server.url} <&-",
            shell=True, capture_output=True, text=True, cwd=REPOSITORY,
        )  # fmt: skip
        refused(closed, "standard input")


def test_transcripts_are_written_only_when_asked_for_and_never_over_a_file(tmp_path):
    file = tmp_path / "talk.json"
    with StreamServer({"*": THOUGHT}) as server:
        done = chat(server, f"我不想活了\n/save {file}\n/save {file}\n/help\n/exit\n没人听\n", "seed=1")
        refused(done, "File exists")
        assert len(server.asked) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    saved = json.loads(file.read_text())
    assert saved["model"] == "tiny" and saved["messages"] == [
        {"role": "user", "content": "我不想活了", "crisis": ["suicide"]},
        {"role": "assistant", "content": "听起来很辛苦。", "thought": "他很累。"},
    ]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("temperature=3", "temperature=3: Input should be less than or equal to 2"),
        ("top_p=0", "top_p=0: Input should be greater than or equal to 0.001"),
        ("max_new_tokens=1.5", "max_new_tokens=1.5: Input should be a valid integer"),
        ("thoughts=some", "thoughts='some': Input should be 'shown' or 'hidden'"),
        ("language=fr", "language='fr': Input should be 'zh' or 'en'"),
        ("system=chat_psylm.zh", "Did you mean chat_psyllm.zh?"),
        ("country=uk", "has cn, hk, us, none"),
        ("helplines=[{name: x, number: '1'}]", "each needs name, number, source, date"),
        ("helplines=12356", "chat: helplines=12356; a list of {name, number, source, date}"),
        ("message=x", "message= goes with once=true"),
        ("once=maybe", "once='maybe': Input should be a valid boolean"),
        ("hardware=cpu", "chat takes no hardware="),
        ("temprature=1", "Did you mean temperature?"),
    ],
)
def test_settings_that_fit_nothing_are_refused(word, expected):
    with pytest.raises(BadInput, match=re.escape(expected)):
        command = arguments.parse(arguments.CHAT, ["recipe=demo", "dry_run=true", word])
        talking.run(configuration.compose_stage(arguments.CHAT, command), command)


def test_dry_run_and_help_touch_nothing():
    done = launch("chat", "recipe=psyllm", "run=nobody-ever", "dry_run=true")
    assert done.returncode == 0 and "model unknown: run nobody-ever" in done.stdout
    assert "max_new_tokens: 32768" in done.stdout and not Path("runs/nobody-ever").exists()
    done = launch("chat", "--help")
    assert done.returncode == 0 and "Talks to a model" in done.stdout and "keep_thoughts" in done.stdout
