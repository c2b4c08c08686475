"""Books of every format become passages on paragraph borders, nothing of their text is lost, and what cannot be read
says why.
"""

import zipfile
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.records import Passage, Reject
from data_pipeline.sources.passages import SMALLEST, read, split

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


def test_passages_keep_to_paragraphs_and_size():
    texts = split(PARAGRAPHS * 30, size=200)
    assert "\n".join(texts) == "\n".join(PARAGRAPHS * 30)
    assert all(len(text) <= 200 for text in texts[:-1]) and len(texts[-1]) < 200 + SMALLEST
    long = "".join(PARAGRAPHS * 5)
    pieces = split([long], size=120)
    assert letters("".join(pieces)) == long and all(piece.rstrip()[-1] in "。？" for piece in pieces)
    assert (
        "".join(split(["无" * 950], size=300)) == "无" * 950 or letters("".join(split(["无" * 950], 300))) == "无" * 950
    )
    assert split([], 300) == [] and split(["", " "], 300) == []


def test_the_user_is_told_what_is_wrong(tmp_path):
    with pytest.raises(BadInput, match="no such file or folder"):
        only(tmp_path / "none")
    with pytest.raises(BadInput, match="a folder without files"):
        only(tmp_path)
    (tmp_path / "a.txt").write_text(PARAGRAPHS[0], "utf-8")
    with pytest.raises(BadInput, match="size=50; characters per passage, 100 or more"):
        only(tmp_path, size=50)
