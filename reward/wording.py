"""The words around answers, in Chinese and English: what announces one, hedges it, denies it, or is no answer at all.

`reward/answer.py` puts them together. Every expression is linear in the length of the text.
"""

import re
import unicodedata
from typing import Protocol, cast


class Always(Protocol):
    """An expression that matches everywhere, if only the empty text."""

    def match(self, string: str, pos: int = 0, /) -> re.Match[str]: ...


def _always(pattern: str, flags: re.RegexFlag = re.NOFLAG) -> Always:
    return cast(Always, re.compile(pattern, flags))


# Each expression begins with one character class, which `re` searches many times faster than an alternation.
USUAL = (("：", ":"), ("，", ","), ("（", "("), ("）", ")"), ("；", ";"), ("？", "?"), ("！", "!"), ("\u3000", " "))
OTHER_FORMS = re.compile("[！-～\u2460-\u24ff\u00a0\u2000-\u200a\U0001d400-\U0001f16f]")
TO_CLEAN = re.compile(
    "[！-～\u2460-\u24ff\u00a0\u2000-\u200a\U0001d400-\U0001f16f"
    "\u00ad\u200b-\u200f\u2060\ufeff\ufe0f*`~<\\\\\r\u2028\u2029\x0b\x0c]"
)
BLANKS = re.compile("[ \\t]{2,}|\\t")
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff\ufe0f*`~]+")
MARKS = re.compile(
    r"[<\\](?:(?<=<)(?:\|[a-z_]+\|>|/?(?:s|p|b|i|em|div|span|strong|li|ul|ol|h[1-6])>)|(?<=\\)(?:text|math)[a-z]*)"
)
BREAKS = re.compile(r"[\r<\\\u2028\u2029\x0b\x0c](?:(?<=\r)\n?|(?<=<)br\s*/?>|(?<=\\)n(?![a-z])|(?<![\r<\\]))")


def normalise(text: str) -> str:
    """Returns the text with full-width letters and punctuation made plain, without marks of Markdown, HTML, LaTeX."""
    if not text.isascii():
        for full, plain in USUAL:  # NFKC alone would take longer than all the rest
            text = text.replace(full, plain)
    if "\t" in text or "  " in text:
        text = BLANKS.sub(" ", text)
    if TO_CLEAN.search(text):
        if OTHER_FORMS.search(text):
            text = unicodedata.normalize("NFKC", text)
        text = MARKS.sub("", BREAKS.sub("\n", INVISIBLE.sub("", text)))
    return text


# What stands between the words that announce an answer and its letters.
OPENERS = "[\\s\"'“”‘’(\\[{<【「『《$\\\\:>】》」_#|-]"
BE = r"(?:\s*(?:应\s*该?\s*|应\s*当\s*|显\s*然\s*|就\s*|只\s*能\s*|必\s*须\s*)?(?:是|为|选\s*择?|即|有|如\s*下)?)"
# `\s*+` gives nothing back: several stretches of optional blanks in a row would else take cubic time.
CUE = re.compile(
    r"""[答选正符恰合准最解AaOoCcSsPpGg\\](?:
    (?<=答) \s*案 (?:\s*(?:选\s*项|选\s*择|字母|编号))? BE
  | (?<=答)(?<![一-龥]答) \s* :
  | (?<=解) \s*答\s*】
  | (?<=选) \s* (?: 择? \s* (?:的?\s*(?:是|为))? \s* :?
                 | 项 \s* (?:应\s*)?(?:是|为|:)
                 | 择?\s*的?\s*(?:答\s*案|选\s*项)\s*(?:是|为|:)? )
  | (?: (?<=正)\s*确 | (?<=符)\s*合\s*题\s*意 | (?<=恰)\s*当 | (?<=合)\s*适 | (?<=准)\s*确 | (?<=最)\s*佳 )
      \s*+ 的? \s*+ (?:选\s*项|说\s*法|描\s*述|表\s*述|一\s*项|项)? \s*+ (?:应\s*该?|应\s*当)? \s*+
      (?:是|为|有|包\s*括|:) \s* :?
  | (?<=[AaOoCc])(?<![/A-Za-z-].)
      (?i: (?<=a)nswer(?:s|_letters?)?
         | (?:(?<=o)ption|(?<=c)hoice) (?: (?=\s*(?:is\b|:)) | s?(?=\s+(?:is|are)\b) ) ) (?:["'】\])}]|\s)*
      (?i: (?:should|would|must)\s+be\b | is\b | are\b |:|>|\#|\n )? \s* (?i:(?:clearly|definitely|therefore|thus)\b)?
  | (?<=[CcSsPpGg])(?<![A-Za-z].) (?i: (?<=c)hoose | (?<=s)elect | (?<=p)ick | (?<=g)o\s+with ) \b
  | (?<=\\)boxed
)""".replace("BE", BE),
    re.VERBOSE,
)
GAP = _always(rf"(?:{OPENERS}|\\boxed|选项|字母|只有|仅|(?:option|choice|letter)\b)*", re.IGNORECASE)

# Words in the same sentence that make a cue something else than a statement of one's own answer.
NEGATED = re.compile(
    r"(?:不|别|勿|没有?|未|并?非|不是|不能|不应该?|不可以?|不宜|不会|不该|无需|错误的?|错|误|有误的?|干扰|排除|不正确的?|不符合的?|"
    r"(?:别|不要|勿)[^,。]{0,4}|never|not|don't|n't|wrong|incorrect|other)\s*$",
    re.IGNORECASE,
)
CONDITIONAL = re.compile(
    r"可能|也许|或许|大概|似乎|好像|不确定|不太确定|说不定|猜|倾向|为什么|为何|怎么|容易|"
    r"有人|有些人|有的|同学|考生|是否|能否|例如|比如|譬如|格式|"
    r"\b(?:maybe|perhaps|might|could|why|probably|possibly|unsure|guess|format|for example)\b",
    re.IGNORECASE,
)
EACH = re.compile(
    r"(?:each|every|all|other|the|these|following|following\s+are)\s*(?:the\s+)?(?:answer\s+)?\Z", re.IGNORECASE
)
IF = re.compile(r"如果|假如|假设|要是|倘若|除非|若|\b(?:if|unless|whether)\b", re.IGNORECASE)
SENTENCE_END, CLAUSE_END = re.compile(r"[。!?\n;]"), re.compile(r"[,:、]")
SO_WORD = re.compile(r"因此|因而|所以|故|综|应|therefore|thus|hence|\bso\b", re.IGNORECASE)

HEDGED = re.compile(
    r"[ \t{}]*(?:选项|项|[\"'”’)\]}】」]|\([^()\n]{0,30}\))?[ \t]*[,、(]?[ \t]*"
    r"(?:(?:或者?|抑或|还是|/|\||or\b|至|到|-|—|>|<)[ \t{}]*(?:是|选|为|者|option|选项)?"
    r"[ \t]*[\"'(\[]?[ \t]*[A-Za-z](?![A-Za-z])"
    r"|(?:也|还|又)?(?:都|均)?(?:有)?(?:可能|也可以|也行|之一|之间|中的|以外|之外|除外)|(?:maybe|perhaps|probably)\b)"
    r"|[ \t\"'”’)\]}】」]*[,;]?[ \t]*(?:如果|若|要是|否则|不然|\b(?:otherwise|unless|if)\b)"
)
DENIED = re.compile(
    r"[ \t]*[\"'”’)\]}】」]?[ \t]*(?:选项|项|两项|三项)?[ \t]*"
    r"(?:是|为|都|均|皆|也|则|全|显然|明显|的?说法|的?描述)*[ \t]*"
    r"(?:吗|\?|错|不|有误|排除|并非|无关|(?:is|are)\s+(?:not|wrong|incorrect|false)|isn't|aren't|wrong|incorrect)"
)
# What may follow a letter directly, without a blank: else it is part of a word ("A型人格", "ABC理论").
AFTER = re.compile(
    r"选|项|是|为|正|都|均|皆|全|两|三|四|五|六|这|最|才|更|即|因|由|符|属|对|答|和|与|及|以及|或|还|中|以外|之|除|错|不|有|也|则|吗|至|到|而"
)
AFTER_LOWER_CASE = re.compile(r"[\s\"'”’)\]}】」]*(?:[。.,;、!$]|\Z|\n|选项|项|\)|and\b|和)")
NOT_AN_OPTION = re.compile(r"[ \t]*(?:型|类|组|理论|量表|疗法|级|因素|人格|因子|等级)")
NOUN = re.compile(r"[ \t]+[a-z]")  # "Answer: A person who ..."
ENGLISH_AFTER = re.compile(
    r"[ \t]+(?:and|or|because|since|as|is|are|which|for|due|but|not|maybe|perhaps|option|only)\b"
)
SEPARATOR = _always(
    r"(?:[\s,、;.&+\"'“”‘’()\[\]{}$]|和|与|及|以及|还有|\band\b|选项|项(?!目)|option\b)*", re.IGNORECASE
)
LETTER = re.compile(r"[A-Za-z]+")
BULLET = _always(r"[ \t]*(?:[-•·]|\d+[.、)])?[ \t]*")
AFTER_LETTER = _always(r"[\s\"'”’)\]}】」]*[.、:,)\-]?[ \t]*")
PARENTHESIS = re.compile(r"[ \t]*\([^()\n]{1,80}\)")
# "因此 B 项正确", "B 是正确答案": the letters come first.
SO = re.compile(
    r"(?:因此|因而|所以|故|综[^\s,]{1,6}|由此可见|可见|总之|总的来说|therefore|thus|hence|so|in conclusion)\s*,?\s*"
    r"(?:只有|仅有|仅)?(?:选项|option)?\s*[\"'(\[]?\Z",
    re.IGNORECASE,
)
REST_OF_LINE = re.compile(r"(?:[^\S\n]|[\"'”’)\]}】」。.!;,$_|:])*+(?=\n|\Z)")  # nothing that says more
LINE_END = re.compile(r"[。.!]?\s*(?:\n|\Z)")
RIGHT = re.compile(
    r"(?P<run>[A-Z](?<![A-Za-z].)(?:[\s、,和与及]{0,4}(?:and\s+)?[A-Z]){0,25})[\"')\]]?\s*+"
    r"(?:两|三|四)?(?:选项|项)?\s*+(?:都|均|才)?\s*+"
    r"(?:(?:是|为)\s*+(?:本题的?|最)?\s*+(?:正确|最佳|恰当|合适)的?(?:\s*(?P<noun>答案|选项))?"
    r"|(?:正确|符合题意)|(?:is|are)\s+(?:the\s+)?(?:correct|right|best)(?:\s+(?P<noun2>answer|option|choice)s?)?)"
    r"(?=[\s。.,!;)]|$)"
)
# The usual case, read at once: letters, and the text ends or an explanation begins.
AT_ONCE = re.compile(r"[A-Z](?:[、,]? ?[A-Z])*(?=[。.]?[ \t]*(?:\Z|\n\s*(?:解析|分析|理由|说明|因为|本题|\Z)))")
ONLY_LETTERS = re.compile(
    r"[\s\"'“”‘’(\[{【「『《$\\#>|_-]*[A-Z](?:(?:[\s,、;.&+)(\"']|和|与|及|and)*[A-Z])*"
    r"[\s\"'“”‘’)\]}】」』》$。.,!;|_-]*"
)
OPENING = re.compile(r"[A-Z](?:[ 、,]{0,2}[A-Z])*(?=。)")  # "AC。因为……"
WITH_TEXT = re.compile(r"[\s\"'“”‘’(\[{【「『《#>-]*(?P<letter>[A-Z])[\"')\]}】」]*\s*[.、:)]*\s*(?P<text>.+)")
