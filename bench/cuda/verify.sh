#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#
# All that a device is needed for, in one go of less than nine minutes, on a machine that has CUDA,
# CMake and a python3 with torch, and no network:
#
#   bench/cuda/verify.sh --prepare DIR
#       where there are a network and the repository: DIR gets doctest and Google Benchmark, from
#       Debian's packages, and the commit's name
#   bench/cuda/verify.sh [--carry DIR] [--out DIR] [--dry-run]
#       configures, builds, tests, tests under compute-sanitizer, measures ours and PyTorch in
#       turns, and prints one table last. --out gets logs and figures (build/verify/out by default).
#
# Every step has seconds of its own, and one that fails or is not done in them hides no other. The
# exit code says whether the tests passed. --dry-run does what can be done without a device: tests
# have to be skipped with a reason, and figures are made up and say so. PYTHON names another
# python3.
# shellcheck disable=SC2317  # steps are called by their names
set -uo pipefail
exec </dev/null

carry='' dry='' prepare='' out=''
while (($# > 0)); do
  case $1 in
    --prepare) prepare=$(realpath -m "${2:?--prepare needs a folder}"); shift ;;
    --carry) carry=$(realpath -m "${2:?--carry needs a folder}"); shift ;;
    --out) out=$(realpath -m "${2:?--out needs a folder}"); shift ;;
    --dry-run) dry=yes ;;
    *) sed -n '4,17s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift
done
cd "$(dirname "$0")/../.." || exit
build=$PWD/build/verify
out=${out:-$build/out}

# The commit, and whether the sources are its.
commit_name() {
  local changed
  git rev-parse HEAD 2>/dev/null || return
  changed=$(git status --porcelain -- include bench tests cmake CMakeLists.txt ':!bench/results')
  if [[ -n $changed ]]; then echo 'with changes'; fi
}

# ---- what is carried along ----

# package_files <folder> <package>...: as installed, else downloaded, under <folder>
package_files() {
  local folder=$1 package file
  shift
  for package; do
    if dpkg -s "$package" >/dev/null 2>&1; then
      while read -r file; do
        if [[ -f $file ]]; then install -D -m 644 "$file" "$folder$file"; fi
      done < <(dpkg -L "$package")
    else
      (cd "$folder" && apt-get download "$package" && dpkg-deb -x "$package"_*.deb .) || return 1
    fi
  done
}

# Laid out as /usr is; links become files. doctest's targets name /usr and are turned around.
carry_into() {
  local folder=$1 temporary targets=$1/lib/cmake/doctest/doctestTargets.cmake
  # shellcheck disable=SC2016  # CMake's variables
  local there='get_filename_component(_IMPORT_PREFIX "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)'
  temporary=$(mktemp -d)
  package_files "$temporary" doctest-dev libbenchmark-dev libbenchmark1debian || return 1
  mkdir -p "$folder"
  cp -rL "$temporary"/usr/{include,lib} "$folder"/ || return 1
  rm -rf "$temporary"
  sed -i "s|^set(_IMPORT_PREFIX \"/usr\")|$there|" "$targets"
  commit_name | paste -sd ' ' >"$folder/commit"
  test -s "$folder/include/doctest/doctest.h" && test -s "$folder/include/benchmark/benchmark.h" &&
    du -sh "$folder"
}

if [[ -n $prepare ]]; then
  carry_into "$prepare"
  exit
fi

# ---- steps ----

all_seconds=530
if [[ -n $dry ]]; then all_seconds=3600; fi
mkdir -p "$out"
log=$out/verify.log
: >"$log"
declare -A results=()
order=()

say() { printf '%s\n' "$*" | tee -a "$log"; }
left() { echo $((all_seconds - SECONDS)); }

# step <name> <seconds> <function> [<argument>...]: its output goes to the log, its last lines here.
step() {
  local name=$1 seconds=$2 start=$SECONDS code=0 part=$out/step.tmp
  shift 2
  if [[ -n $dry ]]; then seconds=$((10 * seconds)); fi  # on a few cores
  if ((seconds > $(left))); then seconds=$(left); fi
  order+=("$name")
  if ((seconds < 3)); then
    results[$name]='not begun: out of time'
    say "=== $name: ${results[$name]}"
    return 1
  fi
  say "=== $name, at most $seconds s: $*"
  # shellcheck disable=SC2016
  timeout --kill-after=5 "$seconds" bash -c '"$@"' step "$@" >"$part" 2>&1 || code=$?
  cat "$part" >>"$log"
  tail -n "${lines:-6}" "$part" | cut -c1-300
  rm -f "$part"
  case $code in
    0) results[$name]=passed ;;
    77) results[$name]=skipped ;;
    124 | 137) results[$name]="stopped after $seconds s" ;;
    *) results[$name]="failed ($code)" ;;
  esac
  say "=== $name: ${results[$name]}, $((SECONDS - start)) s"
  return "$code"
}

has_device() { nvidia-smi -L >/dev/null 2>&1; }

machine() {
  local tool
  uname -sr && nproc && grep -m1 MemAvailable /proc/meminfo
  for tool in nvcc cmake ninja g++ compute-sanitizer "$python"; do
    printf '%s: %s\n' "$tool" "$(command -v "$tool" || echo absent)"
  done
  nvcc --version | tail -n 2
  "$python" -c 'import torch; print("torch", torch.__version__, torch.version.cuda)'
  if ! has_device; then echo 'no device'; return 77; fi
  nvidia-smi --format=csv \
    --query-gpu=name,driver_version,memory.free,clocks.sm,clocks.mem,temperature.gpu,power.draw
}

