#!/usr/bin/env bash
# What one GPU says of the CUDA half, in eight minutes: the most valuable first, every step with its own limit of time and
# its own stored result. README.md tells how to read the page.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd -P)
readonly here

usage() {
  cat <<'END'
Usage: experiments/cluster/one_gpu.sh [--results DIR] [--emulate]
       experiments/cluster/one_gpu.sh --pack DIR [--arch NUMBER]

Without --pack: runs all steps and writes DIR (default one_gpu_results), which must be new:
  page.md       what agreed, what did not, measured beside predicted; rewritten after every step
  steps.jsonl   a line for every step that ended: name, verdict, seconds, limit, what it said last
  NN-name.*     what each step printed, and its run files
  one_gpu.tar.gz  all of it
  --emulate     the same course on the emulator, with small problems; no GPU
With --pack: builds for one architecture (default: that of this machine's GPU), without MPI, and makes DIR a folder that
can be moved, with the programs, their libraries and this script: DIR/one_gpu.sh needs nothing but a driver and bash.
SEQPAR and KERNEL_TESTS name the programs otherwise.
Exit code 0: no step failed. 1: one did. 2: wrong usage. 3: the environment.
END
}

fail() { # fail CODE MESSAGE
  printf 'one_gpu.sh: %s\n' "$2" >&2
  exit "$1"
}

results=one_gpu_results pack='' arch='' backend=cuda
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --emulate) backend=emulated ;;
    --results | --pack | --arch)
      [[ -n ${2:-} ]] || fail 2 "$1 needs a value; see --help"
      case $1 in --results) results=$2 ;; --pack) pack=$2 ;; --arch) arch=$2 ;; esac
      shift
      ;;
    *) fail 2 "unknown word '$1'; see --help" ;;
  esac
  shift
done
[[ -z $arch || -n $pack ]] || fail 2 "--arch goes with --pack; see --help"
[[ -z $arch || $arch =~ ^(80|86|89|90|100)$ ]] || fail 2 "--arch takes 80, 86, 89, 90 or 100, not '$arch'"

# ---- Packing -------------------------------------------------------------------------------------

# Everything the programs load but the C library and the driver.
copy_libraries() { # copy_libraries DIR PROGRAM...
  local to=$1
  ldd "${@:2}" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|ld-linux[^/]*|libcuda|libnvidia[^/]*)\.so' |
    xargs -r cp -Lt "$to"
}

make_pack() {
  local root=$here/../.. build=$here/../../build/one_gpu
  [[ -e $root/CMakePresets.json ]] || fail 2 "--pack needs the sources; this is a packed copy"
  [[ ! -e $pack ]] || fail 2 "$pack is there already; --pack makes a new folder"
  if [[ -z $arch ]]; then
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .) || true
    [[ -n $arch ]] || fail 2 "no GPU here that tells its architecture; give --arch, e.g. --arch 90 for H100 and H200"
  fi
  mkdir -p "$build" "$pack/bin" "$pack/lib" || fail 3 "cannot write to $pack"
  {
    cmake -S "$root" --preset release -B "$build" -DSP_ENABLE_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$arch-real" -DSP_ENABLE_MPI=OFF \
      -DSP_ENABLE_BENCHMARKS=OFF -DSP_ENABLE_TESTS=ON &&
      cmake --build "$build" --target seqpar cuda_kernel_tests &&
      cmake --install "$build" --prefix "$pack"
  } >"$build/pack.log" 2>&1 || fail 3 "the build failed: $(tail -n 1 "$build/pack.log") (log: $build/pack.log)"
  cp "$build/tests/emulated/cuda_kernel_tests" "$pack/bin"
  cp "$here/one_gpu.sh" "$here/ceilings.py" "$pack"
  copy_libraries "$pack/lib" "$pack/bin/seqpar" "$pack/bin/cuda_kernel_tests"
  printf 'one_gpu.sh: made %s for sm_%s; copy it to the GPU, then run its one_gpu.sh\n' "$pack" "$arch" >&2
}

if [[ -n $pack ]]; then
  make_pack
  exit 0
fi

# ---- Programs ------------------------------------------------------------------------------------

if [[ -d $here/bin ]]; then
  default_seqpar=$here/bin/seqpar default_tests=$here/bin/cuda_kernel_tests
  export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
else
  built=$here/../../build/release
  default_seqpar=$built/experiments/seqpar default_tests=$built/tests/emulated/cuda_kernel_tests
  if [[ $backend == emulated ]]; then default_tests=$built/tests/emulated/gpu_kernel_tests; fi
fi
export SEQPAR=${SEQPAR:-$default_seqpar} KERNEL_TESTS=${KERNEL_TESTS:-$default_tests}
for program in "$SEQPAR" "$KERNEL_TESTS"; do
  [[ -x $program ]] || fail 3 "there is no program $program: run ./seqpar --with-cuda test -N, or --pack, or set its variable"
