"""Text made plain, and words of Chinese and English by what they do to letters before or after them (`answer.py`)."""

import re
import unicodedata

TEXT = "\ue000"  # stands for an option's own text behind its letter
_OTHER_WIDTH = re.compile("[^\0-~、。一-龥]+")
_MARKS = [  # of LaTeX, HTML, JSON and Markdown, in this order
    (re.compile(r"\r\n?|[\u2028\u2029\x0b\x0c\x85]|\\n(?![a-z])|\\\\|<br\s*/?>"), "\n"),
    (re.compile(r"\\(?:text|math)[a-z]*\s?\{([^{}\n]*)\}"), r"\1"),
    (re.compile(r"\}[ \t$]{0,4}(?:[,、和与]|and\b)[ \t$]{0,4}\\boxed\s?\{"), ","),  # boxes side by side are one
    (re.compile(r"(\\boxed\{[^{}\n]{0,20})\}(?=[ $]{1,3}[A-Z])"), r"\1;"),
    (re.compile(r"\\boxed\b"), " boxed:"),
    (re.compile(r"\\(?:vee|lor)\b"), " or "),
    (re.compile(r"\\(?:[,;:! ()\[\]]|q?quad\b|left\b|right\b)"), " "),
    (re.compile(r"<((?:final_)?answer|choice|答案)>", re.IGNORECASE), r"\n\1: "),
    (re.compile(r"</?[a-zA-Z|][^<>\n]{0,30}>"), "\n"),
    (re.compile(r"(?<![A-Za-z])'|'(?![A-Za-z])|~~|\\(?=[&%])|[\u2600-\u2704\u2706-\u2712\U0001f000-\U0001faff]"), ""),
    (re.compile('["“”‘’「」『』【〔〕\\[\\]{}$`*#\u00ad\u200b-\u200e\u2060\ufeff\ufe0f]+'), ""),
    (re.compile(r"[_ \t]+"), " "),
    (re.compile(r"(?<=或)\s*\n\s*|(?<= or)\s*\n\s*"), "\n或 "),
    (re.compile(r"^ ?(?:(?:[-•·>+*#]+|\d{1,2}[.)、](?!\d)) ?){1,4}", re.MULTILINE), ""),
]


def normalise(text: str) -> str:
    """Returns the text in plain width, with one kind of line break, without marks of Markdown, HTML, LaTeX and JSON."""
    text = _OTHER_WIDTH.sub(lambda match: unicodedata.normalize("NFKC", match[0]).replace("】", ":"), text)
    for mark, plain in _MARKS:
        text = mark.sub(plain, text)
    return text.strip()


# fmt: off
def _words(chinese: str, english: str) -> re.Pattern[str]:
    return re.compile(rf"{chinese}|\b(?:{english})\b", re.IGNORECASE)

def _after(pattern: str) -> re.Pattern[str]:  # for what stands behind some letters
    return re.compile(rf"[ )]*{TEXT}?[ )]*(?:{pattern})", re.IGNORECASE)

def _before(pattern: str) -> re.Pattern[str]:  # for what stands directly before them; the case matters to "[^A-Z]"
    return re.compile(rf"(?:{pattern})\Z")

# What stands before letters that are stated, and what may stand between it and them.
_IS = r"(?:是|为|即|(?<=[a-z ])(?:is|are|was|be)\b|'s\b)"
_BE = rf"(?:{_IS}|有|包括|[:=→])"
_FILL = (rf"(?i:[ ({TEXT}>—-]|{_BE}|应该?|应当|当然|显然|就|只能?|必须|一定|肯定|无疑|选择?|如下|属于|选?项|字母|仅|"
    r"最终|(?:the|should|would|must|will|clearly|definitely|therefore|thus|option|choice|letter|both|only)s?\b)*")
ANNOUNCED = _before(rf"(?i:答案|(?<![一-龥])答(?=\W)|(?<!可)选择?(?!项)|结论|结果|最终|所以|因此|因而|故|综上|可见|"
    rf"剩下?|[只仅唯]有|boxed|ans\.|\b(?:answers?|ans|choose|select|pick|go with|conclusion|final|so|thus|therefore|"
    rf"hence|leav(?:es|ing)|only)\b),?(?: it)?{_FILL}|(?i:选项|options?|choices?)[^,。;:.\nA-Z]{{0,9}}?{_IS}{_FILL}|"
    rf"(?i:正确|符合|恰当|合适|准确|最[佳优好]|\b(?:right|correct|best))[^,。;.\nA-Z]{{0,15}}?{_BE}{_FILL}")
