#!/usr/bin/env bash
# Judges a file in independent parts, one job of an array each; the last to end joins them. A killed part goes on by itself.
# Usage: sbatch --array=0-7 launch/slurm/judge_shards.sh --model=MODEL --input=records.jsonl --output=judgments.jsonl
# Flags of judgelm-judge follow the script; --shard and --resume are given here. The commands must be on PATH.
# All parts write below --output, so it must lie on a file system that all nodes share.
#SBATCH --job-name=judgelm-judge
#SBATCH --ntasks=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
shard=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))
code=0
judgelm-judge --resume --shard="$shard/$SLURM_ARRAY_TASK_COUNT" "$@" || code=$?
# 137: killed. 143: ended by SIGTERM. Anything else would happen again.
if [[ $code == 137 || $code == 143 ]] && ((${SLURM_RESTART_COUNT:-0} < 100)); then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
