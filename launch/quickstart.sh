#!/usr/bin/env bash
# Sets up and runs the main job on data that the package makes itself: makes .venv, installs, judges, prints the metrics.
# Usage: bash launch/quickstart.sh [flags of judgelm-quickstart]
set -euo pipefail
cd "$(dirname "$0")/.."
# A wrong Python is refused before it has made a .venv, in which it would stay.
python=.venv/bin/python
[ -x "$python" ] || python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || {
  echo "$python: $("$python" --version 2>&1), and judgelm_jax needs 3.11 or 3.12; set PYTHON=python3.11 and remove .venv if there is one" >&2
  exit 2
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable .
exec .venv/bin/judgelm-quickstart "$@"