STANDS_FOR = _before(rf"{ANNOUNCED.pattern}|{TEXT} ?(?:[、和与及]|以及|and) ?")  # "视觉、听觉" is A and B
ENDED = _before(f"[A-Z{TEXT}] ?[。;!.] ?")  # "视觉。听觉。"
BESIDE = _before(rf"(?:(?<![A-Za-z])[A-Z]|{TEXT}(?! ?[、和与及])) ?[ ).:,、=(项—-]{{0,5}}(?:就是|即|指|[a-z]+:)? ?|"
    r"[许能或]者?[是为]?")
NAMED = _before(rf"(?i:{_IS}|[改换][为成选]|\b(?:say|arrive at)\b){_FILL}|\A[^,.;:]*(?i:选项|option|choice) ?: ?")
# What stands after them: the end of the clause, the reason, or a word that calls them right.
_NOUN = r"(?:选?项|这?[一二两三四五六](?:个选)?[项个]|[吧了呀啊啦哦]|\b(?:options?|choices?)\b| )*"
_WHY = "由于|而|不(?!如|及)|(?:because|since|as|not|rather|instead)\\b"
ALONE = _after(rf"{_NOUN}(?:[,.;!?。、()→—-]|boxed|\n|\Z)")
REASONED = _after(rf"{_NOUN}(?::(?! ?\d)|是|因|解析|分析|理由|说明|属|才|{_WHY}|(?:for|due|which|over|is|are)\b)")
OPENS = _after(rf"{_NOUN}[.,]? ?(?:因为|{_WHY}|(?:this|it)\b)")
RIGHT = _after(rf"(?:,(?= ?(?:is|are)\b))?(?:{_NOUN}|的?(?:说法|表述|描述|观点)|也|都|均|全|皆|才|最|更|就|是|为|其实|"
    rf"同样|本?题意?|题干|唯一|的|(?:is|are|must|would|be|the|one|only|that|which|both|all|also|most|clearly|therefore|"
    rf"equally|too)\b)*(?:正确|选(?!项)|对(?![应比于象立抗话照方])|没错|符合|合题意|合适|恰当|正解|答案|最佳|成立|"
    rf"[✓√✔✅]|(?:right|correct|best|answer|fits?|true)\b)")
ALSO = _after(rf"{_NOUN}(?:都|均)?(?:也|亦|同样|更|(?:is|are) (?:also|equally)\b)(?!不)")
NOT_EXCLUDED = _before(r"(?i:(?:或者?是?|\bor|alternatively)[ :,(]*(?:选|option)? ?|\b(?:can't|cannot|not) (?:\w+ )?(?:"
    r"rule out|exclude) )|不(?:[能可]?(?:完全)?排除|如|及|比)[^,。A-Z]{0,4}")
NEGATED = _before(r"(?:(?<!毫)(?<!无)不(?!难|言|仅|外|只|过|[如及比输逊亚得])|非|没(?!有?疑|错)|未|勿|别|误|除|剔|否定|"
    r"干扰)[^,。;A-Za-z\n]{0,7}|(?i:\b(?:not|cannot|never|neither|nor|without|except|anything but|rul\w+ out|"
    r"eliminat\w+|exclud\w+|wrong|incorrect|instead of|rather than|other than|over|unlike)|n't)\b[^,.;A-Z\n]{0,20}")
WRONG = _after(rf"(?:{_NOUN}|[都均也则是为的]|(?:is|are|was|were|can|could|should|would|be|also|clearly|both|"
    rf"all)\b)*(?:[错误非未×✗✘✖❌]|有误|不(?!难|仅|错|[能可]排除)|没(?!错)|可?以?排除|除外|[以之]外|(?:\w+n't|not|"
    rf"wrong|incorrect|false|out|excluded|cannot)\b)")
