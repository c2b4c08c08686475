"""Books of every format become passages on paragraph borders, nothing of their text is lost, and what cannot be read
says why.
"""

import zipfile
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Passage, Reject
from data_pipeline.sources.passages import read

PARAGRAPHS = [
    "依恋是婴儿与照料者之间长期而稳定的情感联结。鲍尔比认为，它保护幼小的孩子不受危险。",
    "安斯沃斯用陌生情境观察一岁的孩子：母亲离开时他们怎样，回来时他们又怎样。",
    "安全型的孩子在母亲回来时寻求接触，很快平静下来，然后继续玩耍。",
    "回避型的孩子似乎不在意母亲的离开，回来时也不靠近她，但心跳说明他们并不平静。",
]


def only(path: Path, **options) -> list:
    return list(read(path, **options))


def letters(text: str) -> str:
    return "".join(text.split())


def epub(path: Path, chapters: list[str], title: str = "发展心理学入门") -> Path:
    items = "".join(f'<item id="c{i}" href="text/c%20{i}.xhtml"/>' for i in range(len(chapters)))
    refs = "".join(f'<itemref idref="c{i}"/>' for i in reversed(range(len(chapters))))  # the spine decides
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "META-INF/container.xml",
            '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        )
        book.writestr(
            "OEBPS/book.opf",
            f'<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>{title}</dc:title></metadata>'
            f"<manifest>{items}</manifest><spine>{refs}</spine></package>",
        )
        for i, chapter in enumerate(chapters):
            book.writestr(
                f"OEBPS/text/c {i}.xhtml", f"<html><head><title>x</title></head><body>{chapter}</body></html>"
            )
    return path