done
if [[ $backend == cuda ]] && "$SEQPAR" env | grep -qE '^gpus +0$'; then
  fail 3 "no GPU here, or no driver: --emulate takes the same course on the emulator"
fi
[[ ! -e $results || (-d $results && -z $(ls -A "$results")) ]] || fail 2 "$results is not empty; --results makes a new folder"
mkdir -p "$results" 2>/dev/null || fail 3 "cannot write to $results"
results=$(cd -- "$results" && pwd -P)

# Small on the emulator, which executes every thread by itself.
if [[ $backend == cuda ]]; then
  shards=12 of_tests=1 cases=10 some='' lengths=4K,8K,16K,32K long=16K,64K repetitions=10
else
  shards=2 of_tests=100 cases=1 some='--algorithm ring/zigzag,lasp2,ulysses --tokens 40' lengths=64 long=64 repetitions=1
fi

# ---- Steps ---------------------------------------------------------------------------------------

number=0 steps=() child=''

# A TERM ends the step under way too; what has been stored stays.
trap 'if [[ -n $child ]]; then kill "$child" 2>/dev/null || true; fi; exit 143' TERM INT

json_string() { # of one line
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "${text//[$'\t\r\n']/ }"
}

# step NAME SECONDS COMMAND...
step() {
  local name=$1 limit=$2 code=0 verdict file
  shift 2
  number=$((number + 1))
  file=$(printf '%s/%02d-%s' "$results" "$number" "${name// /-}")
  local begin=$SECONDS
  STEP=$file timeout --kill-after=5 "$limit" "$@" >"$file.log" 2>&1 </dev/null &
  child=$!
  wait "$child" || code=$?
  child=''
  case $code in
    0) verdict=good ;;
    124 | 137) verdict='too slow' ;;
    *) verdict=failed ;;
  esac
  finish "$name" "$verdict" $((SECONDS - begin)) "$limit" "$(grep -v '^[[:space:]]*$' "$file.log" | tail -n 1 | cut -c 1-160)"
}

# without NAME SECONDS TOOL: the step that is left out
without() {
  number=$((number + 1))
  finish "$1" absent 0 "$2" "no $3 here"
}

finish() { # finish NAME VERDICT SECONDS LIMIT SAID
  steps+=("| $number | $1 | $2 | $3 of $4 | ${5//|/\\|} |")
  printf '{"step": %d, "name": %s, "verdict": %s, "seconds": %d, "limit": %d, "said": %s}\n' "$number" \
    "$(json_string "$1")" "$(json_string "$2")" "$3" "$4" "$(json_string "$5")" >>"$results/steps.jsonl"
  if [[ $2 == failed || $2 == 'too slow' ]]; then bad+=("$1"); fi
  printf '%-28s %-9s %4d s  %s\n' "$1" "$2" "$3" "$5"
  write_page
}

block() { # block TITLE FILE...: those that are there, as they are
  local file
  for file in "${@:2}"; do
    [[ -s $file ]] || continue
    printf '\n## %s\n\n```\n' "$1"
    cat "$file"
    printf '```\n'
  done
}

