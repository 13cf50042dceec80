# shellcheck shell=bash
# Makes .venv where there is none, or says which Python is needed: one that is too old or too new would stay in it.
# Usage: source launch/environment.sh, in the folder of the clone; PYTHON names the Python to take
set -euo pipefail
python=.venv/bin/python
[ -x "$python" ] || python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || {
  echo "$python: $("$python" --version 2>&1), and judgelm_jax needs 3.11 or 3.12; set PYTHON=python3.11 and remove .venv if there is one" >&2
  exit 2
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
