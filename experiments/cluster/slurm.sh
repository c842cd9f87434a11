#!/usr/bin/env bash
#SBATCH --job-name=seqpar
#SBATCH --output=seqpar-%j.log
#SBATCH --exclusive
#
# seqpar as a SLURM job: one task per GPU of every node of the job. README.md tells the way of a first run.
#
# Submit it from the project's top folder; options for sbatch come before the script:
#   sbatch --nodes=2 --gpus-per-node=8 experiments/cluster/slurm.sh verify --backend cuda
# TASKS_PER_NODE overrides the number of GPUs (for --backend mpi), PMI the kind of srun's --mpi (default: pmix), SEQPAR
# the program (default: build/release/experiments/seqpar).
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

fail() { # fail CODE MESSAGE
  printf 'slurm.sh: %s\n' "$2" >&2
  exit "$1"
}

(($#)) || fail 2 "which subcommand? e.g. sbatch --nodes=2 --gpus-per-node=8 slurm.sh verify --backend cuda"
[[ -n ${SLURM_JOB_ID:-} ]] || fail 2 "this is no SLURM job; submit it: sbatch --nodes=2 --gpus-per-node=8 slurm.sh $*"
nodes=${SLURM_JOB_NUM_NODES:-1}
per_node=${TASKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-}}
[[ $per_node =~ ^[1-9][0-9]{0,5}$ ]] ||
  fail 2 "the job has no GPUs: give sbatch --gpus-per-node=N, or set TASKS_PER_NODE"
# sbatch runs a copy of this file, so the project is where the job was submitted.
seqpar=${SEQPAR:-${SLURM_SUBMIT_DIR:-.}/build/release/experiments/seqpar}
[[ -x $seqpar ]] || fail 3 "there is no program $seqpar: submit from the top folder of a built copy, or set SEQPAR"

# Every task sees all GPUs of its node and takes the one of its local rank.
command=(srun --nodes="$nodes" --ntasks=$((nodes * per_node)) --ntasks-per-node="$per_node" --gpu-bind=none
  --mpi="${PMI:-pmix}" --kill-on-bad-exit=1 "$seqpar" "$@")
printf 'slurm.sh: %s\n' "${command[*]}"
exec "${command[@]}"
