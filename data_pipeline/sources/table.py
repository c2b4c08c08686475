"""People's own questions: any table (`data_pipeline/tables/rows.py`), a row a question.

    columns: {stem: 题目, options: [选项A, 选项B, 选项C, 选项D], answer: 答案, rationale: 解析, kind: 题型}

A field that the recipe does not map stands in the column of its own name, or of a usual one (USUAL). How options, keys
and kinds may be written stands in `data_pipeline/tables/`; a key that counts its options is mapped as `answer_from_0`
or `answer_from_1` in place of `answer`. Without a kind a question is multi-answer when its key has several letters.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.encodings import lost_characters
from data_pipeline.errors import BadInput
from data_pipeline.records import LETTERS, Fault, Question, Reject, check_key, check_question, note
from data_pipeline.safety.cleaning import MASK, WRITING, Cleaned, Removed, clean_texts
from data_pipeline.safety.shown import NO_TEXT
from data_pipeline.tables.columns import Columns, Fields, beyond, say
from data_pipeline.tables.keys import read_key, read_kind, true_or_false
from data_pipeline.tables.options import held_answer, is_empty, read_options, text_of, without_letters
from data_pipeline.tables.rows import Layout, Row
from reward.thought import stray_mark

USUAL = {
    "id": (),
    "subject": ("科目", "学科"),
    "kind": ("题型", "题目类型", "questiontype", "qtype"),
    "context": ("材料", "背景材料", "案例"),
    "stem": ("question", "题目", "题干", "问题", "试题"),
    "options": ("option", "choices", "选项", "备选答案"),
    "answer": ("答案", "正确答案", "标准答案", "answerkey", "correctanswer", "key"),
    "answer_from_0": (),
    "answer_from_1": (),
    "rationale": ("解析", "答案解析", "试题解析", "explanation", "analysis"),
}
TEXTS: tuple[str, ...] = ("subject", "kind", "context", "stem", "rationale")
RATIONALE = 3  # its place among the texts that are cleaned
_KEYS = ("answer", "answer_from_0", "answer_from_1")
TRUE_FALSE = "If all are of true or false and have none: \"source_options={kinds: {'': true_false}}\""
FIELDS = Fields(
    USUAL, required=(("stem",), ("options", "kind"), _KEYS), several=("options",), without={"options": TRUE_FALSE}
)
STATEMENTS = replace(FIELDS, required=(("stem",), _KEYS))  # where the recipe says what a question without a kind is
# Kinds of cleaning that questions do without: in them 233 is a number, and ( ) a gap.
LEAVE = frozenset(("emoticon", "repeat", WRITING))
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
    texts what is taken out of posts (`data_pipeline/safety/cleaning.py`), but for emoticons and repetitions; the
    punctuation of a question from which nothing is taken stays. `encoding` is that of a text file; "" finds it. `sheet`
    is that of a workbook; "" asks where there are several. `split` is the part of a data set that is read; "" asks
    where there are several. Raises BadInput for an option that cannot be, now; and for what is no table, while it is
    read.
    """
    columns, kinds = dict(columns or {}), {str(word): kind for word, kind in (kinds or {}).items()}
    FIELDS.check(columns, "source_options.columns")
    if wrong := next((word for word, kind in kinds.items() if kind not in MEANS), None):
        raise BadInput(f"source_options.kinds: {wrong}={kinds[wrong]!r}; a kind is {', '.join(MEANS)}")
    return _records(path, columns, kinds, clean, Layout(encoding, sheet, split))


@dataclass
class _Table:
    """What holds for all rows of a table."""

    texts: list[tuple[str, str]]  # (field, its column)
    options: str | list[str]
    more: list[str]  # columns that go on with the options and are not mapped
    key: str
    first: int | None  # from which the key counts the options; None: it names them
    kind: str  # its column, for messages
    kinds: dict[str, str]
    hint: str


def _table(given: Mapping[str, object], columns: Columns, names: list[str], kinds: dict[str, str]) -> _Table:
    options = columns.get("options", "")
    key = next(field for field in ("answer_from_0", "answer_from_1", "answer") if field in columns)
    return _Table(
        [(field, str(columns[field])) for field in TEXTS if field in columns],
        options,
        beyond(options, names) if isinstance(options, list) else [],
        str(columns[key]),
        {"answer_from_0": 0, "answer_from_1": 1}.get(key),
        str(columns.get("kind")),
        kinds,
        _counts(given, columns),
    )


def _records(path: str | Path, given: dict, kinds: dict, clean: bool, layout: Layout) -> Iterator[Question | Reject]:
    mapped, table = None, None
    fields = STATEMENTS if "" in kinds else FIELDS
    for row, columns, names in fields.rows(path, layout, given, OPTION):
        if columns is not mapped and columns:
            mapped, table = columns, _table(given, columns, names, kinds)
        question = row.values
        if not isinstance(question, Fault):
            assert table is not None  # a row with values has columns
            question = _question(question, table)
        if isinstance(question, Question):
            question = _checked(question, clean)
        if isinstance(question, Fault):
            yield Reject(_id(row, columns), row.where, *question)
        else:
            question.id, question.meta["where"] = _id(row, columns), row.where
            yield question


