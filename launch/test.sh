#!/usr/bin/env bash
# Sets up and passes the tests: makes .venv if needed, installs the package with [test], runs ruff, mypy and pytest.
# Usage: bash launch/test.sh [pytest arguments]; tests that take long run with `bash launch/test.sh -m slow`.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
# What is never imported need not be compiled, a minute of a fresh installation; the rest is, once: 3 to 8 seconds of each process.
unset PYTHONDONTWRITEBYTECODE
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[test]'
.venv/bin/ruff check .
.venv/bin/ruff format --check .
# Types are checked beside the tests, by one core: that saves half of its time. What it finds is printed last.
types=$(mktemp)
.venv/bin/mypy >"$types" 2>&1 &
mypy=$!
trap 'kill "$mypy" 2>/dev/null || true; rm -f "$types"' EXIT
export JAX_PLATFORMS=cpu
code=0
.venv/bin/python -m pytest -n 2 --dist=loadfile --no-loadscope-reorder "$@" || code=$?
wait "$mypy" || code=$?
cat "$types"
exit "$code"