DENIED_TWICE = re.compile(r"(?i)(?:不(?!同)|没(?!错)|未|非|无(?![关论]))[^,。;:]{0,4}(?:[错误差逊输亚失妨不没无否弱扣漏"
    r"毛瑕挑疑]|排除|指摘|问题)|\b(?:not|cannot|no|nothing|never|hardly|\w+n't)\b +(?:\w+ +){0,2}(?:wrong|worse|bad|"
    r"incorrect|false|less|without|un\w+able|im\w+ible|excluded?|ruled?|flaws?|issues?|problems?|fault\w*|errors?)\b")
RULED_OUT = _words(r"[错误非未没缺偏盾]|不(?![但仅光妨难过如及比输逊相得])|无(?![疑可])|排|混淆|干扰|忽略|相反|过于",
    r"not(?! only)|\w+n't|no|never|wrong|incorrect|false|unrelated|irrelevant|fails?|lacks?|ignores?|neither|nor|only|"
    r"exclud\w+|eliminat\w+|ruled? out|distractors?|opposite|contradicts?|confus\w+|instead|unlike|misle\w+")
RATED = _words(r"更(?![高低大小多少早晚快慢长短])|最(?=[佳优好合贴准恰符接正全可能])|[优佳妥胜赢棒准恰]|较?好|强于|"
    r"比(?![例率如喻])|正[解确]|(?<!绝)对(?=的|[,)]|\Z)|合[适理题]|符合|可[取选行]|可以?(?=\Z|选|算|接受|考虑|给|得|作)|"
    r"才[是对算]|也(?![不没无非未错误])|[亦仍算√✓✔✅真吗呢]|还(?!不|没|原)|同[样等]|(?<![不误])选(?!项)|[给得半满分部]到?.?分|待定|次[之选优]|答案|支持|值得|"
    r"道理|成立|接[近受]|(?<!对)应[该当选]?|认可|考虑|也许|或许|说不定|(?<!自)我(?!们)|只有\Z",
    r"also|too|better|best|more|most|superior|prefer\w*|fits?|works?|right|correct|true|valid|good|well|"
    r"strong\w*|\w+[ai]ble|fine|credit|marks?|equal\w*|close|likely|match\w*|edge|want\w*|counts?|deserv\w+|merits?|holds?|stands?|choice|answer|i")
CONCEDED = _words("虽|似|好像|看起来|看上去|尽管|固然|容易", r"although|though|while|seems?|tempt\w+|may|might|looks?")
CONTRAST = re.compile(r"(?i) ?(?:但|然而|不过|可是|却|其实|but\b|however\b|yet\b|it\b)")
PARTS = re.compile(r"[,;()]|(?=但)|(?= but\b)")
TELLS = _words(r"(?<![但于还总可若])是|(?<!因)为(?!何)|属|指|描述|说(?!法|得)|讲|反映|考[查察]|强调|涉及|侧重|来自|"
    r"由(?!于)|提出|创立|要|会|使|有|在|得到|能|可以|更|代表|特[点征]|表现|\A ?(?:理论|模型|模式|[型组类=]|"
    r"[:—-]+ ?(?:[一-龥]{2}|\w+ \w))|\A(?:选?项|[ )])*(?:options? )?(?:(?:would|could|can|does|has|had|\w{3,}(?:s|ed)|"
    r"refer|describe|involve|reflect|relate|concern|represent|belong|mean|require|rely|focus|deal)\b)",
    r"(?:is|are|was|were) (?:an?|the|about|from|in|for|of|part|(?:\w+ )?\w{3,}(?:ing|ions?|ness|ment|ism|\w{3}y|s))")
DOUBTED = _words(r"可能(?!性)|[也或]许|大概|恐怕|估计|倾向|似乎|没准|说不定|把握|[概几]率|\d ?%|"
    r"[一二三四五六七八九\d]成|暂|[首次备候]选|其次|待定|存疑|要么|任[选意一何]|之[一间]|中.?一|难以|才怪|仅供",
    r"maybe|perhaps|probabl[ey]|possibl[ey]|might|could|may|likely|chance|tentative|lean(?:s|ing)?|seems?|plausible|"
    r"uncertain|alternatives?|second|either|whichever|(?:one|any) of|between|for now|close")
