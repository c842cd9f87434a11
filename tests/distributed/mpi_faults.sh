#!/bin/sh
# Runs a ring of 4 processes in which rank 1 has the given fault, and demands that the job fails
# within the limit with the expected words.
#
# usage: mpi_faults.sh MPIEXEC PROGRAM FAULT WORDS...
#
# SPDX-License-Identifier: Apache-2.0
mpiexec=$1
program=$2
fault=$3
shift 3

seconds=30  # the waits end after 1 s, the grace after 3 s; the rest is for a busy machine
output=$(timeout -k 5 "$seconds" "$mpiexec" -np 4 --oversubscribe "$program" "$fault" 2>&1)
status=$?
printf '%s\n' "$output"

if [ "$fault" = none ]; then
  exit "$status"
fi
if [ "$status" -eq 0 ]; then
  echo "FAILED: the job did not fail"
  exit 1
fi
if [ "$status" -eq 124 ]; then
  echo "FAILED: the job still ran after $seconds s"
  exit 1
fi
for words in "$@"; do
  case $output in
    *"$words"*) ;;
    *)
      echo "FAILED: nobody said '$words'"
      exit 1
      ;;
  esac
done
