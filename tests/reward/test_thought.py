"""Where a thought begins: in the response, or in the prompt that the chat template wrote."""

import re

from reward.thought import OPEN, split_thought, template_opened, with_opening
from tests.conftest import REPOSITORY


def test_a_closed_thought_that_nothing_opened_was_opened_by_the_template():
    assert template_opened("因为</think>答案：A")
    for response in ("<think>因为</think>答案：A", "答案：A", "<think>因为", ""):
        assert not template_opened(response)


def test_the_opening_tag_is_put_back_once():
    assert with_opening("因为</think>答案：A", True) == "<think>因为</think>答案：A"
    assert with_opening(" <think>因为</think>答案：A", True).count(OPEN) == 1
    assert with_opening("答案：A", False) == "答案：A"
    assert split_thought("因为</think>答案：A", True) == ("因为", "答案：A")


def test_no_other_module_decides_it():
    """Selection, rationales and replies guess it by one function; the reward and the evaluation are told."""
    guess = re.compile(r"""(?:</think>|CLOSE)["']? in .* and """)
    files = [
        file for room in ("data_pipeline", "reward", "eval", "launch") for file in (REPOSITORY / room).rglob("*.py")
    ]
    guessing = {file.name for file in files if guess.search(file.read_text(encoding="utf-8"))}
    assert guessing == {"thought.py"}
