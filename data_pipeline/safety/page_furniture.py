"""What a site writes around a text: who wrote it and when, rights, buttons and their counts. It goes line by line.

A line of it is shaped like one: a button, a time, the name of a site or of somebody. Words that begin as such a line
does are none. The rules are data with examples, `page_furniture.yaml`.
"""

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import yaml

from data_pipeline.safety.screening import Span

LONGEST = 200  # characters of such a line; ours
_LINE = re.compile(r"[^\n]+")


@lru_cache(1)
def furniture_rules() -> dict:
    """Returns `page_furniture.yaml`, its parts and lists compiled, each list as one pattern."""
    rules = yaml.safe_load((Path(__file__).parent / "page_furniture.yaml").read_text(encoding="utf-8"))
    parts = rules["parts"]

    def compiled(pattern: str) -> re.Pattern:
        for _ in range(3):  # parts name parts
            for name, part in parts.items():
                pattern = pattern.replace(f"${name}", part)
        return re.compile(pattern)

    lists = {kind: compiled("|".join(f"(?:{pattern})" for pattern in rules[kind])) for kind in ("sure", "beside")}
    named = [(compiled(name), compiled(line)) for name, line in rules["named"]]
    bar = compiled("(?P<button>$BUTTON)|(?P<time>$TIME)|(?P<count>$COUNT)|(?P<gap>$GAP)")
    return rules | lists | {"bar": bar, "named": named}


def furniture_needs() -> list[str]:
    """Returns patterns for `screen`: a text without any of them has no page furniture."""
    return [
        r"(?:发布|编辑|发表|更新|创作|修改|首发|回答|提问|评论)(?:于|时间|日期)|属地|客户端|网页版|超话|著作权|版权|转载"
        r"|链接[:：]|来源|转自|出处|赞同|评论|收藏|转发|举报|浏览|点赞|关注|回复|楼|阅读全文|展开全文|收起全文|采纳|答案"
        r"|推荐|[来发]自|sent from my|posted by u/|[ /]u/|^u/|level \d|comments?|reply|知乎用户|豆瓣用户|豆友|匿名用户"
        r"|赞\s?[(（|]|[|丨｜]|撰|供稿|采写|责编|校对|排版|编译|作者\s|author|(?:written|text) by|[摘选引]自"
        r"|答主|话题\]"
    ]


def find_page_furniture(text: str) -> list[Span]:
    """Returns the runs of lines that are furniture, of which one at least is so by itself."""
    if len(text) > LONGEST and "\n" not in text:
        return []
    spans, run, sure, above = [], [], False, None
    for line in [*_LINE.finditer(text), None]:
        if line and not line[0].strip():
            continue
        kind = _kind(line[0].strip()) if line else ""
        if line and kind:
            if not run and above and _names(above[0].strip(), line[0].strip()):
                run = [above]
            run.append(line)
            sure = sure or kind == "sure"
            continue
        if run and sure:
            start, end = run[0].start(), run[-1].end()
            spans.append(Span(start, end, "page", text[start:end], "page_furniture"))
        run, sure, above = [], False, line
    return spans


def _names(above: str, line: str) -> bool:
    """Returns whether a line says something of a person alone, whom the one above names."""
    return any(about.fullmatch(line) and name.fullmatch(above) for name, about in furniture_rules()["named"])


def _kind(line: str) -> str:
    """Returns "sure", "beside" or "" for a line that may be text."""
    rules = furniture_rules()
    if len(line) > LONGEST:
        return ""
    for kind in ("sure", "beside"):
        if rules[kind].fullmatch(line):
            return kind
    if any(about.fullmatch(line) for _, about in rules["named"]):
        return "sure"
    tokens, end = Counter(), 0
    for match in rules["bar"].finditer(line):
        if match.start() > end:
            break
        tokens[match.lastgroup] += bool(match[0])
        end = match.end()
    if not line or end < len(line):
        return ""
    return "sure" if tokens["button"] and tokens["button"] + tokens["count"] > 1 else "beside"
