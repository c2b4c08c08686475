"""People's own questions: any table (`data_pipeline/tables/rows.py`), a row a question.

    columns: {stem: 题目, options: [选项A, 选项B, 选项C, 选项D], answer: 答案, rationale: 解析, kind: 题型}

A field that the recipe does not map stands in the column of its own name, or of a usual one (USUAL). How options, keys
and kinds may be written stands in `data_pipeline/tables/`; a key that counts its options is mapped as `answer_from_0`
or `answer_from_1` in place of `answer`. Without a kind a question is multi-answer when its key has several letters.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_pipeline.errors import BadInput
from data_pipeline.records import LETTERS, Fault, Question, Reject, check_question, note
from data_pipeline.safety.cleaning import Cleaned, clean_text
from data_pipeline.tables.columns import Columns, Fields, beyond, say
from data_pipeline.tables.keys import read_key, read_kind, true_or_false
from data_pipeline.tables.options import is_empty, read_options, text_of
from data_pipeline.tables.rows import Layout, Row

USUAL = {
    "id": (),
    "subject": ("科目", "学科"),
    "kind": ("题型", "题目类型", "questiontype", "qtype"),
    "context": ("材料", "背景材料", "案例"),
    "stem": ("question", "题目", "题干", "问题", "试题"),
    "options": ("choices", "选项", "备选答案"),
    "answer": ("答案", "正确答案", "标准答案", "answerkey", "correctanswer", "key"),
    "answer_from_0": (),
    "answer_from_1": (),
    "rationale": ("解析", "答案解析", "试题解析", "explanation", "analysis"),
}
FIELDS = Fields(
    USUAL, required=(("stem",), ("options",), ("answer", "answer_from_0", "answer_from_1")), several=("options",)
)
_LOST = re.compile("\ufffd")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_PLAIN = re.compile("[\u4e00-\u9fff]{0,12}")  # short words in Chinese alone hold nothing to take out
LEAVE = ("emoticon", "repeat")  # kinds of cleaning that questions do without: in them 233 is a number
MEANS = ("single", "multi", "true_false")
OPTION = "source_options={columns: COLUMNS}"


def read(
    path: str | Path,
    columns: dict | None = None,
    kinds: dict | None = None,
    clean: bool = True,
    encoding: str = "",
    sheet: str = "",
    split: str = "",
) -> Iterator[Question | Reject]:
    """Returns an iterator over the rows in order, a Question or Reject each; `where` is file, sheet and row.

    `columns` maps our fields to the table's columns, {stem: 题目}; null takes our names and the usual ones. `kinds`
    explains words of the kind column, {word: single, multi or true_false}; null explains none. `clean` takes out of
    texts what is taken out of posts (`data_pipeline/safety/cleaning.py`), but for emoticons and repetitions. `encoding`
    is that of a text file; "" finds it. `sheet` is that of a workbook; "" asks where there are several. `split` is
    the part of a data set that is read; "" asks where there are several. Raises BadInput for an option that cannot
    be, now; and for what is no table, while it is read.
    """
    columns, kinds = dict(columns or {}), {str(word): kind for word, kind in (kinds or {}).items()}
    FIELDS.check(columns, "source_options.columns")
    if wrong := next((word for word, kind in kinds.items() if kind not in MEANS), None):
        raise BadInput(f"source_options.kinds: {wrong}={kinds[wrong]!r}; a kind is {', '.join(MEANS)}")
    return _records(path, columns, kinds, clean, Layout(encoding, sheet, split))


def _records(path: str | Path, given: dict, kinds: dict, clean: bool, layout: Layout) -> Iterator[Question | Reject]:
    mapped, more, hint = None, [], ""
    for row, columns, names in FIELDS.rows(path, layout, given, OPTION):
        if columns is not mapped and columns:
            mapped, options = columns, columns["options"]
            more = beyond(options, names) if isinstance(options, list) else []
            hint = _counts(given, columns)
        question = row.values
        if not isinstance(question, Fault):
            question = _question(question, columns, more, kinds, hint)
        if isinstance(question, Question):  # before the cleaning, which would take it out
            question = _without(_LOST, "lost when the table was saved", question)
        if clean and isinstance(question, Question):
            question = cleaned(question)
        if isinstance(question, Question):
            question = _without(_CONTROL, "a control character or a mark of direction", question)
        if isinstance(question, Fault):
            yield Reject(_id(row, columns), row.where, *question)
        else:
            question.id, question.meta["where"] = _id(row, columns), row.where
            yield question


def _id(row: Row, columns: Columns) -> str:
    value = row.values.get(str(columns.get("id"))) if isinstance(row.values, dict) else None
    text = text_of(value)
    return text.strip() if isinstance(text, str) and text.strip() else f"{row.table}/{row.number}"


def _counts(given: Mapping[str, object], columns: Columns) -> str:
    """Returns how a user says that the answer's column counts the options."""
    mapped = {field: column for field, column in given.items() if field != "answer"}
    ways = [say(OPTION, mapped | {f"answer_from_{first}": columns.get("answer")}) for first in (0, 1)]
    return f"{ways[0]} if it counts from 0, {ways[1]} if from 1"


