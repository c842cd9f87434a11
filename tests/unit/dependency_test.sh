#!/usr/bin/env bash
# The arrows of the architecture and the habits of its sources, checked by reading them.
#
# Usage: dependency_test.sh ROOT. Prints one line per violation and exits with 1 if there is any. Before that it plants
# one violation of every kind in a temporary tree and fails unless each is found.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C

readonly kMaxLines=500
readonly kFolders=(reference optimized harness experiments tests cmake notebooks .ci)
readonly kSources=(-name '*.hpp' -o -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh'
  -o -name '*.sh' -o -name '*.py' -o -name '*.cmake')
readonly kTexts=(-name '*.md' -o -name '*.toml' -o -name 'CMakeLists.txt')

# Prints the existing folders among $2.. below root $1.
folders() {
  local root=$1 folder
  shift
  for folder in "$@"; do
    if [[ -d $root/$folder ]]; then printf '%s\n' "$root/$folder"; fi
  done
}

# includes ROOT FOLDER FORBIDDEN [EXCEPT]: include lines below FOLDER whose path matches FORBIDDEN but not EXCEPT.
includes() {
  local root=$1 folder=$2 forbidden=$3 except=${4:-}
  [[ -d $root/$folder ]] || return 0
  grep -rnE --include='*.hpp' --include='*.cpp' --include='*.h' --include='*.cu' --include='*.cuh' \
    "^[[:space:]]*#[[:space:]]*include[[:space:]]*[\"<]($forbidden)" "$root/$folder" |
    { if [[ -n $except ]]; then grep -vE "[\"<]($except)" || true; else cat; fi; } |
    sed "s|\$|: $folder must not include it|" || true
}

violations() {
  local root=$1 file lines
  local -a present
  mapfile -t present < <(folders "$root" "${kFolders[@]}")

  includes "$root" reference '(optimized|harness|experiments|tests)/'
  includes "$root" optimized '(reference|harness|experiments|tests)/' 'reference/problem/'
  includes "$root" harness '(experiments|tests)/'
  includes "$root" experiments 'tests/'
  for file in "${kFolders[@]}"; do includes "$root" "$file" '\.\.?/'; done

  while IFS= read -r file; do
    lines=$(wc -l <"$file")
    if ((lines > kMaxLines)); then echo "$file: $lines lines, allowed are $kMaxLines"; fi
    grep -q 'SPDX-License-Identifier: Apache-2\.0' "$file" || echo "$file: no SPDX-License-Identifier line"
  done < <(find "${present[@]}" -type f \( "${kSources[@]}" \) | sort)

  find "${present[@]}" -type f \( "${kSources[@]}" -o "${kTexts[@]}" \) -print0 |
    xargs -0 -r grep -nwE 'TO''DO|FIX''ME|XX''X' | sed 's|$|: write an issue instead|' || true
}

# A clean tree below $1, with everything that is allowed.
plant_clean_tree() {
  local folder
  for folder in reference reference/problem optimized/comm harness/run experiments tests/unit; do
    mkdir -p "$1/$folder"
    {
      echo '// SPDX-License-Identifier: Apache-2.0'
      echo '#include "reference/problem/problem.hpp"'
    } >"$1/$folder/clean.cpp"
  done
  echo '#include "optimized/context.hpp"' >>"$1/harness/run/clean.cpp"
  echo '#include "reference/attention.hpp"' >>"$1/harness/run/clean.cpp"
  echo '#include "harness/compare/naive.hpp"' >>"$1/experiments/clean.cpp"
}

# must_find WHAT FILE LINE: a clean tree with LINE added to FILE has exactly one violation, in FILE.
must_find() {
  local what=$1 file=$2 line=$3 tree found
  tree=$(mktemp -d "$temporary/tree.XXXX")
  plant_clean_tree "$tree"
  found=$(violations "$tree")
  if [[ -n $found ]]; then
    echo "self-test: the clean tree is refused: $found"
    return 1
  fi
  printf '%b\n' "$line" >>"$tree/$file"
  found=$(violations "$tree")
  if [[ $(grep -c . <<<"$found") != 1 || $found != "$tree/$file"* ]]; then
    echo "self-test: $what: expected one violation in $file, found '$found'"
    return 1
  fi
}

self_test() {
  must_find 'reference includes optimized' reference/clean.cpp '#include "optimized/tensor.hpp"'
  must_find 'reference includes harness' reference/problem/clean.cpp '#  include <harness/run/verify.hpp>'
  must_find 'reference includes experiments' reference/clean.hpp \
    '// SPDX-License-Identifier: Apache-2.0\n#include "experiments/main.hpp"'
  must_find 'optimized includes the reference' optimized/comm/clean.cpp '#include "reference/attention.hpp"'
  must_find 'optimized includes harness' optimized/comm/clean.cpp ' #include "harness/compare/naive.hpp"'
  must_find 'optimized includes experiments' optimized/comm/clean.cpp '#include "experiments/main.hpp"'
  must_find 'harness includes experiments' harness/run/clean.cpp '#include "experiments/main.hpp"'
  must_find 'harness includes tests' harness/run/clean.cpp '#include "tests/unit/cases.hpp"'
  must_find 'a relative include' optimized/comm/clean.cpp '#include "../../harness/compare/naive.hpp"'
  must_find 'a long source' tests/unit/clean.cpp "$(printf '// line\\n%.0s' $(seq $kMaxLines))"
  must_find 'no SPDX line' experiments/plain.py 'print(1)'
  must_find 'an unfinished note in a source' harness/run/clean.cpp '// TO''DO: later'
  must_find 'an unfinished note in a text' reference/README.md 'FIX''ME'
}

if (($# != 1)) || [[ ! -f $1/CMakeLists.txt || ! -d $1/reference/problem ]]; then
  echo "usage: $0 ROOT, the project's top folder" >&2
  exit 2
fi
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
self_test
found=$(violations "$1")
if [[ -n $found ]]; then
  printf '%s\n' "$found"
  exit 1
fi
echo "dependencies, lengths, licence lines: no violation"
