"""Every page opens in a real browser, shows what others wrote as text, asks nobody else, and can be used by all."""

import pytest

from tests.launch.pages.browser import Seen, opened, pages_of, violations
from tests.launch.pages.made import SHOWN


def test_every_page_opens_and_hostile_text_is_text(browser, served, run):
    seen = Seen(served.origin)
    page = opened(browser, served, seen)
    for name, address in pages_of(run).items():
        answer = page.goto(served.origin + address)
        assert answer.status == 200, f"{name}: {served.log.read_text()[-2000:]}"
        assert page.locator("h1").count() == 1, name
        assert page.locator("main script, main img, main iframe").count() == 0, name
        text = page.locator("main").inner_text()
        assert not any(sign in text for sign in "\u202e\u2066\x1b"), name
        if name in ("question", "dialogue", "passage", "response", "run", "record", "judged record", "pair"):
            assert SHOWN in page.locator("main").text_content() and "\\u202e" in page.content(), name
    assert seen.nothing(), seen


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_no_serious_violation_and_nothing_beside_the_screen(browser, served, run, scheme, width):
    page = opened(browser, served, color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    for name, address in pages_of(run).items():
        page.goto(served.origin + address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert violations(page) == [], name


@pytest.mark.slow
def test_chinese_says_all_in_chinese(browser, served, run):
    page = opened(browser, served, locale="zh-CN")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.get_by_text("English").click()
    assert page.get_by_role("heading", name="Runs").count() == 1
    page.get_by_text("中文").click()
    assert page.get_by_role("heading", name="Runs").count() == 0
