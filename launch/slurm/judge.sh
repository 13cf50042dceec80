#!/usr/bin/env bash
# Judges with one model over several nodes, for judges that one node cannot hold; the job goes on by itself after a kill.
# Usage: sbatch --nodes=4 launch/slurm/judge.sh --model=MODEL --input=records.jsonl --output=judgments.jsonl --mesh=tensor:4
# Flags of judgelm-judge follow the script; --distributed and --resume are given here. The commands must be on PATH.
#SBATCH --job-name=judgelm-judge
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail
code=0
srun --kill-on-bad-exit=0 judgelm-judge --distributed --resume "$@" || code=$?
# 3: a process was lost. 137: killed. 143: flushed after SIGTERM. Anything else would happen again.
if [[ $code == 3 || $code == 137 || $code == 143 ]] && ((${SLURM_RESTART_COUNT:-0} < 100)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
