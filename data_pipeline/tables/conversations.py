"""Turns of dialogues as people's files bring them: under which names and fields, in parts, thoughts in dialects."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.dialogues import MESSAGE_ROLES, ROLES, fault
from data_pipeline.encodings import check_encoding, decode_json
from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Fault, Reject, Turn
from data_pipeline.tables.rows import Layout, Row, table_rows
from reward.thought import leading_thought

THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "think")
# Fields that say where a row comes from, and nothing that anybody said.
PROVENANCE = ("id", "source", "dataset", "split", "lang", "language", "topic", "category", "license", "url", "model",
              "date", "time", "timestamp", "created_at", "version", "uuid", "file")  # fmt: skip
# Fields that say that a turn, or a row, is not trained on: 0 or false there carries meaning.
TRAINED = ("weight", "loss", "loss_weight", "train", "trainable", "learn")
# Who may speak beside client and counselor, at the beginning of a line: 旁白：, 妈妈：, Narrator:
OTHERS = (
    "旁白|画外音|主持人|用户|患者|病人|助手|机器人|AI|督导|督导师|医生|护士|老师|班主任|同学|朋友|室友|妈妈|母亲|爸爸|父亲|丈夫|妻子|老公|老婆|男友|女友|"
    "男朋友|女朋友|儿子|女儿|哥哥|姐姐|弟弟|妹妹|爷爷|奶奶|外公|外婆|narrator|mother|mom|father|dad|husband|wife|son|"
    "daughter|brother|sister|friend|teacher|doctor|nurse|therapist|patient"
)
_NAMES = f"{OTHERS}|{'|'.join(ROLES)}"
_VOICE = re.compile(  # at the beginning of a line
    rf"[^\S\n]*(?:[【（(\[](?P<aside>{OTHERS})[】）)\]](?![^\S\n]*[:：])"
    rf"|[【（(\[]?(?P<name>{_NAMES})(?:[（(][^）)\n]{{0,12}}[）)])?[】）)\]]?[^\S\n]*[：:])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Form:
    """What a recipe says of a file of dialogues, as `options` of its reader."""

    merge: bool = False  # joins turns of one speaker in a row
    roles: Mapping[str, str] = field(default_factory=dict)  # {name: system, client or counselor}, besides ROLES
    ignore: Collection[str] = ()  # fields that are left out
    encoding: str = ""  # "": found
    names: dict[str, str] = field(init=False)  # both together

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", {**ROLES, **self.roles})
        for name, role in self.roles.items():
            if role not in MESSAGE_ROLES:
                raise BadInput(f"options.roles: {name}={role!r}; a role is {', '.join(MESSAGE_ROLES)}")
        if isinstance(self.ignore, str):
            raise BadInput(f"options.ignore={self.ignore}: takes a list, [{self.ignore}]")

        check_encoding(self.encoding, "options.encoding")

    def role(self, name: object) -> str | None:
        """Returns system, client or counselor; None for a name that is not understood."""
        if not isinstance(name, str):
            return None
        return self.names.get(name) or ROLES.get(name.strip().casefold())

    def unknown(self, row: Mapping[str, Any], *known: str) -> Fault | None:
        """Returns the Fault of fields that carry meaning and that a reader does not know: texts, lists and objects."""
        odd = [
            str(name)
            for name, value in row.items()
            if name not in known and name not in self.ignore and name not in PROVENANCE
            and (isinstance(value, str | list | dict) and value or name in TRAINED and not value and value is not None)
        ]  # fmt: skip
        if not odd:
            return None
        return Fault(
            "a field that is not read", f"{', '.join(odd)}; options: {{ignore: [{', '.join(odd)}]}} leaves it out"
        )


def dialogue(
    id: str, source: str, where: str, turns: Iterable, form: Form, thoughts: bool = False, **meta
) -> Dialogue | Reject:
    """Returns the Dialogue that `turns` make, or a Reject whose detail names the turn.

    `turns` are (name of the role, text, thought), the thought None where there is none; or the Fault for which a turn
    cannot be read. With `thoughts` every counselor turn needs one that is not empty. Turns that `form` merges are
    counted in meta["merged_turns"].
    """
    kept: list[Turn] = []
    merged = 0
    for number, turn in enumerate(turns, 1):
        if isinstance(turn, Fault):
            return Reject(id, where, turn.code, f"{turn.detail}, turn {number}")
        name, text, thought = turn
        role = form.role(name)
        if role is None:
            how = "options: {roles: {NAME: client}} maps others"
            detail = f"{name!r}, turn {number}; understood are {', '.join(ROLES)}; {how}"
            return Reject(id, where, "a role that is not understood", detail)
        thought = "" if thought is None else thought
        if not isinstance(text, str) or not isinstance(thought, str):
            what, value = ("thought", thought) if isinstance(text, str) else ("text", text)
            return Reject(id, where, "not a string", f"the {what} of turn {number} ({role}) is {type(value).__name__}")
        if role == "counselor" and thoughts and not thought.strip():
            return Reject(id, where, "an empty thought", f"turn {number} ({role})")
        turn = Turn(role, _clean(text), thought and _clean(thought))
        if voice := _voice(turn, form):
            detail = f"{voice!r} in turn {number} ({role}); {_cure(voice, role, form)}"
            return Reject(id, where, "another voice inside a turn", detail)
        if form.merge and kept and kept[-1].role == role != "system" and turn.content:
            kept[-1].content += "\n" + turn.content
            kept[-1].thought = "\n".join(filter(None, (kept[-1].thought, turn.thought)))
            merged += 1
        else:
            kept.append(turn)
    if lacking := fault(kept):
        return Reject(id, where, *lacking)
    return Dialogue(id, source, kept, {"where": where, **meta, **({"merged_turns": merged} if merged else {})})


def _voice(turn: Turn, form: Form) -> str:
    """Returns who speaks inside a turn beside its speaker, or ""; takes off the speaker's own name before the text."""
    if turn.role == "system":
        return ""
    own = _VOICE.match(turn.content)
    if not own and "\n" not in turn.content:
        return ""
    if own and form.role(own["name"]) == turn.role:
        turn.content = turn.content[own.end() :].lstrip()
    at = 0
    while True:  # at each line
        if match := _VOICE.match(turn.content, at):
            voice = match["name"] or match["aside"]
            if form.roles.get(voice) != turn.role:
                return voice
        if (at := turn.content.find("\n", at) + 1) == 0:
            return ""


