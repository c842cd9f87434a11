#!/usr/bin/env bash
# seqpar on the nodes of a host file, or on this one, under Open MPI: one rank per process, one GPU per rank.
#
# Prints the mpirun command, then becomes it. README.md tells the way of a first run.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

fail() { # fail CODE MESSAGE
  printf 'mpi.sh: %s\n' "$2" >&2
  exit "$1"
}

usage() {
  cat <<'END'
Usage: experiments/cluster/mpi.sh -n RANKS [--hosts FILE] [--per-node RANKS] SUBCOMMAND [ARGUMENT...]

  -n RANKS          ranks in all
  --hosts FILE      one host per line, "node1 slots=8"; without it all ranks run here
  --per-node RANKS  ranks on each node; give it the number of GPUs of a node
SEQPAR names the program (default: build/release/experiments/seqpar), MPIRUN the launcher (default: mpirun).
Example: experiments/cluster/mpi.sh -n 16 --hosts hosts --per-node 8 verify --backend cuda
END
}

is_count() { [[ $1 =~ ^[1-9][0-9]{0,5}$ ]]; }

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
seqpar=${SEQPAR:-$root/build/release/experiments/seqpar}
launcher=${MPIRUN:-mpirun}
ranks='' hosts='' per_node=''
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    -n | --hosts | --per-node)
      (($# > 1)) || fail 2 "$1 needs a value; see --help"
      case $1 in -n) ranks=$2 ;; --hosts) hosts=$2 ;; --per-node) per_node=$2 ;; esac
      shift 2
      ;;
    -*) fail 2 "unknown option $1; see --help" ;;
    *) break ;;
  esac
done
[[ -n $ranks ]] || fail 2 "-n RANKS is missing; see --help"
is_count "$ranks" || fail 2 "-n takes a positive number, not '$ranks'"
[[ -z $per_node ]] || is_count "$per_node" || fail 2 "--per-node takes a positive number, not '$per_node'"
[[ -z $hosts || -r $hosts ]] || fail 2 "there is no host file '$hosts'"
(($#)) || fail 2 "which subcommand? e.g. verify --backend cuda; see --help"
[[ -x $seqpar ]] || fail 3 "there is no program $seqpar: build it with ./seqpar env, or set SEQPAR"
command -v "$launcher" >/dev/null || fail 3 "there is no $launcher: install Open MPI, or set MPIRUN"

# Unbound: NCCL and the kernels' host threads choose their own cores.
command=("$launcher" -np "$ranks" --bind-to none)
if [[ -n $hosts ]]; then command+=(--hostfile "$hosts"); fi
if [[ -n $per_node ]]; then command+=(--map-by "ppr:$per_node:node"); fi
command+=("$seqpar" "$@")
printf 'mpi.sh: %s\n' "${command[*]}" >&2
exec "${command[@]}"