def _question(values: Mapping, columns: Columns, more: list[str], kinds: dict[str, str], hint: str) -> Question | Fault:
    """Returns the question of a row, without id and place, or the Fault for which it is not trusted."""
    texts = {}
    for field in ("subject", "kind", "context", "stem", "rationale"):
        text = text_of(values.get(str(columns[field]))) if field in columns else ""
        if isinstance(text, Fault):
            return Fault(f"a {field} that is no text", text.reason)
        texts[field] = text.strip()
    if left := next((name for name in more if str(values.get(name) or "").strip()), None):
        return Fault("an option in a column that is not mapped", f"{left}: {str(values[left])[:40]!r}")
    where = columns["options"]
    cell = [values.get(name) for name in where] if isinstance(where, list) else values.get(where)
    field = next((field for field in ("answer_from_0", "answer_from_1") if field in columns), "answer")
    key = values.get(str(columns[field]))
    kind = read_kind(texts["kind"], kinds) if texts["kind"] or "" in kinds else "any"
    if not kind:
        how = f'"source_options={{kinds: {{{texts["kind"]!r}: single}}}}"'
        return Fault(
            "a kind that is not known",
            f"{columns['kind']} is {texts['kind']!r}; explain it: {how}, multi or true_false",
        )
    options = read_options(cell)
    if kind == "true_false":
        read = true_or_false(key, texts["stem"], None if is_empty(cell) else options, hint)
    else:
        read = read_key(key, options, {"answer_from_0": 0, "answer_from_1": 1}.get(field), hint)
    if isinstance(read, Fault):
        return read
    options, letters = read
    kind = {"any": "multi" if len(set(letters)) > 1 else "single", "true_false": "single"}.get(kind, kind)
    checked = check_question(kind, texts["stem"], dict(zip(LETTERS, options.texts, strict=False)), letters)
    if isinstance(checked, Fault):
        return checked
    return Question(
        "", "table", texts["subject"], kind, texts["stem"], *checked, texts["context"], "", texts["rationale"]
    )


def _without(characters: re.Pattern, what: str, question: Question) -> Question | Fault:
    """Returns the question, or the Fault of a text that holds one of the characters."""
    whole = "\n".join((question.subject, question.context, question.stem, question.rationale, *question.options))
    if not (bad := characters.search(whole)):
        return question
    around = whole[max(0, bad.start() - 20) : bad.end() + 20]
    return Fault("a character that is no text", f"U+{ord(bad[0]):04X}, {what}, in {around!r}")


def cleaned(question: Question) -> Question | Fault:
    """Returns the question with its texts cleaned as posts are, the removed spans counted in its trail; a Fault when
    cleaning leaves nothing of the stem or an option, or makes two options one.
    """
    parts = [question.subject, question.context, question.stem, question.rationale, *question.options]
    results = [Cleaned(part) if _PLAIN.fullmatch(part) else clean_text(part, LEAVE, flags=False) for part in parts]
    texts = [result.text for result in results]
    question.subject, question.context, question.stem, question.rationale, *question.options = texts
    if not question.stem or not all(question.options):
        return Fault("cleaning leaves nothing of a text", "the stem" if not question.stem else "an option")
    if len(set(question.options)) < len(question.options):
        return Fault("two options are the same", "after cleaning: " + " | ".join(question.options)[:120])
    if removed := Counter(span.rule for result in results for span in result.removed):
        note(question, "clean", removed=dict(removed))
    return question
