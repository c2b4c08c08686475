#!/usr/bin/env bash
# Sets up .venv for both frameworks: `bash launch/install.sh [cpu|gpu]`; without a word the machine is looked at.
# `bash launch/install.sh benchmarks` adds the peers of tests/benchmarks/ to either.
# Safe to repeat: does nothing when .venv already holds the locked set, or more than it. PYTHON=python3.12 picks the
# interpreter of a new one, VENV=FOLDER another folder than .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
kind=${1:-$(command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)}
case $kind in
  cpu) lock=requirements-cpu.txt size="a few minutes, 2.6 GB" ;;
  gpu) lock=requirements.txt size="a few minutes, about 15 GB" ;;
  benchmarks) lock=requirements-benchmarks.txt size="seconds" ;;
  *) echo "install: '$kind' is none of cpu, gpu and benchmarks" >&2; exit 2 ;;
esac
pin() { sed -n "s/^\($1==[^ ]*\).*/\1/p" "$2"; } # PACKAGE LOCK

# The stamp is the lock that was found installed; it holds until the lock, or what is installed, changes.
stamp=$venv/installed-$kind
if cmp -s "$lock" "$stamp" && [ ! "$(echo "$venv"/lib/python3.*/site-packages)" -nt "$stamp" ]; then exit 0; fi

# On these the locks differ, and the GPU set serves as CPU set too; but a new torch for the CPU set is one to install.
any="torch triton setuptools"
if [ "$kind" != cpu ] || { [ -e "$stamp" ] && [ "$(pin torch "$lock")" != "$(pin torch "$stamp")" ]; }; then any=; fi
if [ -x "$venv/bin/python" ] && "$venv/bin/python" - "$lock" $any 2>/dev/null <<'PYTHON'; then
import sys
from importlib.metadata import version  # of a package that is not there it raises

lock, *any_version = sys.argv[1:]
for line in open(lock):
    name, wanted = line.split()[0].split("==")
    if version(name).split("+")[0] != wanted and name not in any_version:
        sys.exit(1)
PYTHON
  cp "$lock" "$stamp"; exit 0
fi
if [ "$kind" = cpu ] && [ -e "$venv/installed-gpu" ]; then
  exec bash launch/install.sh gpu # brings that one up to date; the CPU set would take its torch away
elif [ "$kind" = benchmarks ] && [ ! -e "$venv/installed-cpu" ] && [ ! -e "$venv/installed-gpu" ]; then
  bash launch/install.sh
fi

python=
for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))'; then
    python=$candidate; break
  fi
done
if [ -z "$python" ]; then
  echo "install: needs Python 3.11 or 3.12 (llamafactory wants 3.11, verl stops before 3.13); set PYTHON=/path/to/python3.11" >&2
  exit 2
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
cp "$lock" "$venv/installing" # what this call installs, should the file change meanwhile
lock=$venv/installing started=$SECONDS
echo "install: $kind set into $venv ($size)"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)

# torch first and with its dependencies: a CPU build brings none of CUDA's, the ordinary build its own.
if [ -n "$(pin torch "$lock")" ]; then
  "${pip[@]}" install --quiet --constraint <(sed 's/ .*//' "$lock") "$(pin torch "$lock")"
fi
# The lock is complete, so nothing is left to resolve; deepspeed's setup.py imports torch, hence no isolation.
"${pip[@]}" install --quiet --no-deps --requirement <(grep -v '^deepspeed==' "$lock")
if [ -n "$(pin deepspeed "$lock")" ]; then
  DS_BUILD_OPS=0 "${pip[@]}" install --quiet --no-deps --no-build-isolation "$(pin deepspeed "$lock")"
fi
if [ "$kind" = cpu ] && ! "$venv/bin/python" -c 'import torch, sys; sys.exit(torch.version.cuda is not None)'; then
  echo "install: note: pip chose torch's CUDA build, which works but is large; to get the CPU build, name the CPU wheel" \
       "index of pytorch.org in PIP_EXTRA_INDEX_URL and delete $venv" >&2
fi
[ "$kind" = benchmarks ] || echo $((SECONDS - started)) >"$venv/install_seconds"
mv "$lock" "$stamp"
touch "$stamp" # newer than what was installed
echo "install: done in $((SECONDS - started)) s"
