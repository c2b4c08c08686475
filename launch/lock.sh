#!/usr/bin/env bash
# Compiles pyproject.toml into requirements.txt (GPU) and requirements-cpu.txt, for Linux x86-64, Python 3.11 and 3.12.
# Needs uv; downloads metadata only. More options go to uv: `bash launch/lock.sh --upgrade`.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
platform=(--python-platform x86_64-manylinux_2_28 --annotation-style line --no-emit-index-url --no-header --quiet)

# Text SFT on a CPU needs none of these, and the registry's torchvision and torchaudio are CUDA builds that break
# transformers beside a CPU torch. launch/llama_factory.py stands in for the one import that is unconditional.
for package in torchvision torchaudio gradio av modelscope; do
  echo "$package; sys_platform == 'never'"
done >"$scratch/not-on-cpu.txt"

uv pip compile pyproject.toml --extra gpu --python-version 3.11 "${platform[@]}" -o requirements.txt "$@"

# The CPU set takes the GPU set's versions wherever both have a package; only torch has its own.
sed 's/ .*//' requirements.txt | grep -vE '^(torch|triton|setuptools)==' >"$scratch/gpu-versions.txt"
uv pip compile pyproject.toml --extra cpu --python-version 3.11 "${platform[@]}" \
  --overrides "$scratch/not-on-cpu.txt" --constraints "$scratch/gpu-versions.txt" -o requirements-cpu.txt "$@"
sed -i -E 's#(, )?-c /[^ ,]*gpu-versions.txt##; s#via , #via #' requirements-cpu.txt

# What was resolved on 3.11 has to be a whole solution on 3.12 as well, with nothing added.
same_on_312() { # LOCK EXTRA [uv options]
  local lock=$1 extra=$2 found=$scratch/on312.txt
  uv pip compile pyproject.toml --extra "$extra" --python-version 3.12 "${platform[@]}" \
    --constraints "$lock" "${@:3}" -o "$found"
  diff <(sed 's/ .*//' "$lock") <(sed 's/ .*//' "$found") || { echo "$lock does not hold on Python 3.12" >&2; exit 1; }
}
same_on_312 requirements.txt gpu
same_on_312 requirements-cpu.txt cpu --overrides "$scratch/not-on-cpu.txt"