# Of the first device. What has instructions of its own is asked for with them.
architecture() {
  local capability
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
  capability=${capability//[!0-9]/}
  if [[ -z $capability ]]; then capability=90; fi
  if ((capability >= 90)); then echo "${capability}a"; else echo "$capability"; fi
}

configure() {
  local found=()
  if command -v ninja >/dev/null; then found+=(-G Ninja); fi
  if [[ -n $carry ]]; then
    found+=("-Ddoctest_DIR=$carry/lib/cmake/doctest"
      "-Dbenchmark_DIR=$(dirname "$(find "$carry" -name benchmarkConfig.cmake | head -n 1)")")
  fi
  cmake -S . -B "$build" "${found[@]}" -DCMAKE_BUILD_TYPE=Release -DSTRATA_CUDA=ON \
    -DSTRATA_CUDA_ARCHITECTURES="$(architecture)" -DSTRATA_BUILD_TESTS=ON -DSTRATA_BUILD_BENCH=ON \
    -DSTRATA_BUILD_EXAMPLES=OFF
}

# One program that does not compile keeps none of the others.
compile() {
  local keep_going=-k
  if [[ -f $build/build.ninja ]]; then keep_going=-k0; fi
  cmake --build "$build" --target strata_cuda_programs -j"$(nproc)" -- "$keep_going"
}

tests() {
  ctest --test-dir "$build" -L gpu --output-on-failure --no-tests=error --timeout 90 \
    --output-junit "$out/tests.xml" || return
  if [[ -n $dry ]]; then grep -q 'skipped=' "$out/tests.xml" && ctest_skips_all; fi
}

# Without a device a test that passes has not looked for one.
ctest_skips_all() {
  local program
  for program in "$build"/tests/cuda/device/test_*; do
    if [[ ! -x $program || -d $program ]]; then continue; fi
    "$program"
    if (($? != 77)); then return 1; fi
  done
}

# sanitize <tool> <seconds>: one case of 64 of each grid. What was found up to the end of the time
# counts, too.
sanitize() {
  local report=$out/sanitizer.tmp code=0 errors
  if ! command -v compute-sanitizer >/dev/null; then echo 'compute-sanitizer: absent'; return 77; fi
  if ! has_device; then echo 'no device'; return 77; fi
  STRATA_TEST_EVERY=64 timeout --kill-after=3 --signal=INT "$2" compute-sanitizer --tool "$1" \
    --print-limit 20 --error-exitcode 1 "$build"/tests/cuda/device/test_device \
    >"$report" 2>&1 || code=$?
  errors=$(grep -cE 'Invalid|Race reported|Uninitialized|Barrier error|Program hit' "$report")
  cat "$report"
  if grep -qE 'Device not supported|not supported on|Failed to initialize' "$report"; then
    echo 'refused on this machine'
    code=77
  fi
  rm -f "$report"
  echo "$1: exit code $code, $errors lines of errors"
  if ((errors > 0 && code != 77)); then return 1; fi
  return "$code"
}

bench_append() {
  "$build"/bench/cuda/append --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true \
    --benchmark_report_aggregates_only=true --benchmark_out="$out/append.json" \
    --benchmark_out_format=json
}

bench_attention() {  # bench_attention <seconds>
  local options=()
  if [[ -n $dry ]]; then options=(--dry-run --rounds=1); fi
  "$python" bench/peers/torch_cuda_attention.py --program "$build/bench/cuda/attention" \
    --seconds "$1" --flex_seconds=12 --out "$out/attention.json" "${options[@]}"
}

# As bench/record.py does: what it takes to repeat the run.
record() {
  local commit file
  local note='import sys; sys.path.insert(0, "bench"); import record; record.note(*sys.argv[1:])'
  commit=$(commit_name | paste -sd ' ')
  if [[ -z $commit && -n $carry ]]; then commit=$(cat "$carry/commit"); fi
  for file in "$out"/{attention,append}.json; do
    if [[ ! -s $file ]]; then continue; fi
    "$python" -c "$note" "$file" bench/cuda/verify.sh "${commit:-unknown}" || return
  done
}

table() { "$python" bench/cuda/table.py "$out/attention.json" "$out/append.json"; }

python=${PYTHON:-python3}
# The cuBLASLt that comes with torch.
STRATA_BENCH_CUBLASLT=$("$python" -c 'import glob, sysconfig
found = glob.glob(sysconfig.get_path("purelib") + "/nvidia/**/libcublasLt.so.*", recursive=True)
print(found[0] if found else "")' 2>/dev/null)
export STRATA_BENCH_CUBLASLT build out carry dry python
export -f has_device machine architecture configure compile tests ctest_skips_all sanitize \
  bench_append bench_attention commit_name record
if [[ -n $dry ]]; then
  say 'A dry run: no figure of this run was measured on a device.'
  rm -f "$out"/{attention,append}.json
fi

lines=20 step machine 20 machine
step configure 60 configure
step compile 200 compile
tests_passed=0
lines=12 step tests 120 tests || tests_passed=$?
step append 40 bench_append
for tool in memcheck racecheck synccheck initcheck; do
  lines=3 step "sanitizer-$tool" 30 sanitize $tool 24
done
for_attention=$(($(left) - 20))
step attention "$for_attention" bench_attention $((for_attention - 10))
step record 5 record
say "=== all: $SECONDS s"
for name in "${order[@]}"; do say "$(printf '%-20s %s' "$name" "${results[$name]}")"; done
table 2>&1 | tee "$out/table.txt"
exit "$tests_passed"
