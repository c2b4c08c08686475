"""Imports every module of the rooms and compiles every Python file, under the Python that runs it; writes nothing.

    python -m tests.import_everything [WITHOUT ...]

Each module is imported as if it were the first of ours, so that a circle of imports shows whoever starts it. WITHOUT
names packages that are left out on purpose: modules that need one of them are listed, and do not count as failed.
"""

import importlib
import sys
import time
import traceback
import warnings
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
WRITTEN_BY_RUNS = {"runs", "outputs", "multirun"}


def python_files() -> list[Path]:
    folders = [f for f in REPOSITORY.iterdir() if f.is_dir() and not f.name.startswith(".")]
    return sorted(file for f in folders if f.name not in WRITTEN_BY_RUNS for file in f.rglob("*.py"))


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def compiles(file: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)  # 3.12 warns of what a later Python refuses
        try:
            compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
        except SyntaxError:
            traceback.print_exc()
            return False
    return True


def main(without: list[str]) -> int:
    sys.dont_write_bytecode = True
    files = python_files()
    failed = [str(f.relative_to(REPOSITORY)) for f in files if not compiles(f)]
    # tests/ is left to pytest, which imports it, and its benchmarks to whoever has their peers.
    modules = [name for name in map(module_name, files) if name.partition(".")[0] != "tests"]
    rooms = {name.partition(".")[0] for name in modules}
    imported, needing = 0, []
    for name in modules:
        for known in [m for m in sys.modules if m.partition(".")[0] in rooms]:
            del sys.modules[known]
        start = time.perf_counter()
        try:
            importlib.import_module(name)
        except BaseException as error:  # SystemExit too: a module that ends the program cannot be imported
            if isinstance(error, ModuleNotFoundError) and error.name in without:
                needing.append(name)
                continue
            traceback.print_exc()
            failed.append(name)
        else:
            imported += 1
            print(f"{time.perf_counter() - start:6.2f} s  {name}", flush=True)
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}: {len(files)} files compiled, {imported} of {len(modules)} modules imported")
    if needing:
        print(f"not imported, without {', '.join(without)}: {', '.join(needing)}")
    if failed or not imported:
        print(f"failed: {', '.join(failed) or 'no module found'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
