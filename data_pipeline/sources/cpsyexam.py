"""CPsyExam (COLING 2025, arXiv 2405.10212): the released `cpsyexam.zip`, or the folder it unpacks to.

Files are `<split>/<KG|CA>-<exam>-<subject>-<单项选择题|多项选择题>.json`; `mapping.json`, where it lies beside them,
gives each file's category. The released test split has no answers: its questions are rejected as "no answer", or, with
`withheld`, kept with answer "". The open questions lie in `cpsyexam_qa.zip` as `<split>/cpsyexam_qa.json`.
"""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from data_pipeline.archives import open_zip
from data_pipeline.encodings import parse_json
from data_pipeline.errors import BadInput
from data_pipeline.records import Fault, Question, Reject, check_question

LICENCE = "the repository says CC0, the data set's card CC BY 4.0, its loader CC BY-NC-SA 4.0: ask its authors"
KINDS = {"single": "single", "multi": "multi"}
OPEN_KINDS = {"QA_Knowledge": "knowledge", "QA_Analyse": "analyse"}


def read(
    path: str | Path, split: str = "train", withheld: bool = False, qa: bool = False
) -> Iterator[Question | Reject]:
    """Yields a Question or Reject for every item of one split, in file order (file names sorted).

    `path` is the zip, the folder that holds it, or the unpacked folder. `split` is train, dev or test. `withheld` keeps
    a question without an answer, answer "", instead of rejecting it; `qa` reads the open questions instead of the
    multiple-choice ones. Raises BadInput for a missing path, a file that is not a zip or not JSON, and a split that is
    not there (naming those that are).
    """
    path = Path(path)
    archive = "cpsyexam_qa.zip" if qa else "cpsyexam.zip"
    if path.is_dir() and (path / archive).is_file() and not (path / split).is_dir():
        path = path / archive
    files = dict(_folder_files(path)) if path.is_dir() else dict(_zip_files(path, archive))
    files = {name: get for name, get in files.items() if (PurePosixPath(name).name == "cpsyexam_qa.json") == qa}
    mapping = {}
    for folder in (path, path.parent):
        if (folder / "mapping.json").is_file():
            mapping = parse_json(folder / "mapping.json", (folder / "mapping.json").read_bytes())
            break
    names = [name for name in sorted(files) if PurePosixPath(name).parent.name == split]
    if not names:
        splits = sorted({PurePosixPath(name).parent.name for name in files} - {""})
        raise BadInput(f"{path}: no split {split!r}; there is {', '.join(splits) or 'no JSON file in a folder'}")
    for name in names:
        stem = PurePosixPath(name).stem
        category = mapping.get(stem, {}).get("category", "-".join((stem.split("-")[0], stem.split("-")[-1])))
        where = f"{path}/{name}"
        rows = parse_json(where, files[name]())
        if not isinstance(rows, list):
            raise BadInput(f"{where}: expected a list of questions, found {type(rows).__name__}")
        for number, row in enumerate(rows, 1):
            id, place = f"{'cpsyexam_qa' if qa else 'cpsyexam'}/{split}/{stem}/{number}", f"{where} row {number}"
            yield _open(row, id, place) if qa else _question(row, id, place, stem, category, withheld)


def _open(row: object, id: str, where: str) -> Question | Reject:
    if not isinstance(row, dict) or row.get("question_type") not in OPEN_KINDS:
        return Reject(id, where, f"not an object with a question_type of {', '.join(OPEN_KINDS)}")
    stem, reference = (row.get("question") or "").strip(), (row.get("answer") or "").strip()
    if not stem or not reference:
        return Reject(id, where, "no answer" if stem else "no question text")
    meta = {"where": where, "category": row["question_type"], "family": OPEN_KINDS[row["question_type"]]}
    subject = row.get("subject_name") or ""
    return Question(id, "cpsyexam", subject, "open", stem, [], "", reference=reference, meta=meta)


def _question(row: object, id: str, where: str, file: str, category: str, withheld: bool) -> Question | Reject:
    if not isinstance(row, dict) or not isinstance(row.get("options"), dict):
        return Reject(id, where, "not an object with a question and options")
    kind = KINDS.get(row.get("question_type", ""))
    if kind is None:
        return Reject(id, where, "a question_type other than single and multi", repr(row.get("question_type")))
    stem = row.get("question") or ""
    unanswered = withheld and not row.get("answer")
    # the options are checked all the same, with a key that every question could have
    checked = check_question(kind, stem, row["options"], "A" if unanswered else row.get("answer"))
    if isinstance(checked, Fault):
        return Reject(id, where, *checked)
    options, answer = checked[0], "" if unanswered else checked[1]
    meta = {
        "where": where, "released_id": row.get("id"), "file": file, "category": category, "family": row.get("kind"),
    }  # fmt: skip
    return Question(
        id=id,
        source="cpsyexam",
        subject=row.get("subject_name") or "",
        kind=kind,
        stem=stem.strip(),
        options=options,
        answer=answer,
        rationale=(row.get("explanation") or "").strip(),
        meta=meta,
    )


def _folder_files(folder: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for file in folder.rglob("*.json"):
        if file.name != "mapping.json":
            yield file.relative_to(folder).as_posix(), file.read_bytes


def _zip_files(path: Path, archive: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder (CPsyExam: the released {archive} or its unpacked folder)")
    try:
        opened = open_zip(path)
    except zipfile.BadZipFile as error:
        told = f"not a zip file that is read: {error} (an interrupted download, or a Git LFS pointer?)"
        raise BadInput(f"{path}: {told}") from None
    for name in opened.namelist():
        if name.endswith(".json") and not name.startswith("__MACOSX/"):
            yield name, lambda name=name: opened.read(name)