def _id(row: Row, columns: Columns) -> str:
    if "id" in columns and isinstance(row.values, dict):
        text = text_of(row.values.get(str(columns["id"])))
        if isinstance(text, str) and text.strip():
            return text.strip()
    return f"{row.table}/{row.number}"


def _counts(given: Mapping[str, object], columns: Columns) -> str:
    """Returns how a user says that the answer's column counts the options."""
    mapped = {field: column for field, column in given.items() if field != "answer"}
    ways = [say(OPTION, mapped | {f"answer_from_{first}": columns.get("answer")}) for first in (0, 1)]
    return f"{ways[0]} if it counts from 0, {ways[1]} if from 1"


def _question(values: Mapping, table: _Table) -> Question | Fault:
    """Returns the question of a row, without id and place, or the Fault for which it is not trusted."""
    texts = dict.fromkeys(TEXTS, "")
    for field, column in table.texts:
        text = values.get(column)
        text = text if type(text) is str else text_of(text)
        if isinstance(text, Fault):
            return Fault(f"a {field} that is no text", text.reason)
        texts[field] = text.strip()
    if table.more and (left := next((name for name in table.more if str(values.get(name) or "").strip()), None)):
        return Fault("an option in a column that is not mapped", f"{left}: {str(values[left])[:40]!r}")
    cell = [*map(values.get, table.options)] if isinstance(table.options, list) else values.get(table.options)
    key, stem, word = values.get(table.key), texts["stem"], texts["kind"]
    kind = read_kind(word, table.kinds) if word or "" in table.kinds else "any"
    if not kind:
        how = say("source_options={kinds: COLUMNS}", {word: "single"})
        return Fault("a kind that is not known", f"{table.kind} is {word!r}; explain it: {how}, multi or true_false")
    options = read_options(cell)
    if not table.options and kind != "true_false":
        return Fault("no column of options", f"without one a question is of true or false; {table.kind} is {word!r}")
    if kind == "true_false":
        read = true_or_false(key, stem, None if is_empty(cell) else options, table.hint)
    else:
        read = read_key(key, options, table.first, table.hint)
    if isinstance(read, Fault):
        return read
    options, letters = read
    if kind in ("any", "true_false"):
        kind = "multi" if kind == "any" and len(set(letters)) > 1 else "single"
    if stem and len(options.texts) > 1 and all(options.texts):  # nearly all
        checked = check_key(kind, options.texts, letters)
    else:
        checked = check_question(kind, stem, dict(zip(LETTERS, options.texts, strict=False)), letters)
    if isinstance(checked, Fault):
        return checked
    return Question("", "table", texts["subject"], kind, stem, *checked, texts["context"], "", texts["rationale"])


def _checked(question: Question, clean: bool) -> Question | Fault:
    """Returns the question, cleaned with `clean`, or the Fault of characters that are no text."""
    texts = (question.subject, question.context, question.stem, question.rationale, *question.options)
    whole = "".join(texts)
    if lost := lost_characters(whole):  # before the cleaning, which would take them out
        return lost
    if mark := stray_mark(whole):
        return Fault("a mark of a model's turn or thought", f"{mark!r}; take it out")
    if held := held_answer(question.stem):
        return Fault("a stem that holds the answer", held)
    if clean and (results := clean_texts(texts, LEAVE)):
        return _cleaned(question, results)
    if not whole.isprintable() and (bad := NO_TEXT.search(whole)):
        return _no_text("a control character or a mark of direction", whole, bad.start())
    return question


def _unsure(span: Removed, of_rationale: bool) -> Fault | None:
    """Returns the Fault of a span without which a question may no longer be the one that was asked."""
    if span.rule == "media" or "<img" in span.text.lower():
        return None if of_rationale else Fault("a picture that is not here", repr(span.text[:60]))
    foreign = span.kind == "page" or MASK in span.text  # whoever leaves an address there explains nothing
    if span.kind not in ("ad", "page") or of_rationale and foreign:
        return None
    cure = "take it out, or read such questions from a table of their own with source_options={clean: false}"
    return Fault("what may be an advertisement, or a page's furniture", f"{span.text[:60]!r}; {cure}")


def _no_text(what: str, whole: str, at: int) -> Fault:
    around = whole[max(0, at - 20) : at + 21]
    return Fault("a character that is no text", f"U+{ord(whole[at]):04X}, {what}, in {around!r}")


def _cleaned(question: Question, results: list[Cleaned]) -> Question | Fault:
    """Returns the question with its cleaned texts, the removed spans counted in its trail; a Fault when cleaning leaves
    nothing of the stem or an option, makes two options one, or would take out what may belong to the question.
    """
    rationale = results[RATIONALE]
    for result in results:
        if fault := next((fault for span in result.removed if (fault := _unsure(span, result is rationale))), None):
            return fault
    texts = [result.text for result in results]
    question.subject, question.context, question.stem, question.rationale, *options = texts
    bare = without_letters(options)  # which stood behind markup, or behind what is not seen
    if isinstance(bare, Fault):
        return bare
    question.options = bare
    if not question.stem or not all(question.options):
        return Fault("cleaning leaves nothing of a text", "the stem" if not question.stem else "an option")
    if len(set(question.options)) < len(question.options):
        return Fault("two options are the same", "after cleaning: " + " | ".join(question.options)[:120])
    if removed := Counter(span.rule for result in results for span in result.removed):
        note(question, "clean", removed=dict(removed))
    return question
