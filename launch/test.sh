#!/usr/bin/env bash
# Sets up and passes the tests: makes .venv if needed, installs the package with [test], runs ruff, mypy and pytest.
# Usage: bash launch/test.sh [pytest arguments]; tests that take long run with `bash launch/test.sh -m slow`.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
export JAX_PLATFORMS=cpu
exec .venv/bin/python -m pytest -n 2 --dist=loadfile "$@"
