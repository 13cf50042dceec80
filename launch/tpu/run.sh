#!/usr/bin/env bash
# Runs a command on all workers of a Cloud TPU slice: asks for the slice as a queued resource, waits for it, installs this commit.
# Usage: NAME=judge ZONE=us-west4-a TYPE=v5litepod-16 bash launch/tpu/run.sh judgelm-train --distributed --resume --config=...
# SPOT=1 asks for a slice that may be taken away; then the same command asks for another one and goes on. Paths that workers
# share must be mounted on them. When all is done: gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${NAME:?a name for the slice}" "${ZONE:?its zone}" "${TYPE:?its type, as v5litepod-16}"
[ $# -gt 0 ] || { echo "run.sh: which command? see the usage in this file" >&2; exit 2; }
resource=(gcloud compute tpus queued-resources)
state() { "${resource[@]}" describe "$NAME" --zone="$ZONE" --format='value(state.state)' 2>/dev/null || echo ABSENT; }
case $(state) in SUSPENDED | FAILED) "${resource[@]}" delete "$NAME" --zone="$ZONE" --force --quiet ;; esac
if [ "$(state)" = ABSENT ]; then
  "${resource[@]}" create "$NAME" --node-id="$NAME" --zone="$ZONE" --accelerator-type="$TYPE" \
    --runtime-version="${VERSION:-v2-alpha-tpuv5-lite}" ${SPOT:+--spot}
fi
until [ "$(state)" = ACTIVE ]; do
  case $(state) in FAILED | SUSPENDED | ABSENT) echo "run.sh: the slice $NAME is $(state)" >&2; exit 1 ;; esac
  sleep "${POLL_SECONDS:-30}"
done
everywhere=(gcloud compute tpus tpu-vm)
package=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$package"' EXIT
git archive --format=tar.gz --output="$package" HEAD
"${everywhere[@]}" scp "$package" "$NAME:judgelm.tar.gz" --zone="$ZONE" --worker=all
"${everywhere[@]}" ssh "$NAME" --zone="$ZONE" --worker=all --command='
  mkdir -p judgelm && tar -xzf judgelm.tar.gz -C judgelm
  command -v python3.11 || { sudo apt-get update -q && sudo apt-get install -qy python3.11-venv; }
  cd judgelm && python3.11 -m venv .venv && .venv/bin/pip install -q ".[tpu]"'
"${everywhere[@]}" ssh "$NAME" --zone="$ZONE" --worker=all --command="cd judgelm && PATH=\$PWD/.venv/bin:\$PATH $(printf '%q ' "$@")"
