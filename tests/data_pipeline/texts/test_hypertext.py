"""All text of a page comes once, wherever it stands."""

import pytest

from data_pipeline.texts import hypertext


def texts(page: str) -> list[str]:
    return [text for _, text in hypertext.paragraphs(page)]


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("<body>在 body 里<div>在 div 里<p>在 p 里</p>尾</div></body>", ["在 body 里", "在 div 里", "在 p 里", "尾"]),
        ("<div>一<br/>二<br>三</div>", ["一", "二", "三"]),
        ("<ul><li>外<ul><li>内</li></ul></li><li>末</ul>", ["外", "内", "末"]),
        ("<dl><dt>词<dd>义</dl><section>节<span>跨</span></section>", ["词", "义", "节跨"]),
        ("<table><tr><td><p>格</p></td><th>头</th></tr></table>", ["格", "头"]),
        ("<pre>一行\n两行</pre>", ["一行", "两行"]),
        ("<p>我<b>很</b>累<i>了</i></p>", ["我很累了"]),
        ("<p>情感\n联结 and\nits bonds</p>", ["情感联结 and its bonds"]),
        ("<p><ruby>漢<rt>kan</ruby>字</p><p>下</p>", ["漢字", "下"]),  # the end of <rt> may be left out
        ("<html><head><title/><script src='x'/></head><body>文</body>", ["文"]),
        ("<head><title>名</title><body>文</body>", ["文"]),
        ("<style>p {}</style><script>a < b</script>文<!-- 注 -->", ["文"]),
        ("a&nbsp;b &lt;想&gt; &#20320;", ["a b <想> 你"]),
        ("p<.05，a<b，c>d", ["p<.05，a<b，c>d"]),
        ("<p>甲<![CDATA[乙 & 丙]]></p>", ["甲乙 & 丙"]),
        ("<p/><p></p> \n ", []),
    ],
)
def test_text_comes_once_and_whole(page, wanted):
    assert texts(page) == wanted


def test_headings_are_told_apart():
    assert list(hypertext.paragraphs("<h2>第一节<br/>感觉</h2>文<h4>小题</h4>")) == [
        (True, "第一节"),
        (True, "感觉"),
        (False, "文"),
        (False, "小题"),
    ]


def test_a_long_page_is_read_in_pieces():
    page = "".join(f"<div>第{n}段，讲感觉与知觉。</div>" for n in range(20_000))
    assert texts(page) == [f"第{n}段，讲感觉与知觉。" for n in range(20_000)]
