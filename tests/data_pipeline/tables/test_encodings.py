"""The encoding of a file is told from its bytes, also where its lines stand in several."""

import pytest

from data_pipeline.tables.encodings import find_encoding, other_encoding

SIMPLE = "题干,选项\n下列属于感觉的是,视觉\n"
TRADITIONAL = "題幹,選項\n下列屬於感覺的是,視覺、聽覺與觸覺\n憂鬱症的核心症狀是,情緒低落\n"
FRENCH = "« Je ne dors plus », a-t-elle dit à sa mère ; l’été dernier, déjà, c’était pareil.\n"


def lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("text", "written", "told"),
    [
        (SIMPLE, "utf-8", "utf-8"),
        (SIMPLE, "utf-8-sig", "utf-8-sig"),
        (SIMPLE, "gbk", "gb18030"),
        (SIMPLE, "gb18030", "gb18030"),
        (SIMPLE, "utf-16", "utf-16"),
        (SIMPLE, "utf-32", "utf-32"),
        (TRADITIONAL, "big5", "big5"),
        (TRADITIONAL, "gbk", "gb18030"),
        ("ascii alone\n", "ascii", "utf-8"),
    ],
)
def test_the_encoding_of_a_file(text, written, told):
    assert find_encoding(lines(text.encode(written))) == told


def test_western_text_is_not_taken_for_chinese():
    content = FRENCH.encode("cp1252")
    assert content.decode(find_encoding(lines(content)) or "") == FRENCH


def test_a_binary_file_has_none():
    assert find_encoding([b"\x89PNG\r\n", b"\x1a\n\0\0\0"]) is None


@pytest.mark.parametrize(("most", "few"), [("utf-8", "gb18030"), ("gb18030", "utf-8")])
def test_lines_in_another_encoding_are_told_with_what_they_say(most, few):
    whole, other = "情绪的是,愉快\n", "下列属于知觉的是,视觉模式\n"
    content = (whole * 3).encode(most) + other.encode(few)
    assert find_encoding(lines(content)) == most
    decoded = content.decode(most, "surrogateescape").splitlines(keepends=True)
    assert [other_encoding(line, most) for line in decoded] == ["", "", "", other]


def test_a_word_that_is_both_is_no_other_encoding():
    assert "摹模".encode("gb18030").decode("utf-8") == "ġģ"  # by chance
    assert other_encoding("摹模", "gb18030") == ""
