#!/usr/bin/env bash
# SFT with LLaMA-Factory: `bash launch/sft.sh recipe=NAME hardware=NAME run=NAME KEY=VALUE ...` (launch/sft.py)
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || bash launch/install.sh
exec .venv/bin/python -m launch.sft "$@"
