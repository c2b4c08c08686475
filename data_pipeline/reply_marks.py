"""What no reply holds: a reply is what the counselor says to the client, and nothing else.

So it has no code fence, no tag that is not HTML's, no closing tag in square brackets or tag there in capitals, no
heading and no line that is the name of a role or of a part of a prompt; it begins neither with a label in brackets nor
with words about the client as somebody else.
"""

import re
from string import ascii_letters

# Names of HTML's elements, which cleaning takes out
HTML = frozenset(
    "a abbr address area article aside audio b base bdi bdo big blockquote body br button canvas caption center"
    " cite code col dd del div dl dt em embed fieldset figcaption figure font footer form h1 h2 h3 h4 h5 h6 head"
    " header hr html i iframe img input ins kbd label legend li link main map mark meta nav noscript object ol"
    " optgroup option p picture pre q ruby s samp script section select small source span strike strong style"
    " sub sup svg table tbody td textarea tfoot th thead time title tr u ul video wbr".split()
)
_THOUGHT = (
    "思考过程|思考|内心独白|内心活动|心理活动|内心|推理过程|推理"
    "|chain.of.thought|cot|thinking|think|thoughts?|reasoning|analysis"
)
_REPLY = "回复|回答|回应|答复|response|reply|answer"
_PARTS = rf"{_THOUGHT}|{_REPLY}|输入|输出|指令|问题|input|output|instructions?|question|prompt|context|scratchpad"
# Who speaks, as `dialogues.ROLES` and other data sets call them
_NAMES = "system|client|user|human|来访者|求助者|counselor|assistant|gpt|心理咨询师|咨询师|支持者|用户|助手|model|bot"

# What is refused has one of SIGNS, begins with one of LABELS, or is seen by `may_have_words`.
SIGNS = r"<＜&【\[◁#`▁ĠĊ户访"  # inside of a character class; 户 and 访 are of 用户 and 来访者, and rare elsewhere
_SIGN = re.compile(f"[{SIGNS}]")
LABELS = frozenset("#*【[（(思内心推回tTrRaAcC")
EDGES = frozenset("（([【）)]】")  # without one of them at the edge of a reply `edge_labels` finds nothing
_LETTERS = frozenset(ascii_letters)
_ROLE_LINE = re.compile(
    rf"\n(?=[\s*_suchagmbSUCHAGMB来求心咨支用助])[^\S\n]*[*_]*(?:{_NAMES})[*_]*[^\S\n]*[:：]?[*_]*[^\S\n]*(?=\n)",
    re.IGNORECASE,
)

