#!/usr/bin/env bash
# Installs, then runs the whole main job at demo scale on two CPU cores; words are explained by `bash launch/demo.sh --help`.
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/install.sh cpu
exec .venv/bin/python -m launch.demo "$@"
