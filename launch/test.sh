#!/usr/bin/env bash
# Installs, then runs the tests: `bash launch/test.sh [slow] [pytest options]`; `slow` adds kill, fault and cluster tests.
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/install.sh cpu
marks='not slow'
if [ "${1:-}" = slow ]; then marks=''; shift; fi
exec .venv/bin/python -m pytest -n 2 --dist loadfile -m "$marks" "$@" # the tests of a file build on each other
