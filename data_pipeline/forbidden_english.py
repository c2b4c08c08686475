"""As `data_pipeline/forbidden.py`, for English: what no counselor's reply in the training data may say.

Ours, and as narrow: a rule reads one clause and is silent where the clause asks, denies, or tells what others said.
`hits` and `misses` are its tests.
"""

import re

from data_pipeline.forbidden import Rule

_DISORDER = (
    r"(?:depression|clinical(?:ly)? depress\w*|\w+ disorder|ptsd|ocd|adhd|bpd|bipolar|schizophreni\w+|psychosis"
    r"|autis\w+|anorexi\w+|bulimi\w+|an? phobia)"
)
_DRUG = (
    r"(?:medication|medicine|meds|pills?|tablets?|antidepressants?|ssris?|sertraline|zoloft|fluoxetine|prozac|lexapro"
    r"|escitalopram|citalopram|paroxetine|venlafaxine|xanax|alprazolam|lorazepam|ativan|quetiapine|lithium|melatonin"
    r"|benzodiazepines?|sleeping aids?)"
)
_TOLD = (
    r"\b(?:doctor|psychiatrist|physician|prescri\w+|pharmacist|clinician|professional"
    r"|you (?:said|mentioned|told|wrote|feel))\b"
)

RULES = (
    Rule(
        "diagnosis",
        r"\b(?:you(?:'re| are)? (?:(?:probably|clearly|likely|definitely|may|might|must|seem to|appear to|do) )?"
        r"(?:have|suffer\w*(?: from)?|meet the criteria for|show signs of)|you are|you're|this is|that is|that's|it's"
        r"|sounds like|looks like|diagnos\w+ (?:is|of)|consistent with|symptoms? of|sign of)\b"
        rf".{{0,25}}?\b{_DISORDER}\b",
        rf"{_TOLD}|n't\b|\b(?:not|whether|if|worr\w+|afraid|fear|wonder\w*|living with|been diagnosed|were diagnosed"
        r"|can't say|label)\b",
        (
            "You have depression",
            "it sounds like you are suffering from clinical depression",
            "This is a clear case of bipolar disorder",
            "what you describe is consistent with PTSD",
            "You probably have an anxiety disorder.",
        ),
        (
            "You worry that you might have depression",
            "Do you have depression?",
            "it is not a disorder to feel this way",
            "your doctor told you that you have ADHD",
            "you have been carrying this alone",
            "that sounds like a heavy sadness",
            "you were diagnosed with bipolar disorder last year",
        ),
    ),
    Rule(
        "medication advice",
        r"\b(?:you (?:should|could|can|might|may want to|need to|ought to)|try|consider|start|stop|quit|increase|reduce"
        r"|lower|double|halve|skip|i(?:'d)? (?:recommend|suggest))\b"
        rf".{{0,30}}?\b{_DRUG}\b|\b\d+\s?(?:mg|milligrams?)\b",
        rf"{_TOLD}|n't\b|\b(?:not|without|whether|never|instead of|rather than|before|talk|remind\w*|feel)\b",
        (
            "You should try an antidepressant",
            "stop taking your medication",
            "start with 50 mg a day",
            "I suggest some melatonin",
            "you could take sleeping pills",
        ),
        (
            "please talk to your doctor about your medication",
            "Don't stop taking your medication on your own",
            "you mentioned that you take medication",
            "you can take a walk",
            "it takes courage to start",
        ),
    ),
    Rule(
        "promise",
        r"\b(?:i (?:promise|guarantee)|i can promise|guaranteed|definitely|certainly|surely|for sure|100 ?%"
        r"|without (?:a )?doubt|completely|fully)\b"
        r".{0,40}\b(?:better|cured?|heal(?:ed)?|recover(?:ed)?|fine|okay|ok|go away|disappear|overcome)\b"
        r"|\b(?:you|this|it) will (?:be|get) (?:completely |fully )?(?:cured|healed|better|fine)\b",
        r"n't\b|\b(?:not|cannot|no one|nobody|if|hope|may|might|whether|understand\w*|deserve)\b",
        (
            "I promise you will feel better",
            "you will definitely recover",
            "You will be fine",
            "this can be completely cured",
        ),
        (
            "no one can promise that it gets better",
            "I hope you feel better soon",
            "it is okay to be completely exhausted",
            "you might feel better after a rest",
        ),
    ),
    Rule(
        "contact number",  # only the guidance names numbers, each with its source
        r"\d[\d\s()-]{5,}\d|\b(?:call|dial|text|phone|ring|hotline|lifeline|helpline)\b\D{0,15}\d{3,}",
        r"(?!)",
        ("call 988 now", "text HOME to 741741", "reach them at 1-800-273-8255", "the hotline is 116123"),
        ("call a friend for 10 minutes", "from 2019 to 2021", "it has been 120 days"),
    ),
)

_COMPILED = [(rule.name, re.compile(rule.pattern), re.compile(rule.unless)) for rule in RULES]
_CLAUSE = re.compile(r"[^,;.!?\n—]+[?]?")
_LATIN = re.compile("[a-zA-Z]{3}")


def find_forbidden(text: str) -> list[tuple[str, str]]:
    """Returns (rule, the words) of each forbidden statement in English, by rule, in its order."""
    if not _LATIN.search(text):
        return []
    clauses = [match[0].strip() for match in _CLAUSE.finditer(text.lower().replace("’", "'"))]
    return [
        (name, match[0])
        for name, pattern, unless in _COMPILED
        for clause in clauses
        if clause and (match := pattern.search(clause)) and not unless.search(clause) and clause[-1] != "?"
    ]
