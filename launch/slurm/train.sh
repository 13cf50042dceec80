#!/usr/bin/env bash
# Trains on several nodes, one process a node; after a kill, a lost node or the end of its time the job goes on by itself.
# Usage: sbatch --nodes=4 launch/slurm/train.sh --config=configs/judgelm_7b.py --data=train.jsonl --init_from=MODEL --output=RUN
# Flags of judgelm-train follow the script; --distributed and --resume are given here. The commands must be on PATH.
#SBATCH --job-name=judgelm-train
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
set -euo pipefail
code=0
srun --kill-on-bad-exit=0 judgelm-train --distributed --resume "$@" || code=$?
# 3: a process was lost. 137: killed. 143: saved after SIGTERM. Anything else would happen again.
if [[ $code == 3 || $code == 137 || $code == 143 ]] && ((${SLURM_RESTART_COUNT:-0} < 100)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
