#!/usr/bin/env bash
# Sets up .venv for both frameworks: `bash launch/install.sh [cpu|gpu]`; without a word the machine is looked at.
# Safe to repeat: does nothing when .venv already holds the locked set. PYTHON=python3.12 picks the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-$(command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)}
case $kind in
  cpu) lock=requirements-cpu.txt ;;
  gpu) lock=requirements.txt ;;
  *) echo "install: '$kind' is neither cpu nor gpu" >&2; exit 2 ;;
esac

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

[ -x .venv/bin/python ] || "$python" -m venv .venv
# The stamp holds what was installed: a changed lock, or another kind, installs again.
stamp=.venv/installed-$kind
if cmp -s "$lock" "$stamp"; then exit 0; fi
rm -f .venv/installed-*
cp "$lock" .venv/installing # what this call installs, should the file change meanwhile
started=$SECONDS
echo "install: $kind set into .venv (a few minutes, 2 GB for cpu, about 15 GB for gpu)"
pip=(.venv/bin/python -m pip --disable-pip-version-check)

# torch first and with its dependencies: a CPU build brings none of CUDA's, the ordinary build its own.
"${pip[@]}" install --quiet --constraint <(sed 's/ .*//' "$lock") "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' "$lock")"
# The lock is complete, so nothing is left to resolve; deepspeed's setup.py imports torch, hence no isolation.
"${pip[@]}" install --quiet --no-deps --requirement <(grep -v '^deepspeed==' "$lock")
if grep -q '^deepspeed==' "$lock"; then
  DS_BUILD_OPS=0 "${pip[@]}" install --quiet --no-deps --no-build-isolation "$(sed -n 's/^\(deepspeed==[^ ]*\).*/\1/p' "$lock")"
fi
if [ "$kind" = cpu ] && ! .venv/bin/python -c 'import torch, sys; sys.exit(torch.version.cuda is not None)'; then
  echo "install: note: pip chose torch's CUDA build, which works but is large; to get the CPU build, name the CPU wheel" \
       "index of pytorch.org in PIP_EXTRA_INDEX_URL and delete .venv" >&2
fi
echo $((SECONDS - started)) >.venv/install_seconds
mv .venv/installing "$stamp"
echo "install: done in $((SECONDS - started)) s"
