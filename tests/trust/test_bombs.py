"""Files of 2 MB and less that would fill memory are refused, in little time and memory of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.trust import bombs

READ = """
import json, resource, sys, time
from pathlib import Path
from data_pipeline.errors import BadInput
from data_pipeline.records import Reject
from data_pipeline.safety.safe_yaml import load_yaml_file
from data_pipeline.sources import cpsyexam, passages
from data_pipeline.tables.rows import Layout, table_rows

kind, file = sys.argv[1], Path(sys.argv[2])
read = {"passages": passages.read, "cpsyexam": cpsyexam.read, "yaml": lambda f: [load_yaml_file(f)],
        "table": lambda f: (row.values for row in table_rows(f, Layout()))}[kind]
before, begun, rows, told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic(), 0, ""
try:
    for row in read(file):
        rows += 1
        told = told or (row.reason if isinstance(row, Reject) else "")
except BadInput as error:
    told = str(error)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps([told, rows, grown, time.monotonic() - begun]))
"""
# {name: (what reads it, what makes it, what is said)}
BOMBS = {
    "pages.epub": ("passages", bombs.epub, "1887 MB unpacked out of 1.8"),
    "entities.epub": ("passages", bombs.entities, "no text in the file"),
    "sheet.xlsx": ("table", bombs.workbook, "1992 MB unpacked out of 1.9"),
    "set.zip": ("cpsyexam", bombs.data_set, "1049 MB unpacked out of 1.0"),
    "members.zip": ("cpsyexam", bombs.many_members, "25000 files in it"),
    "stream.pdf": ("passages", bombs.pdf, "a PDF with hardly any text"),
    "texts.parquet": ("table", bombs.parquet, "MB of text by now out of 0.0"),
    "aliases.yaml": ("yaml", lambda file: file.write_text(bombs.laughs()), "once its aliases are written out"),
    "nested.yaml": ("yaml", lambda file: file.write_text("[" * 200_000), "nested too deeply"),
    "nested.json": ("table", lambda file: file.write_text("[" * 2_000_000), "depth limit exceeded"),
}
QUICK = ("entities.epub", "aliases.yaml", "nested.yaml", "nested.json", "texts.parquet")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BOMBS]
)
def test_a_bomb_is_refused(name, tmp_path):
    kind, make, says = BOMBS[name]
    file = tmp_path / name
    make(file)
    done = subprocess.run([sys.executable, "-c", READ, kind, str(file)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, rows, grown, seconds = json.loads(done.stdout)
    print(f"{name}: {file.stat().st_size} bytes, {grown:.0f} MB of memory, {seconds:.2f} s: {told}")
    assert says in told and grown < 300, (told, grown)
    assert rows < 300


def test_honest_archives_pass_the_limits(tmp_path):
    """What packs best among honest files: a table of which every row says nearly the same."""
    from data_pipeline.archives import open_zip

    file = tmp_path / "rows.zip"
    import zipfile

    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.xml", "".join(f'<row r="{n}"><c><v>{n % 7}</v></c></row>' for n in range(200_000)))
    with open_zip(file) as archive:
        assert archive.namelist() == ["rows.xml"]
    assert Path(file).stat().st_size < 1 << 20
