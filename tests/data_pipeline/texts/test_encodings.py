"""A text is decoded as it stands or not at all: nothing is replaced, and a mixed file says where it turns."""

import pytest

from data_pipeline.texts.encodings import decode
from data_pipeline.texts.text import Unreadable

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
    assert decode(TEXT.encode(written), declared) == (TEXT, told)


def test_a_few_characters_of_gbk_are_not_taken_for_utf8_where_gbk_is_declared():
    assert decode("联通".encode("gbk"), "gbk") == ("联通", "gb18030")


def test_latin_texts_keep_their_accents():
    text = "L'attachement est un lien étroit et durable entre l'enfant et celui qui s'en occupe, décrit à Paris.\n" * 5
    assert decode(text.encode("cp1252"), "iso-8859-1") == (text, "cp1252")


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
    with pytest.raises(Unreadable) as error:
        decode(content)
    assert error.value.fault.code == code and detail in error.value.fault.detail
