"""What no counselor's reply in the training data may say: diagnoses, medication advice, promises of cure, numbers.

Ours, and deliberately narrow: a rule reads one clause and is silent where the clause asks, denies, or tells what a
doctor said. `hits` and `misses` are its tests. A sieve for training data, not a judgement of any reply.
"""

import re
from typing import NamedTuple

_DISORDER = (
    r"(?:抑郁症|焦虑症|强迫症|恐[惧怖]症|躁郁症|躁狂症|精神分裂|双相(?:情感)?障碍|人格障碍|惊恐障碍|适应障碍|焦虑障碍|"
    r"抑郁障碍|创伤后应激障碍|PTSD|ADHD|多动症|厌食症|贪食症|暴食症|疑病症|神经症|孤独症|自闭症|精神病)"
)
_DRUG = (
    r"(?:药|舍曲林|氟西汀|帕罗西汀|西酞普兰|文拉法辛|度洛西汀|百忧解|阿普唑仑|艾司唑仑|劳拉西泮|奥氮平|喹硫平|碳酸锂|"
    r"丙戊酸|思诺思|唑吡坦|褪黑素)"
)


class Rule(NamedTuple):
    name: str
    pattern: str
    unless: str  # in the same clause
    hits: tuple[str, ...]
    misses: tuple[str, ...]


RULES = (
    Rule(
        "diagnosis",
        rf"(?:(?:你|您|这|情况|表现|症状).{{0,10}}(?:是|患|得|有|属于|符合|确诊|达到)|确诊|典型|属于).{{0,6}}{_DISORDER}",
        r"是否|是不是|有没有|如果|假如|要是|万一|担心|害怕|怀疑|以为|觉得自己|不是|不一定|未必|不等于|不代表|不能|无法|没有|"
        r"医生|医院|医师|评估|(?:你|您)(?:提到|说|写|告诉|查|问)|不意味|并非|之前|曾|多年|被诊断",
        (
            "你这是典型的抑郁症",
            "从你的描述看，你患有焦虑症。",
            "您应该是双相情感障碍",
            "这已经符合强迫症的标准了",
            "听起来属于惊恐障碍",
        ),
        (
            "你担心自己是不是得了抑郁症",
            "是否属于焦虑症，需要医生当面评估。",
            "心情低落不等于你有抑郁症",
            "你提到医院给出的结果是抑郁症，这一定不好受",
            "你和抑郁症相处了这么久",
            "你之前被诊断为焦虑症",
        ),
    ),
    Rule(
        "medication advice",
        rf"^(?=.*(?:可以|建议|试|应该|不妨|先|最好|需要|就|把|吧|记得|要|别再|没关系|不要紧))"
        rf".*?(?:(?:服用|服|吃|用|换成?|停掉?|停用|停|加大?|减少?|加量|减量|买|开).{{0,8}}{_DRUG}"
        rf"|{_DRUG}.{{0,4}}(?:减半|停|加量|减量))|\d\s*(?:mg|毫克)"
        r"|(?:每[天日次晚]|一[天日次]|睡前|早晚).{0,6}[\d一二两三四半][片粒颗]",
        r"医生|医师|医嘱|医院|药师|(?:不要|别|不能|切勿|不建议)(?:自行|擅自|自己|随意|轻易|盲目|突然)|擅自|是否|要不要|"
        r"(?:你|您)(?:提到|说|写|告诉|一直|已经|正在|现在|最近|目前)|吃药的|不是|不想|用心|之前|曾|感受",
        (
            "可以先吃点安眠药",
            "建议你服用舍曲林",
            "感觉好了就把药停掉吧",
            "停药没关系",
            "每天半片就够",
            "睡前吃5毫克褪黑素",
            "把药减半试试",
            "以后别再吃抗抑郁药了",
        ),
        (
            "用药的事请和医生商量",
            "不要自行停药",
            "你已经吃了两个月的药，还是睡不着，一定很累",
            "慢慢来，用心感受",
            "你提到最近在换药",
            "吃安眠药并不是解决问题的好办法",
            "它只是生活中小小的一片",
        ),
    ),
    Rule(
        "promise",
        r"(?:保证|一定(?:会|能|可以)|肯定(?:会|能|可以)|绝对(?:会|能|可以)?|百分之百|100%|必然|必定|包).{0,10}"
        r"(?:好起来|变好|治好|治愈|痊愈|康复|恢复|走出|根治|没事|消失|解决(?!问题|方法|办法|方案))|(?:彻底|完全)(?:可以|能够?|会)?"
        r"(?:治好|治愈|痊愈|根治|康复)|(?:可以|能够?|会)(?:被)?(?:彻底|完全)(?:治好|治愈|痊愈|根治|康复|消失)",
        r"不能保证|没法保证|无法保证|不敢保证|没有人能|谁也不能|不一定|未必|不会|如果|希望|相信|祝|不必",
        ("你一定会好起来的", "坚持三个月，保证痊愈", "抑郁完全可以根治", "肯定能走出来的", "这种情绪会彻底消失"),
        (
            "没有人能保证马上好起来",
            "不一定要立刻变好",
            "我相信你一定能走出困境",
            "一定能找到解决问题的方法",
            "很多人后来慢慢走了出来",
            "这一定让你很难受",
        ),
    ),
    Rule(
        "contact number",  # only the guidance names numbers, each with its source
        r"\d[\d\s-]{5,}\d|(?:拨打|拨|致电|打|热线|电话|微信|QQ|号码)\D{0,8}\d{3,}",
        r"(?!)",
        ("请拨打12320", "可以打 010-82951332", "热线是：400 161 9995", "打120"),
        ("你已经坚持了120天", "2023年到2024年", "给朋友打个电话，聊10分钟"),
    ),
)

_COMPILED = [(rule.name, re.compile(rule.pattern), re.compile(rule.unless)) for rule in RULES]
_CLAUSE = re.compile(r"[^，,。；;！!？?\n]+[？?]?")


def find_forbidden(text: str) -> list[tuple[str, str]]:
    """Returns (rule, the words) of each forbidden statement in `text`, by rule, in its order."""
    clauses = [match[0] for match in _CLAUSE.finditer(text)]
    return [
        (name, match[0])
        for name, pattern, unless in _COMPILED
        for clause in clauses
        if (match := pattern.search(clause)) and not unless.search(clause) and clause[-1] not in "？?"
    ]
