#!/usr/bin/env bash
# Installs, then runs the tests: `bash launch/test.sh [slow] [pytest options]`; `slow` adds kill, fault and cluster tests,
# and the S3 server of one of them, which agrees with no lock and stands in a folder of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/install.sh cpu
marks='not slow'
if [ "${1:-}" = slow ]; then
  marks=''; shift
  [ -d .venv/s3 ] || .venv/bin/python -m pip --disable-pip-version-check install --quiet --target .venv/s3 \
    'moto[s3]==5.2.1' flask==3.1.3 flask-cors==6.0.5 || echo "no S3 server can be installed here: its test is skipped"
fi
exec .venv/bin/python -m pytest -n 2 --dist loadfile -m "$marks" "$@" # the tests of a file build on each other
