"""What no counselor's reply in the training data may say: diagnoses, medication advice, promises of cure, numbers,
requests for money and secrets.

The rules are data with examples, in Chinese and English: `reply_rules.yaml`. A sieve for training data, not a
judgement of any reply.
"""

import re
from functools import lru_cache
from pathlib import Path

import yaml

_CHINESE_CLAUSE = re.compile(r"[^，,。；;！!？?\n]+[？?]?")
_ENGLISH_CLAUSE = re.compile(r"[^,;.!?\n—]+[?]?")
_LATIN = re.compile("[a-zA-Z]{3}")


@lru_cache(1)
def forbidden_rules() -> list[dict]:
    """Returns the rules of `reply_rules.yaml`, `pattern` and `unless` compiled."""
    data = yaml.safe_load((Path(__file__).parent / "reply_rules.yaml").read_text(encoding="utf-8"))
    for rule in data["rules"]:
        for key in ("pattern", "unless"):
            pattern = rule[key].replace("\n", "")
            for name, part in data["parts"][rule["language"]].items():
                pattern = pattern.replace(f"${name}", part)
            rule[key] = re.compile(pattern)
    return data["rules"]


def find_forbidden(text: str) -> list[tuple[str, str]]:
    """Returns (rule, the words) of each forbidden statement in `text`, Chinese and then English, by rule, each once."""
    said = {"zh": [clause for clause in _CHINESE_CLAUSE.findall(text) if clause[-1] not in "？?"], "en": []}
    if _LATIN.search(text):
        clauses = map(str.strip, _ENGLISH_CLAUSE.findall(text.lower().replace("’", "'")))
        said["en"] = [clause for clause in clauses if clause and clause[-1] != "?"]
    found = (
        (rule["name"], match[0])
        for rule in forbidden_rules()
        for clause in said[rule["language"]]
        if (match := rule["pattern"].search(clause)) and not rule["unless"].search(clause)
    )
    return list(dict.fromkeys(found))


# Names of disorders and manuals, Chinese and English: what a reply must not be first to name. Ours, and only names that
# no one uses for a mood: "抑郁" and "anxiety" are none, "抑郁症" and "anxiety disorder" are.
_NAMES = {  # what is counted as one name: its pattern, on lower-case text
    "depression": r"抑郁(?:性)?(?:症|障碍|发作)|重度抑郁|恶劣心境|(?:major|clinical) depression"
    r"|depressive (?:disorder|episode)|clinically depressed|dysthymi",
    "anxiety disorder": r"焦虑(?:性)?(?:症|障碍)|惊恐(?:症|障碍|发作)|社交?恐[惧怖]症|广场恐[惧怖]|恐[惧怖]症"
    r"|(?:anxiety|panic|phobic) disorder|agoraphobia|social phobia",
    "obsessive-compulsive disorder": r"强迫(?:性)?(?:症|障碍)|obsessive.compulsive|(?<![a-z])ocd(?![a-z])",
    "bipolar disorder": r"双相(?:情感)?障碍|双相情感|躁郁症|躁狂(?:症|发作)|bipolar|manic episode|cyclothymi",
    "psychosis": r"精神分裂|精神病(?!学|院|房)|妄想症|schizophreni|schizoaffective|psychosis|psychotic disorder",
    "personality disorder": r"人格障碍|边缘型人格|personality disorder|(?<![a-z])bpd(?![a-z])",
    "trauma disorder": r"创伤后应激|应激障碍|适应障碍|ptsd|post.?traumatic stress|(?:adjustment|acute stress) disorder",
    "eating disorder": r"进食障碍|神经性?(?:厌食|贪食)|厌食症|贪食症|暴食症|eating disorder|anorexia|bulimi",
    "developmental disorder": r"多动(?:症|障碍)|注意(?:力)?缺陷|自闭症|孤独症|阿斯伯格|adhd|attention.deficit"
    r"|autis[mt]|asperger",
    "somatic disorder": r"疑病症|躯体(?:化|形式)障碍|转换障碍|神经衰弱|神经症|hypochondria|somati[sz]ation"
    r"|(?:somatic symptom|conversion) disorder",
    "dissociative disorder": r"分离(?:性)?(?:身份)?障碍|解离(?:性)?障碍|dissociative (?:identity )?disorder",
    "manual": r"(?<![a-z])dsm(?![a-z])|(?<![a-z])icd.?1[01](?!\d)|诊断(?:标准|手册)|diagnostic criteria",
}  # fmt: skip
_COMPILED = {name: re.compile(pattern) for name, pattern in _NAMES.items()}


def named_diagnoses(text: str) -> set[str]:
    """Returns which disorders the text names, and "manual" if it names DSM, ICD or their criteria."""
    text = text.lower()
    return {name for name, pattern in _COMPILED.items() if pattern.search(text)}
