#!/usr/bin/env bash
# Compiles the kernels for aarch64 and, where an emulator is installed, checks that they compute what they do here.
# Needs a cross compiler (aarch64-linux-gnu-g++) and, for the comparison, qemu-aarch64 or qemu-aarch64-static.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build/cross
mkdir -p "$build"
sources=(tools/cross_compile.cpp quicksurf/csrc/{dispatch,importance,packed_scans,rasterize,rays,thread_pool,traversal}.cpp)
flags=(-std=c++17 -O2 -fno-math-errno -fno-trapping-math -Wno-psabi -pthread -static -Iquicksurf/csrc)

# compile <compiler> <name> <instruction set and its flags>...: as CMakeLists.txt does it
compile() {
  local compiler="$1" name="$2" objects=()
  shift 2
  for isa in "$@"; do
    # shellcheck disable=SC2086
    "$compiler" "${flags[@]}" -DQS_ISA=${isa} -c quicksurf/csrc/kernels.cpp -o "$build/$name-${isa%% *}.o"
    objects+=("$build/$name-${isa%% *}.o")
  done
  "$compiler" "${flags[@]}" "${sources[@]}" "${objects[@]}" -o "$build/$name"
}

compile aarch64-linux-gnu-g++ aarch64 generic
echo "the kernels compile for aarch64"
emulator="$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)"
if [ -z "$emulator" ]; then
  echo "not compared: no qemu-aarch64 here" >&2
  exit 0
fi
compile g++ here "v2 -march=x86-64-v2" "v3 -march=x86-64-v3" "v4 -march=x86-64-v4"
QUICKSURF_ISA=v2 "$build/here" > "$build/here.txt"
"$emulator" "$build/aarch64" > "$build/aarch64.txt"
paste "$build/here.txt" "$build/aarch64.txt"
# Sums to 1e-4: float32 in another order, products fused with sums.
paste "$build/here.txt" "$build/aarch64.txt" | awk '
  function far(a, b) { return (a - b) ^ 2 > (1e-4 * b) ^ 2 }
  $1 != $4 || far($2, $5) || far($3, $6) { print "differs: " $1; bad = 1 }
  END { exit bad || NR < 12 }'
echo "and compute the same"
