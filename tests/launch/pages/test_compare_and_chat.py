"""Blind pairs and conversations in a real browser."""

from urllib.parse import quote

import pytest

from data_pipeline import reviews
from launch.pages import comparing
from launch.running import overview
from tests.launch.pages import made
from tests.launch.pages.browser import READY, Seen, opened, serving, violations, wait_for
from tests.launch.pages.made import HOSTILE
from tests.launch.stream_server import StreamServer, Told

CRISIS = "我不想活了，想结束自己的生命"


@pytest.fixture(scope="module")
def evaluated(run_name) -> overview.Run:
    made.data_stage(run_name, made.questions(24), made.dialogues(2))
    made.eval_stage(run_name, {
        "base": [f"我觉得是{'ABCD'[n % 4]} {HOSTILE}" for n in range(24)],
        "sft": [f"答案：{'BA'[n % 3 == 0]}" for n in range(24)],
    })  # fmt: skip
    return overview.read_run(run_name)


@pytest.mark.slow
def test_twenty_blind_pairs_by_keyboard(browser, evaluated):
    where = f"/runs/{quote(evaluated.name)}/compare"
    with serving("port=0") as served:
        seen = Seen(served.origin)
        page = opened(browser, served, seen, bypass_csp=True)
        page.goto(served.origin + where)
        page.get_by_label("How many pairs").fill("20")
        page.get_by_role("button", name="Draw the pairs").click()
        page.get_by_label("Your name").fill("li")
        page.get_by_role("button", name="Begin").click()
        pressed = []
        for n in range(20):
            page.wait_for_function(READY, arg=f"{n + 1} / 20")
            content = page.content()
            assert f"{evaluated.name}/base" not in content and f"{evaluated.name}/sft" not in content  # it is blind
            if n == 0:
                assert violations(page) == []
            left = page.locator(".beside article").nth(0).inner_text()
            pressed.append("base" if "我觉得" in left else "sft")
            if n == 2:
                page.keyboard.press("n")
                page.keyboard.type("更体贴")
                page.keyboard.press("Escape")
            page.keyboard.press(("1", "2", "3", "4")[n % 4])
        page.get_by_text("All judged").wait_for()
        page.get_by_role("link", name="Ranking and agreement").click()
        text = page.locator("main").inner_text()
        assert f"{evaluated.name}/base" in text and "by people" in text
        assert violations(page) == [] and seen.nothing(), seen
    given = reviews.read(evaluated.path / "reviews/li.jsonl")
    assert [one.sides[0].rpartition("/")[2] for one in given] == pressed and len(set(pressed)) == 2
    assert [one.verdict for one in given[:4]] == ["left", "right", "both good", "both bad"]
    assert given[2].reason == "更体贴"


def test_the_winner_is_the_same_on_whichever_side_it_stood(evaluated):
    pair = comparing.Pair((("user", "x"),), "q1", ("r/base", "r/sft"), ("a", "b"))
    base, sft = "r/base", "r/sft"
    for sides, verdict, won in (([base, sft], "left", 1.0), ([sft, base], "left", 0.0),
                                ([sft, base], "right", 1.0), ([sft, base], "both bad", 0.5)):  # fmt: skip
        given = reviews.Review("k", pair.id, "pair", pair.id, verdict, sides=sides)
        assert comparing._outcome(pair, "li", given).won == won


@pytest.mark.slow
def test_a_streamed_thought_a_crisis_and_a_model_that_dies(browser):
    thought = Told([*(f"想{n} " for n in range(3)), "</think>\n\n", "听起来", "很辛苦。", HOSTILE], wait=0.05)
    thought.pieces[0] = "<think>\n" + thought.pieces[0]
    plan = {"你好": thought, CRISIS: Told(["我在这里", "听你说。"]), "断": Told(["说到一半，", "然后"], dies=True),
            "慢": Told([f"第{n}句。" for n in range(200)], wait=0.1)}  # fmt: skip
    with StreamServer(plan) as one, StreamServer({"*": Told(["另一个模型。"])}, models=("other",)) as two:
        words = (f"chat.endpoint.base_url={one.url}", "chat.recipe=demo", f"other.endpoint.base_url={two.url}",
                 "other.recipe=demo")  # fmt: skip
        with serving("port=0", *words) as served:
            seen = Seen(served.origin)
            page = opened(browser, served, seen, bypass_csp=True)
            page.goto(f"{served.origin}/chat")
            assert violations(page) == []

            def say(text: str) -> None:
                page.locator("#message").fill(text)
                page.locator("#message").press("Enter")

            def settled() -> None:
                page.locator("[data-stop]").wait_for(state="hidden")

            say("你好")
            settled()
            fold = page.locator("details.thought")
            assert fold.count() == 1 and fold.get_attribute("open") is None and "想2" in fold.text_content()
            assert "很辛苦。<script>alert(1)</script>" in page.locator(".turn.counselor .text").last.inner_text()
            say(CRISIS)
            settled()
            guidance = page.locator(".guidance")
            assert guidance.count() == 1 and "12356" in guidance.inner_text()
            order = page.locator(".talk > *").evaluate_all("parts => parts.map(part => part.className)")
            assert order[-2:] == ["guidance text", "turn counselor"]  # help stands before the answer
            say("断")
            settled()
            assert "说到一半" in page.locator(".turn.counselor").last.inner_text()
            assert page.locator(".aside-of").count() == 1
            say("慢")
            page.get_by_text("第3句").wait_for()
            page.locator("[data-stop]").click()
            settled()
            said = page.locator(".turn.counselor").last.inner_text()
            assert "第150句" not in said
            wait_for(lambda: len(one.asked) == 4)
            say("你好")  # the model is free again, and remembers
            settled()
            assert [m["content"] for m in one.asked[-1]["messages"] if m["role"] == "user"][:2] == ["你好", CRISIS]
            page.locator("[data-save]").click()
            page.get_by_text("readable for you alone").wait_for()
            options = page.locator("select[name=left] option").all_inner_texts()
            page.goto(f"{served.origin}/chat?left={quote(options[0])}&right={quote(options[1])}")
            say("你好")
            settled()
            logs = page.locator("[data-model] .talk")
            assert logs.count() == 2 and "另一个模型" in logs.nth(1).inner_text()
            assert violations(page) == []
            assert seen.nothing(), seen