def pdf(path: Path, pages: list[list[str]], title: str = "Attachment") -> Path:
    """Writes a small PDF by hand: lines of ASCII text in Helvetica."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    objects += ["<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>", f"<< /Title ({title}) >>"]
    kids = []
    for lines in pages:
        stream = "BT /F1 12 Tf 14 TL 72 720 Td " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    content, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{body}\nendobj\n".encode()
    start = len(content)
    content += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    content += "".join(f"{offset:010} 00000 n \n" for offset in offsets).encode()
    content += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info 4 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    path.write_bytes(content)
    return path


def test_a_folder_is_read_in_order_with_its_subjects(tmp_path):
    folder = tmp_path / "心理学"
    (folder / "发展心理学").mkdir(parents=True)
    (folder / "发展心理学" / "依恋.txt").write_text("\n\n".join(PARAGRAPHS), "utf-8")
    (folder / "记忆.txt").write_text(PARAGRAPHS[0] * 2, "utf-8")
    (folder / ".hidden.txt").write_text("不读", "utf-8")
    rows = only(folder)
    assert [(row.id, row.subject) for row in rows] == [
        ("passages/发展心理学/依恋.txt/1", "发展心理学"),
        ("passages/记忆.txt/1", "记忆"),
    ]
    assert rows[0].meta == {
        "where": f"{folder / '发展心理学' / '依恋.txt'} passage 1",
        "file": "发展心理学/依恋.txt",
        "encoding": "utf-8",
    }
    assert [row.subject for row in only(folder, subject="心理学")] == ["心理学", "心理学"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16"])
def test_encodings_are_told_apart_and_said(tmp_path, encoding):
    file = tmp_path / "依恋.txt"
    file.write_bytes("\r\n\r\n".join(PARAGRAPHS).encode(encoding))
    (row,) = only(file)
    assert letters(row.text) == letters("".join(PARAGRAPHS))
    expected = {"utf-8-sig": "utf-8", "gbk": "gb18030"}.get(encoding, encoding)
    assert row.meta["encoding"] == expected


def test_what_cannot_be_read_is_rejected_with_its_reason(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "c.txt").write_text(" \n\n ", "utf-8")
    (tmp_path / "d.docx").write_bytes(b"PK")
    (tmp_path / "e.epub").write_bytes(b"no zip")
    (tmp_path / "f.pdf").write_bytes(b"%PDF-1.4 broken")
    with zipfile.ZipFile(tmp_path / "g.epub", "w") as book:
        book.writestr("mimetype", "application/epub+zip")
    pdf(tmp_path / "h.pdf", [[], []])
    (tmp_path / "i.txt").write_text(PARAGRAPHS[0], "utf-8")
    rows = only(tmp_path)
    reasons = {Path(row.where).name: row.reason for row in rows if isinstance(row, Reject)}
    assert reasons.pop("a.txt") == "the file is empty"
    assert reasons.pop("b.txt") == "a binary file, not a text"
    assert reasons.pop("c.txt") == "no text in the file"
    assert (
        reasons.pop("d.docx") == "cannot read files of this kind: .docx; passages are .txt, .md, .markdown, .epub, .pdf"
    )
    assert reasons.pop("e.epub").startswith("not an EPUB that can be read: File is not a zip file")
    assert reasons.pop("f.pdf").startswith("not a PDF that can be read: ")
    assert reasons.pop("g.epub").startswith("not an EPUB that can be read: ")
    assert reasons.pop("h.pdf").startswith("a PDF with hardly any text: 2 pages; scanned?")
    assert reasons == {} and [row.id for row in rows if isinstance(row, Passage)] == ["passages/i.txt/1"]


def test_markdown_gives_its_text_headings_and_subject(tmp_path):
    file = tmp_path / "a.md"
    file.write_text(
        "---\nsubject: 发展心理学\n---\n# 依恋\n\n**依恋**是[情感](http://a.test)的\n联结。![图](x.png)\n\n"
        "- 安全型\n- 回避型\n\n## 陌生情境\n\n| 类型 | 反应 |\n|---|---|\n| 安全型 | 哭 |\n",
        "utf-8",
    )
    rows = only(file)
    assert [(row.subject, row.meta["heading"], row.text) for row in rows] == [
        ("发展心理学", "依恋", "依恋是情感的联结。\n安全型\n回避型"),
        ("发展心理学", "陌生情境", "类型\n反应\n安全型\n哭"),
    ]
    file.write_text("# 依恋\n\n" + PARAGRAPHS[0], "utf-8")
    assert only(file)[0].subject == "依恋"


def test_an_epub_is_read_in_the_order_of_its_spine(tmp_path):
    file = epub(
        tmp_path / "书.epub",
        [f"<h1>第二章</h1><p>{PARAGRAPHS[1]}</p><script>no()</script>", f"<h2>第一章</h2><p>{PARAGRAPHS[0]}<br/></p>"],
    )
    rows = only(file)
    assert [(row.subject, row.meta["heading"], row.text) for row in rows] == [
        ("发展心理学入门", "第一章", PARAGRAPHS[0]),
        ("发展心理学入门", "第二章", PARAGRAPHS[1]),
    ]
    bomb = epub(tmp_path / "b.epub", ["<p>x</p>"], title="</dc:title><!-- --><dc:title>")
    assert [type(row) for row in only(bomb)] == [Passage]


def test_a_pdf_gives_its_lines_as_paragraphs(tmp_path):
    first = ["Attachment is a lasting bond between", "child and caregiver.", "12"]
    rows = only(pdf(tmp_path / "a.pdf", [first, ["Bowlby described it in 1969."]]))
    assert [(row.subject, row.text) for row in rows] == [
        ("Attachment", "Attachment is a lasting bond between child and caregiver.\nBowlby described it in 1969.")
    ]


def test_running_heads_and_feet_of_a_pdf_are_left_out_and_told(tmp_path):
    words = "bonds recall trauma groups motive reward speech memory sleep grief habit anger".split()
    sentences = [f"What {word} means to a child goes on" for word in words]
    pages = []
    for number, sentence in enumerate(sentences):
        head = f"{number + 45}  THE BOOK" if number % 2 else f"CHAPTER 3  MEMORY   {number + 45}"
        body = [
            sentence,
            "across the page and ends" if number % 2 else "far below and ends",
            f"and of {words[-number]} 2 of 3 said so.",
        ]
        pages.append([head, *body, "Free e-books at www.example.com"])
    rows = only(pdf(tmp_path / "a.pdf", pages))
    *passages, told = rows
    text = " ".join(row.text for row in passages if isinstance(row, Passage))
    assert "CHAPTER" not in text and "THE BOOK" not in text and "e-books" not in text
    assert all(sentence in text for sentence in sentences) and text.count("2 of 3 said so.") == 12
    assert isinstance(told, Reject) and told.code == "running heads and feet of a PDF are no text"
    assert "CHAPTER # MEMORY #" in " ".join(told.detail.split()) and "(6 pages, first 1)" in told.detail
    assert "e-books at www.example.com' (12 pages, first 1)" in told.detail


def test_lines_that_repeat_far_from_one_another_stay(tmp_path):
    pages = [
        [("Summary" if n % 5 == 0 else f"{'abcdefghij'[n % 10] * n} begins"), f"{'qwertzuiop'[n % 10] * n} ends."]
        for n in range(20)
    ]
    rows = only(pdf(tmp_path / "a.pdf", pages))
    assert all(isinstance(row, Passage) for row in rows)
    assert " ".join(row.text for row in rows).count("Summary") == 4


def test_pages_of_a_pdf_without_text_are_told(tmp_path):
    pages = [
        [f"The page of {'abcdef'[n] * 5} has text enough to be read, and ends."] if n != 3 else [] for n in range(6)
    ]
    *_, told = only(pdf(tmp_path / "a.pdf", pages))
    assert told.reason == "pages of the PDF without text: 1 of 6: 4; blank, pictures, or scanned"


def test_an_epub_gives_all_its_text_once_in_the_encoding_it_declares(tmp_path):
    file = tmp_path / "书.epub"
    epub(file, [f"在 body 里。<div>{PARAGRAPHS[0]}<br/>{PARAGRAPHS[1]}</div><ul><li>外<ul><li>内</li></ul></li></ul>"])
    (row,) = only(file)
    assert row.text == f"在 body 里。\n{PARAGRAPHS[0]}\n{PARAGRAPHS[1]}\n外\n内"
    for head in (
        '<?xml version="1.0" encoding="gb2312"?>',
        '<meta http-equiv="Content-Type" content="text/html; charset=GBK">',
    ):
        with zipfile.ZipFile(file, "w") as book:
            book.writestr("META-INF/container.xml", '<container><rootfile full-path="OEBPS/book.opf"/></container>')
            book.writestr(
                "OEBPS/book.opf",
                '<package><manifest><item id="c" href="c.html"/></manifest><spine><itemref idref="c"/></spine>'
                "</package>",
            )
            book.writestr("OEBPS/c.html", f"{head}<p>{PARAGRAPHS[2]}</p>".encode("gbk"))
        (row,) = only(file)
        assert (row.text, row.meta["encoding"]) == (PARAGRAPHS[2], "gb18030")


def test_a_page_of_a_book_that_cannot_be_read_is_told_and_the_others_come(tmp_path):
    file = epub(tmp_path / "b.epub", [f"<p>{PARAGRAPHS[0]}</p>", f"<p>{PARAGRAPHS[1]}</p>"])
    with zipfile.ZipFile(file) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    parts["OEBPS/text/c 1.xhtml"] = PARAGRAPHS[1].encode() + b"\n" + PARAGRAPHS[1].encode("gbk")
    del parts["META-INF/container.xml"]
    with zipfile.ZipFile(file, "w") as book:
        book.writestr("META-INF/container.xml", '<container><rootfile full-path="OEBPS/book.opf"/></container>')
        for name, content in parts.items():
            book.writestr(name, content)
    passage, told = only(file)
    assert passage.text == PARAGRAPHS[0]
    assert told.reason.startswith("several encodings in one file: OEBPS/text/c 1.xhtml: line 1 is UTF-8, line 2 is not")


def test_headings_without_text_below_are_text(tmp_path):
    file = epub(tmp_path / "b.epub", [f"<h1>第一章</h1><h2>依恋</h2><p>{PARAGRAPHS[0]}</p>", "<h1>完</h1>"])
    rows = only(file)
    assert [(row.meta.get("heading"), row.text) for row in rows] == [(None, "完"), ("第一章 依恋", PARAGRAPHS[0])]


def test_lost_characters_are_no_text(tmp_path):
    (tmp_path / "a.txt").write_text(PARAGRAPHS[0] + "\ufffd\ufffd", "utf-8")
    (tmp_path / "b.txt").write_text("锟斤拷锟斤拷烫" + PARAGRAPHS[0], "utf-8")
    (tmp_path / "c.txt").write_text(PARAGRAPHS[0], "utf-8")
    first, second, passage = only(tmp_path)
    assert first.code == second.code == "characters of the text are lost" and "2 x \ufffd near" in first.detail
    assert passage.text == PARAGRAPHS[0]


def test_one_broken_file_among_a_thousand(tmp_path):
    for number in range(1000):
        (tmp_path / f"{number:04}.txt").write_text(f"{number}。" + PARAGRAPHS[0], "utf-8")
    (tmp_path / "0500.txt").write_bytes(PARAGRAPHS[0].encode() + b"\n" + PARAGRAPHS[1].encode("gbk"))
    rows = only(tmp_path)
    assert len(rows) == 1000 and [Path(row.where).name for row in rows if isinstance(row, Reject)] == ["0500.txt"]


def test_the_user_is_told_what_is_wrong(tmp_path):
    with pytest.raises(BadInput, match="no such file or folder"):
        only(tmp_path / "none")
    with pytest.raises(BadInput, match="a folder without files"):
        only(tmp_path)
    (tmp_path / "a.txt").write_text(PARAGRAPHS[0], "utf-8")
    with pytest.raises(BadInput, match="size=50; characters per passage, 100 or more"):
        only(tmp_path, size=50)
