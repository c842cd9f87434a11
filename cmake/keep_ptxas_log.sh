#!/usr/bin/env bash
# keep_ptxas_log.sh COMPILER... -o OBJECT: runs the compiler and moves what ptxas tells of its kernels from the standard
# error to OBJECT.ptxas. Everything else, warnings above all, stays where it was.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
object=
for ((i = 1; i < $#; ++i)); do
  if [[ ${!i} == -o ]]; then
    next=$((i + 1))
    object=${!next}
  fi
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
"$@" 2>"$log" || code=$?
# ptxas writes "ptxas info    : ..." and indented lines that go on with it.
if [[ $object == *.o ]]; then grep -E '^(ptxas info| {4})' "$log" >"$object.ptxas" || true; fi
grep -vE '^(ptxas info| {4}[0-9]+ bytes)' "$log" >&2 || true
exit "$code"
