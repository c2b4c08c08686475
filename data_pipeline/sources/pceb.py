"""PCEB, the Psychological Counselor Examination Benchmark (MindIntLab-HFUT/PsycoLLM, `benchmark/`, Apache-2.0).

The released folder is cases/{mix,essay}, moral/{single,multiple}, theory/{single,multiple}, each with one folder per
paper. Case items stand in groups under one introduction; 单选： and 多选： say which kind a case question is.
It is a benchmark: the exporters refuse it as training data (`data_pipeline/export/`).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.encodings import parse_json
from data_pipeline.errors import BadInput
from data_pipeline.records import Fault, Question, Reject, check_question

LICENCE = "Apache-2.0, of the repository"
SUBJECTS = {"cases": "案例", "moral": "职业道德", "theory": "理论知识"}
_PREFIX = re.compile(r"\s*(单选|多选)\s*[：:]\s*")


def read(path: str | Path) -> Iterator[Question | Reject]:
    """Yields a Question or Reject for every item, in file order (paths sorted); essays become kind "open".

    Raises BadInput for a missing folder, one without PCEB's sections, and broken JSON (file and position).
    """
    path = Path(path)
    if not path.is_dir():
        raise BadInput(f"{path}: no such folder (PCEB: the folder that holds cases/, moral/ and theory/)")
    files = [f for section in SUBJECTS for f in sorted((path / section).rglob("*.json"))]
    if not files:
        raise BadInput(f"{path}: no JSON file under cases/, moral/ or theory/")
    for file in files:
        section, form = file.relative_to(path).parts[:2]
        paper = file.relative_to(path).with_suffix("").as_posix()
        groups = parse_json(file, file.read_bytes())
        if not isinstance(groups, list):
            raise BadInput(f"{file}: expected a list, found {type(groups).__name__}")
        for number, group in enumerate(groups, 1):
            questions = group.get("questions_and_answers") if section == "cases" else [group]
            if not isinstance(questions, list):
                raise BadInput(f"{file} row {number}: a case without questions_and_answers")
            context = "\n".join(filter(None, (group.get("general_info"), group.get("case_introduction"))))
            for place, row in enumerate(questions, 1):
                at = f"{number}.{place}" if section == "cases" else str(number)
                yield _question(row, section, form, context, f"pceb/{paper}/{at}", f"{file} row {at}")


def _question(row: dict, section: str, form: str, context: str, id: str, where: str) -> Question | Reject:
    stem, meta = row.get("question") or "", {"where": where, "cell": section}
    common = {"id": id, "source": "pceb", "subject": SUBJECTS[section], "context": context.strip(), "meta": meta}
    if form == "essay":
        reference = (row.get("answer") or "").strip()
        if not stem.strip() or not reference:
            return Reject(id, where, "no answer" if stem.strip() else "no question text")
        return Question(kind="open", stem=stem.strip(), options=[], answer="", reference=reference, **common)
    if form == "mix":
        prefix = _PREFIX.match(stem)
        if not prefix:
            return Reject(id, where, "a case question without 单选： or 多选：", repr(stem[:20]))
        kind, stem = {"单选": "single", "多选": "multi"}[prefix[1]], stem[prefix.end() :]
    else:
        kind = "single" if form == "single" else "multi"
    options = row.get("options")
    checked = check_question(kind, stem, options if isinstance(options, dict) else {}, row.get("answer"))
    if isinstance(checked, Fault):
        return Reject(id, where, *checked)
    texts, answer = checked
    rationale = (row.get("analysis") or "").strip()
    return Question(kind=kind, stem=stem.strip(), options=texts, answer=answer, rationale=rationale, **common)
