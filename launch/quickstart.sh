#!/usr/bin/env bash
# Sets up and runs the main job on data that the package makes itself: makes .venv, installs, judges, prints the metrics.
# Usage: bash launch/quickstart.sh [flags of judgelm-quickstart]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable .
exec .venv/bin/judgelm-quickstart "$@"