_TAG = re.compile(r"(?:<|＜|&lt;)\s?/?\s?([^\W\d][\w:.-]{0,30})\s?(?:>|＞|&gt;)")
_BRACKETED = re.compile(
    rf"[【\[]\s?/?(?:{_THOUGHT})[】\]]"
    r"|[【\[]\s?/\s?\w[\w ]{0,20}[】\]]"  # [/x] closes something
    r"|(?-i:[【\[]\s?[A-Z]{2}[A-Z_ ]{0,20}\d{0,2}\s?[】\]])",  # [SEP]
    re.IGNORECASE,
)
_HEADING = re.compile(
    rf"^[^\S\n]{{0,3}}#+[^\S\n]*[*_]*(?:{_NAMES}|{_PARTS})[^\S\n]*\d*[^\S\n]*[*_]*[^\S\n]*[:：]?[*_]*[^\S\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
_FENCE = re.compile(r"```[^\S\n]*\w*")
_LABEL = re.compile(rf"\s*[#*【\[（(]*\s?(?:{_THOUGHT})[】\]）)]*\**\s*(?:[:：]|\n)", re.IGNORECASE)
_ANSWER = re.compile(rf"^[#*【\[（(]*\s?(?:{_REPLY})[】\]）)]*\**\s*(?:[:：]|$)", re.I | re.M)
_ASIDE = re.compile(rf"\s*[（(*]+\s?(?:{_THOUGHT})[:：]", re.IGNORECASE)  # （内心独白：...）
# Labels at the beginning: 【策略：共情】, [共情], (Reflection). Who is called there, [小林]，你好, is none, nor is the
# number of a part. In round brackets people smile and explain, and 【】 are put around headings: see `edge_labels`.
_NAME = r"[^\W\d][^\s，。！？,.!?；;:：（）()【】\[\]]{0,12}(?:[ _-]\w{1,12}){0,2}"
_WORDS = r"[A-Za-z]+(?:[ /-][A-Za-z]+){0,4}"
_LABELLED = re.compile(
    rf"\s*(?:[（(【\[]\s?{_NAME}[:：][^】\]）)\n]*[】\]）)]?"
    rf"|\[(?![一二三四五六七八九十]{{1,3}}\])(?:[^\W\d]{{1,8}}|{_WORDS})\](?!\s?[,，、])"
    rf"|[（(](?=[A-Z]){_WORDS}[）)](?!\s?[,，、.。])(?=\s*\S))"
)
_EDGE = r"[（(【\[][^()（）【】\[\]\n。！？.!?；;]{2,30}[)）】\]]"  # a label or a gesture; one character is none
_EDGES = (
    ("before", 0, frozenset("（([【"), re.compile(rf"^({_EDGE})(?!\s?[,，、])")),
    ("behind", -1, frozenset("）)]】"), re.compile(rf"({_EDGE})$")),
)
_WORD_IN_BRACKETS = re.compile(r"【(?![一二三四五六七八九十]{1,3}】)[^\W\d]{2,8}】")
_ABOUT = re.compile(  # Okay, the user is saying; 好的，用户提到
    r"[\s#*【\[（(]*(?:(?:okay|ok|alright|all|right|hm+|well|so|now|first|let|me|let's|us|we|i|see|think|need|should|have|try|to"
    r"|understand|respond|reply|looks?|like|it|seems|that|here)\b[\s,.:，。…]*){0,8}"
    r"(?:the|this) (?:user|client|patient)(?:'s\b| (?:is|was|has|had|just|says?|said|wants?|needs?|seems?|feels?|might"
    r"|may|mentions?|mentioned|express\w*|describ\w*|wrote|asks?|asked|with|by|in)\b)"
    r"|\W*(?:(?:好的?|嗯+|那么?|首先|现在|让我[^\s，。]{0,4}|我需要[^\s，。]{0,4}|看起来|从)[，,。：:…\s]*){0,4}"
    r"(?:这[位个名]|该|当前)?(?:用户|来访者|求助者)"
    r"(?:可能|似乎|好像|看起来|现在|目前|正在?|刚|在|说|提到|表示|表达|描述|感到|想|问|的)",
    re.IGNORECASE,
)


def may_have_words(whole: str, begin: set[str]) -> bool:
    """Returns whether a text may hold a mark though it has none of SIGNS; it is of several, some lines each, that begin
    with the characters `begin`, none of which is in LABELS.
    """
    if not begin.isdisjoint(_LETTERS) and (" user" in whole or " client" in whole or " patient" in whole):
        return True
    return "求助者" in whole or _ROLE_LINE.search(f"\n{whole}\n") is not None


def role_line(text: str) -> str:
    """Returns the line that is the name of a role alone; "" without one."""
    return line[0].strip() if (line := _ROLE_LINE.search(f"\n{text}\n")) else ""


def foreign_mark(reply: str) -> str:
    """Returns what in a reply is not said to the client, or parts it in a way that no reader knows; "" without such."""
    mark: re.Match | None = None
    if _SIGN.search(reply):
        tags = [tag for tag in _TAG.finditer(reply) if tag[1].lower() not in HTML]
        mark = tags[0] if tags else _BRACKETED.search(reply) or _FENCE.search(reply)
    if not mark and reply.lstrip()[:1] in LABELS:
        mark = _LABEL.match(reply)
        if mark and not _ANSWER.search(reply, mark.end()) and "\n\n" not in reply[mark.end() :]:
            mark = None
        mark = mark or _ASIDE.match(reply) or _ANSWER.match(reply.lstrip())
        if not mark and (mark := _LABELLED.match(reply)) and _is_cleaned(mark[0]):
            mark = None
    mark = mark or ("#" in reply and _HEADING.search(reply)) or _about(reply)
    return mark[0].strip() if mark else ""


def _about(reply: str) -> re.Match | None:
    """Returns how a reply begins that speaks of its reader as a user, or with a paragraph about a client. Those
    who write have clients of their own, too.
    """
    about = _ABOUT.match(reply)
    return about if about and (" user" in about[0].lower() or "\n\n" in reply[about.end() :]) else None


def _is_cleaned(tag: str) -> bool:
    """Returns whether a tag is an emoticon, a picture's place or a placeholder, with which cleaning deals."""
    from data_pipeline.safety.cleaning import clean_text

    return "已隐去" in tag or not clean_text(tag, flags=False).text.strip()


def edge_labels(replies: list[str]) -> tuple[str, str, int] | None:
    """Returns ("before" or "behind", a label, how many replies have one) where most of the replies begin or end with
    something in brackets, two of them at least: what a data set says of a reply, or a gesture. A word in 【】 before
    the only reply is a label, too. None for others.
    """
    for place, side, signs, pattern in _EDGES:
        found = [text for text in replies if text and text[side] in signs]
        if 2 * len(found) > len(replies):
            tags = [tag[1] for text in found if (tag := pattern.search(text)) and not _is_cleaned(tag[1])]
            if 2 * len(tags) > len(replies) and (len(tags) > 1 or _WORD_IN_BRACKETS.fullmatch(tags[0])):
                return place, tags[0], len(tags)
    return None
