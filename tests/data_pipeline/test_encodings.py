"""The encoding of a file is told from its bytes, also where its lines stand in several."""

import pytest

from data_pipeline.encodings import decode, find_encoding, is_utf8, lost_characters, other_encoding
from data_pipeline.records import Fault

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


TEXT = "依恋是婴儿与照料者之间长期而稳定的情感联结。\n安全型的孩子很快平静下来，然后继续玩耍。\n"


@pytest.mark.parametrize(
    ("written", "declared", "told"),
    [
        ("utf-8", "", "utf-8"),
        ("utf-8-sig", "", "utf-8"),
        ("utf-16", "", "utf-16"),
        ("gbk", "", "gb18030"),
        ("gbk", "gb2312", "gb18030"),
        ("gb18030", "GBK", "gb18030"),
        ("utf-8", "gb2312", "utf-8"),  # a wrong declaration
        ("gbk", "utf-8", "gb18030"),
        ("gbk", "no-such-encoding", "gb18030"),
    ],
)
def test_the_encoding_is_seen_or_believed(written, declared, told):
    assert decode(TEXT.encode(written), declared=declared) == (TEXT, told)


def test_a_few_characters_of_gbk_are_not_taken_for_utf8_where_gbk_is_declared():
    assert decode("联通".encode("gbk"), declared="gbk") == ("联通", "gb18030")


def test_latin_texts_keep_their_accents():
    text = "L'attachement est un lien étroit et durable entre l'enfant et celui qui s'en occupe, décrit à Paris.\n" * 5
    assert decode(text.encode("cp1252"), declared="iso-8859-1") == (text, "cp1252")


@pytest.mark.parametrize(
    ("content", "code", "detail"),
    [
        (bytes(range(256)), "a binary file, not a text", ""),
        (TEXT.encode() + TEXT.encode("gbk"), "several encodings in one file", "line 1 is UTF-8, line 3 is not"),
        (TEXT.encode("gbk") + TEXT.encode(), "several encodings in one file", "line 3 is UTF-8, line 1 is not"),
        (TEXT.encode()[:-3], "several encodings in one file", "line 1 is UTF-8, line 2 is not"),
        (TEXT.encode("utf-16")[:-1], "broken UTF-16", "byte"),
    ],
)
def test_what_is_no_text_of_one_encoding_says_why(content, code, detail):
    fault = decode(content)
    assert isinstance(fault, Fault) and fault.code == code and detail in fault.detail


def test_an_encoding_that_is_given_is_taken_at_its_word(tmp_path):
    assert decode(TEXT.encode("big5hkscs", "ignore"), "big5hkscs") == (
        TEXT.encode("big5hkscs", "ignore").decode("big5hkscs"),
        "big5hkscs",
    )
    assert decode("联通".encode("gbk"), "gbk") == ("联通", "gb18030")
    fault = decode(TEXT.encode("gbk"), "utf-8")
    assert isinstance(fault, Fault) and fault.code == "broken UTF-8" and "line 1" in fault.detail
    whole = tmp_path / "a.csv"
    for content, told in ((TEXT.encode() * 50_000, True), (TEXT.encode()[:-2], False), (b"a\0b", False)):
        whole.write_bytes(content)
        assert is_utf8(whole) == told


@pytest.mark.parametrize(
    "garbled",
    [
        TEXT.encode().decode("gb18030", "ignore"),
        TEXT.encode().decode("cp1252", "ignore"),
        TEXT.encode().decode("latin-1"),
        TEXT.encode("gb18030").decode("latin-1"),
        f"读作{TEXT.encode('gbk').decode('cp1252', 'ignore')}",
        "好\ufffd的",
        "锟斤拷好",
    ],
)
def test_texts_that_were_damaged_before_are_told(garbled):
    assert isinstance(lost_characters(garbled), Fault)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "繁體中文的心理學書籍，諮商師陪伴個案面對憂鬱與焦慮，這個過程並不容易。",
        "日本語の心理学。感覚と知覚。これはテストです。",
        "Ça a été très élevé, naïve façade – “déjà vu”, Ñandú, ÄÖÜ, 5 °C ± 2 µm",
        "······每一天都一样。××××××",
        "他姓涓，名浜，住在镇上，那里风景很好，大家都喜欢。",
    ],
)
def test_texts_that_are_whole_are_not(text):
    assert lost_characters(text) is None