def _cure(voice: str, role: str, form: Form) -> str:
    """Returns what to do about a voice inside a turn of `role`. The other speaker's words are not taken for this one's:
    a mapping that does so makes the turns of all dialogues change sides.
    """
    other = form.role(voice)
    if other in (None, role):
        return f"options: {{roles: {{{voice}: {role}}}}} takes it as the {role}'s words"
    return (
        f"that is the {other}: end the turn before this line in the file and begin one of the {other}, or do without it"
    )


def _clean(text: str) -> str:
    return text.replace("\r\n", "\n").strip()


def message_turns(row: list, form: Form, *known: str) -> Iterator[tuple | Fault]:
    """Yields (role, text, thought) of OpenAI messages or sharegpt turns, as `dialogue` takes them.

    A text may come in parts. A thought is what stands marked at the beginning of a reply, in a part of its own, or
    under one of THOUGHT_FIELDS. `known` are further fields of a message that may be passed over.
    """
    plain = {"role", "content", *known}
    for message in row:
        if not isinstance(message, dict):
            yield None, message, None
            continue
        if message.keys() <= plain and isinstance(text := message.get("content"), str):  # nearly all
            name = message.get("role")
            yield name, *reply(text, {}, form.role(name) == "counselor")
            continue
        fields = ("role", "from", "content", "value", *THOUGHT_FIELDS, *known)
        if wrong := _twice(message) or form.unknown(message, *fields):
            yield wrong
            continue
        name = message.get("role", message.get("from"))
        text, inner = _parts(message.get("content", message.get("value")))
        if isinstance(text, Fault):
            yield text
            continue
        yield name, *reply(text, message | ({"thought": inner} if inner else {}), form.role(name) == "counselor")


def _twice(message: dict) -> Fault | None:
    """Returns the Fault of a message that says one thing in two ways."""
    for one, other in (("role", "from"), ("content", "value")):
        if message.get(one) is not None and message.get(other) not in (None, message[one]):
            return Fault("two fields for one", f"{one} and {other}")
    return None


def reply(text: object, row: Mapping[str, Any], counselor: bool = True) -> tuple[object, object]:
    """Returns (text, thought) of what a counselor says: the thought stands in the text, or in a field of `row`.

    An empty thought is none. A client's text is left as it is.
    """
    thoughts = [row[name] for name in THOUGHT_FIELDS if row.get(name)] if row else []
    if thoughts:
        same = all(thought == thoughts[0] for thought in thoughts)
        return text, thoughts[0] if same else [*thoughts]
    if not counselor or not isinstance(text, str):
        return text, None
    thought, said = leading_thought(text)
    return said, thought


def _parts(content: object) -> tuple[object, str]:
    """Returns (text, thought) of a message's content, which may be a list of parts; a Fault for one that is no text."""
    if not isinstance(content, list):
        return content, ""
    texts, thoughts = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = (
            part if isinstance(part, str) else part.get("text", part.get(str(kind))) if isinstance(part, dict) else None
        )
        if not isinstance(text, str) or not (isinstance(part, str) or kind in ("text", "thinking", "reasoning", None)):
            return Fault("a part of a message that is no text", str(kind or type(part).__name__)), ""
        (thoughts if kind in ("thinking", "reasoning") else texts).append(text)
    return "\n".join(texts), "\n".join(thoughts)


def files(path: str | Path, *suffixes: str) -> list[Path]:
    """Returns the file, or the folder's files of these suffixes at any depth, paths sorted; BadInput without one."""
    path = Path(path)
    there = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in suffixes and f.is_file())
    if not there:
        raise BadInput(f"{path}: {'no ' + ' or '.join(suffixes) + ' file in it' if path.is_dir() else 'no such file'}")
    return there


def json_file(file: Path, form: Form) -> object:
    """Returns the JSON value of a file in the form's encoding, or the Fault for which there is none."""
    return decode_json(file.read_bytes(), form.encoding)


def rows(path: str | Path, form: Form, split: str = "", columns: Collection[str] = ()) -> Iterator[Row]:
    """Yields the rows of a file, folder or data set of any format (`tables/rows.py`), dialogues mostly as JSON.

    `columns` are those that the header of a spreadsheet has.
    """
    layout = Layout(form.encoding, split=split, option="options: {KEY: VALUE}")
    yield from table_rows(path, layout, lambda names: sum(name in names for name in columns) / (len(columns) or 1))
