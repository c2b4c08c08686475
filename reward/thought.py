"""Thought and answer of one text: joined as training writes them, split again, and told apart while a text arrives.

The tags are Qwen3's and Psyche-R1's. Whoever reads or writes them does it here, and whoever reads the
dialects of other models.
"""

import re
from collections.abc import Iterable, Iterator

OPEN, CLOSE = "<think>", "</think>"
# How other models and data sets mark a thought, and the answer behind it; in any case.
DIALECTS = (
    (OPEN, CLOSE),
    *(
        (f"<{word}>", f"</{word}>")
        for word in ("thinking", "thought", "thoughts", "reasoning", "analysis", "scratchpad")
    ),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)
ANSWERS = (
    *((f"<{word}>", f"</{word}>") for word in ("answer", "response", "output", "final")),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|begin_of_answer|>", "<|end_of_answer|>"),
)
_MARK = re.compile(
    "|".join(re.escape(mark) for pair in (*DIALECTS, *ANSWERS) for mark in pair)
    + r"|<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>"  # special tokens: <|im_end|>, <|eot_id|>; DeepSeek's
    + r"|</?s>|<(?:bos|eos|pad|unk|sop|eop|start_of_turn|end_of_turn|extra_id_\d+)>"
    + r"|\[(?:gMASK|/?INST|BOS|EOS)\]|<</?SYS>>|(?-i:\[(?:CLS|SEP|PAD|UNK|MASK|DONE)\])"
    + r"|<0x[0-9A-F]{2}>|[▁ĠĊ]",  # how tokenizers write a byte, a blank and the end of a line
    re.IGNORECASE,
)
Piece = tuple[str, str]  # ("thought" or "reply", text); ("late", ""): all that came as reply was a thought


def join_thought(thought: str, answer: str) -> str:
    """Returns the text that holds both, as Qwen3's chat template writes it; the answer alone without a thought."""
    return f"{OPEN}\n{thought}\n{CLOSE}\n\n{answer}" if thought else answer


def template_opened(response: str) -> bool:
    """Returns whether a thought is closed that nothing opened: the chat template has opened it in the prompt.

    Selection, rationales and replies go by it, since nobody says how their servers are set up. The reward and the
    evaluation are told (`think_prefilled`): a model that leaves its tag out must not be paid for one.
    """
    return CLOSE in response and OPEN not in response


def with_opening(response: str, think_prefilled: bool) -> str:
    """Returns the response with the `<think>` that the chat template wrote, unless it opened the thought once more."""
    return OPEN + response if think_prefilled and not response.lstrip().startswith(OPEN) else response


def split_thought(response: str, think_prefilled: bool = False) -> tuple[str | None, str | None]:
    """Returns (thought, answer part). The thought is None without one; the answer part is None when the thought is
    not closed, or when there are several. With `think_prefilled` the chat template has opened the thought already.
    Text before the thought belongs to the answer part: it must not contradict what follows.
    """
    text = with_opening(response, think_prefilled)
    opened, closed = text.count(OPEN), text.count(CLOSE)
    if opened == closed == 0:
        return None, text
    if opened != 1 or closed != 1 or text.index(OPEN) > text.index(CLOSE):
        return None, None
    before, rest = text.split(OPEN)
    thought, answer = rest.split(CLOSE)
    return thought, (answer if not before.strip() else f"{before}\n{answer}")


def stray_mark(text: str) -> str:
    """Returns the first mark of a thought or answer, of any dialect, or special token in a text; "" without one."""
    if not any([sign in text for sign in "<[◁▁ĠĊ"]):  # with which all of them begin
        return ""
    return mark[0] if (mark := _MARK.search(text)) else ""


def leading_thought(text: str) -> tuple[str | None, str]:
    """Returns (thought, reply) of a text that begins with a closed thought in any dialect, (None, reply) of any other.

    A reply that is marked as the answer as a whole loses these marks; `stray_mark` tells any other.
    """
    thought, reply = None, text
    if text.lstrip()[:1] not in ("<", "[", "◁"):  # with which all of them begin
        return thought, reply
    lower = text.lower()
    for opened, closed in DIALECTS:
        end = lower.find(closed.lower())
        if lower.lstrip().startswith(opened.lower()) and end >= 0:
            thought, reply = text[:end].lstrip()[len(opened) :], text[end + len(closed) :]
            break
    for opened, closed in ANSWERS:
        bare = reply.strip()
        if bare.lower().startswith(opened.lower()) and bare.lower().endswith(closed.lower()):
            reply = bare[len(opened) : -len(closed)]
    return thought, reply


class ThoughtStream:
    """Takes a text in pieces and gives it back as thought and reply, without the tags and the empty lines around them.

    `prefilled`: the prompt has opened the thought already. A `</think>` that nothing opened makes what came before it
    a thought, once; after a thought it is no tag and left out.
    """

    def __init__(self, prefilled: bool = False) -> None:
        self.inside, self.closed, self.begun, self.held = prefilled, False, False, ""

    def feed(self, text: str) -> Iterator[Piece]:
        """Yields what can be told apart so far; a tail that may be the beginning of a tag waits."""
        self.held += text
        while tags := sorted((self.held.find(tag), tag) for tag in (OPEN, CLOSE) if tag in self.held):
            at, tag = tags[0]
            yield from self._give(self.held[:at])
            self.held = self.held[at + len(tag) :]
            if tag == CLOSE:
                if not self.inside and not self.closed:
                    yield "late", ""
                self.closed = True
            self.inside, self.begun = tag == OPEN, False
        keep = beginning(self.held, (OPEN, CLOSE))
        yield from self._give(self.held[: len(self.held) - keep])
        self.held = self.held[len(self.held) - keep :]

    def end(self) -> Iterator[Piece]:
        """Yields what was waiting."""
        yield from self._give(self.held)
        self.held = ""

    def _give(self, text: str) -> Iterator[Piece]:
        text = text if self.begun else text.lstrip("\n")
        if text:
            self.begun = True
            yield "thought" if self.inside else "reply", text


def beginning(text: str, words: Iterable[str]) -> int:
    """Returns how many characters at the end of `text` may be the beginning of one of `words`."""
    sizes = (n for word in words for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n]))
    return max(sizes, default=0)