UNSURE = _words(r"不[太大]?确定(?!性)|没有?把握|不知道|拿不[准定]|猜|蒙(?:一个|对|的)|随便|随机|硬币",
    r"not (?:\w+ )?(?:sure|certain)|unsure|guess(?:ing)?|don't know|no idea|coin|random(?:ly)?")
IF = _words(r"格式|例如|比如|譬如|形如|如果|假如|假设|要是|倘若|前提|除非|若|否则|不然|万一",
    r"form(?:at)?|example|if|unless|whether|otherwise|suppose|assum\w+")
IF_FOLLOWS = _after(rf"(?: ?[( ][^,。;)]{{0,9}}的话|[,( ]{{0,3}}(?:{IF.pattern}|[如限](?=[是为属系单多仅])|或|or\b))")
CONCLUDED = _words("所以|因此|故|但|应|综", "so|thus|hence|therefore|but")
ASIDE = _words(r"据[说称]|听说|题库|原[来本]|同学|考生|学生|有人|有的|的人|大家|老师|教材|网上|题目给|输出|为什么|为何|"
    r"难道|是不是|是否|能否|吗|呢|\?|容易|争议|混淆|你[会可]|乍|初看|以为|曾|起初|一开始|最初",
    r"people|students?|many|someone|somebody|textbook|key|why|you (?:may|might)|thought|was going|first|says")
RETRACTED = re.compile(r"(?i)(?:\A|[,。.;!?\n—(-]) ?(?:等[等一]|不对?[,。]|更正|纠正|改[成为选]|再想|任[选意]|请?忽略|"
    r"(?:但?我)?不(?:同意|认[同可]|赞同)|(?:以上|上[面述]|前面)[^,。]{0,6}(?:作废|有误|错|不算)|(?:wait|actually|no|"
    r"hmm|correction|sorry|scratch|on second|i (?:change|take|meant)|ignore|disregard|that was)\b)")
# Letters, and what stands between those of one answer, between alternatives, and between the ends of a range.
LETTERS = re.compile(r"[A-Za-z](?<![A-Za-z0-9].)(?:(?<=[A-Z])[A-Z]{0,25}|(?<=[a-z])[a-z]{0,5})(?![A-Za-z0-9])")
JOINED = _after(rf"(?:选?项)?[ )]*(?:(?:[,、&+]|;(?! )|和|与|以?及|还有|(?<={TEXT})[.。]|\)(?= ?\()|\b(?:and|"
    rf"as well as|also)\b) ?(?:(?:and|also)\b)?[ (]*| (?! ?\()|(?<={TEXT}))(?:选项|option\b)? ?[(]?")
ALTERNATIVES = re.compile(rf"(?i)[ ),、;.。({TEXT}]*(?:或者?是?|还是|抑或|(?:and/)?or\b|即|就是|[/|~<>→?–—-]+|[到至]|"
    rf"(?:to|through|vs)\b\.?)+[ ,(]*(?:maybe|选项?|option|choose|boxed:)?[ (]*")
BARE = re.compile("(?i:选项|肯定|一定|显然|解析|option|choice|both|definitely|clearly|[ :(])*")  # before letters alone
SENTENCE_END = _after(rf"{_NOUN}(?:[。!;]|[.:]? *\Z)")
ITEM = re.compile(rf"[ (]*(?:选项|option )?[A-Za-z](?![A-Za-z])[ )]*{TEXT}?[ ).。]*")  # of a list
ROW = re.compile(rf"[A-Z]{TEXT}(?:[ ,;、。\n(选项]*[A-Z]{TEXT})*")  # of options with their texts
GOES_ON = re.compile(r"[ )]*、(?! ?[A-Z(]|\Z)")  # a list, with what is no letter
CAPITAL = re.compile("[A-Z](?![A-Za-z])")
HEAD = re.compile(r"答案|答$|选择|^选$|answer", re.IGNORECASE)  # of a table's column
SENTENCE = re.compile(r"[。!?;]+|(?<![A-Z])\.(?= |\Z)|(?<=[A-Z])\.(?= [A-Z][a-z]| *\Z)")
CLAUSE = re.compile(r"[,。;!?\n]|\.(?= |\Z)|就|则|那么|\bthen\b")