write_page() {
  local file
  {
    printf '# One GPU: %s\n\n%s, %s\n\n' "$gpu" "$version" "$(date -u +%FT%TZ)"
    printf '| | step | verdict | s | it said |\n| --- | --- | --- | --- | --- |\n'
    printf '%s\n' "${steps[@]}"
    for name in "${bad[@]}"; do
      file=$(find "$results" -name "*-${name// /-}.log")
      printf '\n## What did not agree: %s\n\n```\n' "$name"
      tail -n 12 "$file" | cut -c 1-200
      printf '```\n'
    done
    block 'How the tensor cores add' "$results"/*.cores
    block 'Ceilings by PyTorch' "$results"/*ceilings.log
    block 'Measured beside predicted' "$results"/*beside-predicted.log
  } >"$results/page.new"
  mv "$results/page.new" "$results/page.md"
}

# ---- What they do; STEP names their files ----------------------------------------------------------

look_around() {
  nvidia-smi 2>/dev/null || true
  "$SEQPAR" env
}

tensor_cores() {
  "$KERNEL_TESTS" --gtest_filter='*TensorCore*' --gtest_brief=1
  grep '^tensor cores' "$STEP.log" >"$STEP.cores"
  tail -n 1 "$STEP.cores"
}

# Every test in one of the shards, each twice: other bits the second time are a failure of the test.
kernels_twice() {
  local shard code=0
  local -a running=()
  for ((shard = 0; shard < shards; ++shard)); do
    GTEST_TOTAL_SHARDS=$((shards * of_tests)) GTEST_SHARD_INDEX=$((shard * of_tests)) \
      "$KERNEL_TESTS" --gtest_repeat=2 --gtest_brief=1 >"$STEP.$shard.log" 2>&1 &
    running+=($!)
  done
  for shard in "${running[@]}"; do wait "$shard" || code=1; done
  grep -h '^\[  FAILED' "$STEP".*.log | sed 's/, where GetParam.*//' | sort -u | head -n 40 || true
  grep -hE '^\[  PASSED' "$STEP".*.log | awk '{sum += $4} END {printf "%d runs of tests passed\n", sum}'
  return "$code"
}

sanitize() { # sanitize TOOL: about 30 tests, spread over all
  local total
  total=$("$KERNEL_TESTS" --gtest_list_tests | grep -c '^  ')
  GTEST_TOTAL_SHARDS=$((total / 30 + 1)) GTEST_SHARD_INDEX=0 \
    compute-sanitizer --tool "$1" --error-exitcode 1 "$KERNEL_TESTS" --gtest_brief=1
}

verify() { # verify WORDS...
  # shellcheck disable=SC2086
  "$SEQPAR" verify --backend "$backend" --cases "$cases" $some --timeout 20 --out "$STEP.h5" "$@"
}

attention_times() { # attention_times HEAD_SIZE
  "$SEQPAR" bench --backend "$backend" --algorithm ring/contiguous --ranks 1 --tokens "$lengths" --heads 16 \
    --head-size "$1" --dtype bf16 -n "$repetitions" --out "$STEP.h5"
}

module_times() {
  local common=(--backend "$backend" --algorithm lasp2 --ranks 1 --tokens "$long" --heads 8 --value-head-size 64 --dtype bf16)
  "$SEQPAR" bench "${common[@]}" --module basic,lightning,retention,gla --head-size 64 -n "$repetitions" --out "$STEP.h5" &&
    "$SEQPAR" bench "${common[@]}" --module rebased --head-size 16 -n "$repetitions" --out "$STEP-mapped.h5"
}

# The same rows as `attention_times 128`, from the platform's model of this kind of GPU.
beside_predicted() {
  local measured
  measured=$(find "$(dirname "$STEP")" -name '*attention-128.h5')
  [[ -n $measured ]] || { echo 'attention 128 was not measured' && return 1; }
  "$SEQPAR" simulate --platform "$platform" --algorithm ring/contiguous --ranks 1 --tokens "$lengths" --heads 16 \
    --head-size 128 --dtype bf16 --out "$STEP.h5" >"$STEP.simulated.log"
  "$SEQPAR" compare --backends --mix "$measured" "$STEP.h5" || (($? == 1)) # differing is what they are looked at for
}

profile() {
  local kernel
  for kernel in attention_forward attention_backward_keys attention_backward_queries linear_intra linear_pass linear_apply \
    vector_gradients value_gradients; do
    ncu --clock-control none --kernel-name-base function -k "regex:$kernel" -c 1 --section SpeedOfLight --section Occupancy \
      "$KERNEL_TESTS" --gtest_filter='*large*:*Attention*' --gtest_brief=1 | grep -E "$kernel|%|Duration" || true
  done
}

export -f look_around tensor_cores kernels_twice sanitize verify attention_times module_times beside_predicted profile
export backend shards of_tests cases some lengths long repetitions

bad=()
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || true
if [[ $backend == emulated ]]; then gpu='emulated A100'; fi
gpu=${gpu:-not known}
version=$("$SEQPAR" --version | head -n 1)
case $gpu in *H100* | *H200* | *H800*) platform=h100_ndr ;; *) platform=dgx_a100 ;; esac
export platform

step 'environment' 10 bash -c look_around
step 'tensor cores' 10 bash -ec tensor_cores
step 'kernels twice' 90 bash -c kernels_twice
for tool in memcheck racecheck synccheck initcheck; do
  if command -v compute-sanitizer >/dev/null && [[ $backend == cuda ]]; then
    step "$tool" 15 bash -ec "sanitize $tool"
  else
    without "$tool" 15 compute-sanitizer
  fi
done
step 'one rank' 40 bash -c 'verify --ranks 1'
step 'many ranks' 50 bash -c 'verify --transport local --ranks 2..8'
if [[ $backend == cuda ]] && python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  step 'ceilings' 30 python3 "$here/ceilings.py"
else
  without 'ceilings' 30 'PyTorch with a GPU'
fi
step 'attention 64' 30 bash -c 'attention_times 64'
step 'attention 128' 40 bash -c 'attention_times 128'
step 'beside predicted' 10 bash -c beside_predicted
step 'modules' 40 bash -c module_times
if command -v ncu >/dev/null && [[ $backend == cuda ]]; then
  step 'profile' 60 bash -c profile
else
  without 'profile' 60 ncu
fi

(cd -- "$results" && tar -czf one_gpu.new page.md steps.jsonl [0-9]* && mv one_gpu.new one_gpu.tar.gz)
printf 'one_gpu.sh: %s steps, %s did not agree; read %s/page.md\n' "$number" "${#bad[@]}" "$results" >&2
((${#bad[@]} == 0))
