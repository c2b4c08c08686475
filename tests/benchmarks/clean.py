"""How fast posts are cleaned (bar: 15,000 posts/s at a mean length of 200 characters or more).

python -m tests.benchmarks.clean [SMILE_FOLDER]

Every post is another and is cleaned once: automata that are built as texts come look fast on texts they have seen. The
posts are sentences of SMILECHAT at random, joined to the length, one in ten with dirt added: contacts, emoji, links,
ads, repetition, careless punctuation. Without the data, sentences of our own are used.
"""

import json
import random
import re
import sys
import time
from pathlib import Path

from data_pipeline.records import Post
from data_pipeline.safety.cleaning import clean_text
from data_pipeline.synthesis import apply
from tests.conftest import DATA

COUNT, LENGTH = 100_000, 200
DIRT = (
    "有空加我微信：abc12345，或者打１５４-1234-5678！！！",
    "好难过😭😭[大哭]T_T。。。。",
    "看这里 https://example.test/a?b=1 ,谢谢...",
    "关注公众号心灵小屋领取资料。",
    "哈哈哈哈哈哈哈哈我真的好烦好烦好烦好烦",
    "邮箱zhang.san@example.com, 谢谢!!",
)
OWN = (
    "这学期换了宿舍以后我一直睡不好，常常到凌晨还醒着，白天上课也没有精神。",
    "室友喜欢开着灯聊天，我不知道该怎么开口。",
    "妈妈总说我想得太多，可是我心里的难受没有人看见。",
    "你愿意把这些写出来，已经很不容易，我们可以一起看看能从哪里开始。",
    "上周我去看了学校的老师，她让我每天写三件小事。",
    "我试着写了几天，有时候写着写着就哭了。",
)


def posts(folder: Path, dirty: int = 10) -> list[Post]:
    """Returns COUNT posts of at least LENGTH characters, one in `dirty` with dirt."""
    turns = [turn["content"] for file in sorted(folder.glob("*.json")) for turn in json.loads(file.read_bytes())]
    sentences = [s for turn in turns or OWN for s in re.findall(r"[^。！？\n]+[。！？\n]*", turn)]
    draw, texts = random.Random(0), []
    while len(texts) < COUNT:
        text = ""
        while len(text) < LENGTH:
            text += draw.choice(sentences)
        texts.append(text + DIRT[len(texts) // dirty % len(DIRT)] if len(texts) % dirty == 0 else text)
    return [Post(f"p{i}", "benchmark", "", text, [], {"where": f"row {i}"}) for i, text in enumerate(texts)]


def main(folder: Path) -> None:
    for name, dirty in (("one in ten dirty", 10), ("one in two dirty", 2), ("none dirtied", COUNT + 1)):
        rows = posts(folder, dirty)
        length = sum(len(row.text) for row in rows) / len(rows)
        started = time.perf_counter()
        result = apply.run("clean", rows)
        taken = time.perf_counter() - started
        assert len(result.rows) + len(result.rejects) == len(rows)
        for row in rows[:5000]:  # rules are read, and compiled as they are needed
            clean_text(row.text)
        started = time.process_time()
        for row in rows[5000:10_000]:
            clean_text(row.text)
        alone = 5000 / (time.process_time() - started)
        flagged = sum("crisis" in row.meta for row in result.rows) / len(rows)
        print(
            f"{name}: {len(rows) / taken:,.0f} posts/s with all cores, their start included; {alone:,.0f} on one; "
            f"mean length {length:.0f} characters; {flagged:.1%} flagged",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "smile")
