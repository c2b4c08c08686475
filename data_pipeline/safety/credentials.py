"""Keys: what could be one is refused where it stands, before anything is written, and shown nowhere.

A key belongs into an environment variable that a setting names (`api_key_env: NAME`). People put them elsewhere all the
same: on the command line, in a recipe, in an address. What counts is what a name says (`api_key`, `hub_token`), what a
value looks like (`sk-...`), and what the environment holds under the name of a key. It is a net for mistakes.
"""

import os
import re
from collections.abc import Iterator, Mapping

from data_pipeline.errors import BadInput

HIDDEN = "***"
CURE = (
    "what could be a key is taken from the environment alone, and shown and written nowhere: put it into a variable, "
    "and name that one (api_key_env=NAME); that of a tracker, hub or database is read as it is (WANDB_API_KEY, "
    "HF_TOKEN, PGPASSWORD)"
)
_LEAST = 8  # characters of a key in the environment; a shorter one may be a word
# A name that says "key" where names stand: api_key=..., {hub_token: ...}. Not api_key_env, max_tokens, nor eos_token.
_NAME = (
    r"(?:^|[.{,\['\"+~])\s*(?:(?:[a-z0-9]+[_-])*(?:api[_-]?key|(?:access|secret|private|auth|hub|hf)[_-]?(?:key|token)"
    r"|password|passwd|secret|authorization|bearer)|token|credentials?)['\"]?\s*"
)
_NO_KEY = r"(?!['\"]?(?:null|none|true|false|\?\?\?|\d*)['\"]?\s*(?:$|[,}\]\s]))"
_NAMED = re.compile(rf"{_NAME}[:=]\s*{_NO_KEY}[^\s,}}\]]", re.M | re.I)
# In a message: a name with its value
_TOLD = re.compile(rf"({_NAME}(?:=\s*|:\s*(?=['\"])){_NO_KEY}['\"]?)[^\s'\",}}\]]+", re.M | re.I)
_FORMS = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-(?:[\w-]{16,}|(?=[\w-]*\d)[\w-]{8,})|hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}"
    r"|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{8,}|A[KS]IA[0-9A-Z]{12,}|AIza[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}"
    r"|(?i:bearer)\s+[\w.~+/-]{8,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:https?)://[^\s/'\"]*@|[a-z][a-z0-9+.-]*://[^\s/:@'\"]*:[^\s/@'\"]+@"  # who, and with what, in an address
    r"|(?i:[?&](?:api_?key|key|token|access_token|secret|sig|signature)=)[^\s&'\"]+"
)
_HOLDS_A_KEY = re.compile(r"(?:^|_|^PG)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)$")  # names of environment variables


def could_be_key(text: str) -> bool:
    """Returns whether a key may stand in the text: a word of a command line, `name=value` of a setting, a value."""
    return bool(_FORMS.search(text) or _NAMED.search(text)) or any(key in text for key in _of_environment())


def hide_keys(text: str) -> str:
    """Returns the text with *** in the place of what could be a key."""
    for key in _of_environment():
        text = text.replace(key, HIDDEN)
    return _TOLD.sub(lambda told: told[1] + HIDDEN, _FORMS.sub(HIDDEN, text))


def check_words(words: list[str]) -> None:
    """Raises BadInput for a word of a command line that could hold a key; the message shows its name alone."""
    for number, word in enumerate(words, 1):
        if could_be_key(word):
            name = word.partition("=")[0] if "=" in word else ""
            where = name if name and not could_be_key(name) else f"word {number} of the command"
            raise BadInput(f"{where}: {CURE}")


def check_settings(settings: Mapping, where: str = "") -> None:
    """Raises BadInput for a setting, at any depth, that could hold a key; the message shows its name alone."""
    for name, value in leaves(settings, where):
        if could_be_key(name):
            raise BadInput(f"{hide_keys(name)}: {CURE}")
        if isinstance(value, str) and could_be_key(f"{name.rpartition('.')[2]}={value}"):
            raise BadInput(f"{name}: {CURE}")


def check_variable(name: str, key: str) -> str:
    """Returns the name of an environment variable that holds a key; raises BadInput, opening with `key` and without the
    name, for what is none and may be the key itself.
    """
    letters = re.sub("[^0-9A-Z]", "", name)
    random = len(letters) >= 16 and "_" not in name and sum(map(str.isdigit, letters)) >= 3 and name not in os.environ
    if not re.fullmatch("[A-Z][A-Z0-9_]*", name) or random or _FORMS.search(name):
        raise BadInput(
            f"{key}: not the name of an environment variable, such as OPENAI_API_KEY (the value is not shown, "
            "for it may be a key; keys belong in the environment)"
        )
    return name


def key_in(variable: str) -> str:
    """Returns the key that the environment variable holds, "" without one; raises BadInput, which shows nothing of it,
    for one with characters that no HTTP header carries, such as a line break.
    """
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable():
        raise BadInput(f"the key in {variable} has characters that no HTTP header carries (it is not shown)")
    return key


def _of_environment() -> list[str]:
    held = (part for name, value in os.environ.items() if _HOLDS_A_KEY.search(name) for part in value.split())
    return [part for part in held if len(part) >= _LEAST]


def leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Yields (dotted key, value) of all that stands in dictionaries and lists, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner, name)
    else:
        yield name, value
