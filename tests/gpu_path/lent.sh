#!/usr/bin/env bash
# What a GPU machine can measure that holds Python 3.12 and torch 2.11.0+cu130, nothing of ours, and reaches no registry:
#   bash tests/gpu_path/lent.sh carry   here: the wheels that it lacks into .wheels/, under 60 MiB
#   bash tests/gpu_path/lent.sh         there, beside .wheels/: measures for at most eight minutes (SECONDS_IN_ALL=480)
# Writes lent.json and lent.log into $OUT (runs/lent without it), anew after each part, so that a cut-off leaves what was
# measured. What needs vLLM, Ray or DeepSpeed is named as unrun: Ray's wheel is over 60 MiB, and vLLM's far over it.
set -euo pipefail
cd "$(dirname "$0")/../.."
wheels=.wheels

# Those of the lock that such a machine lacks, or has in a version that the frameworks refuse
carried="accelerate annotated-types antlr4-python3-runtime codetiming datasets dill docstring-parser fire fsspec hydra-core
  jsonlines liger-kernel llamafactory multiprocess omegaconf orjson peft pydantic pydantic-core pyvers shtab tensordict
  termcolor tokenizers torchdata transformers trl tyro typing-inspection verl"

if [ "${1:-}" = carry ]; then
  rm -rf "$wheels"; mkdir "$wheels"
  pins=()
  for name in $carried; do
    pin=$(sed -n "s/^\($name==[^ ]*\).*/\1/p" requirements.txt)
    [ -n "$pin" ] || { echo "lent: requirements.txt has no $name" >&2; exit 1; }
    case $name in
      antlr4-python3-runtime) python3 -m pip wheel --quiet --no-deps --wheel-dir "$wheels" "$pin" ;; # a source only
      *) pins+=("$pin") ;;
    esac
  done
  platforms=()
  for glibc in 2_28 2_27 2_24 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
  python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --dest "$wheels" "${pins[@]}"
  size=$(du -sm "$wheels" | cut -f 1)
  echo "lent: $(find "$wheels" -name '*.whl' | wc -l) wheels, $size MiB in $wheels/"
  [ "$size" -lt 60 ] || { echo "lent: more than 60 MiB" >&2; exit 1; }
  exit 0
fi

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
OUT=${OUT:-runs/lent}
mkdir -p "$OUT"
python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$wheels"/*.whl
export OUT PYTHONPATH=$site:$PWD HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
python3 -m tests.gpu_path.lent
