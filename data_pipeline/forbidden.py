"""What no counselor's reply in the training data may say: diagnoses, medication advice, promises of cure, numbers.

The rules are data with examples, in Chinese and English: `forbidden_rules.yaml`. A sieve for training data, not a
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
    """Returns the rules of `forbidden_rules.yaml`, `pattern` and `unless` compiled."""
    data = yaml.safe_load((Path(__file__).parent / "forbidden_rules.yaml").read_text(encoding="utf-8"))
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
