#!/usr/bin/env bash
# Compiles the kernels for aarch64 and, where an emulator is installed, checks that they compute what they do here.
# Needs a cross compiler (aarch64-linux-gnu-g++) and, for the comparison, qemu-aarch64 or qemu-aarch64-static.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build/cross
mkdir -p "$build"
sources=(tools/cross_compile.cpp quicksurf/csrc/{dispatch,importance,match,packed_scans,rasterize,rays,thread_pool,traversal}.cpp)
flags=(-std=c++17 -O2 -fno-math-errno -fno-trapping-math -Wno-psabi -pthread -static -Iquicksurf/csrc)

# compile <compiler> <name> <kernel and instruction set with its flags>...: as CMakeLists.txt does it
compile() {
  local compiler="$1" name="$2" objects=() file isa object
  shift 2
  for kernel in "$@"; do
    file="${kernel%%:*}" isa="${kernel#*:}"
    object="$build/$name-$file-${isa%% *}.o"
    # shellcheck disable=SC2086
    "$compiler" "${flags[@]}" -DQS_ISA=${isa} -c "quicksurf/csrc/$file.cpp" -o "$object"
    objects+=("$object")
  done
  "$compiler" "${flags[@]}" "${sources[@]}" "${objects[@]}" -o "$build/$name"
}

compile aarch64-linux-gnu-g++ aarch64 kernels:generic nearest:generic
echo "the kernels compile for aarch64"
emulator="$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)"
if [ -z "$emulator" ]; then
  echo "not compared: no qemu-aarch64 here" >&2
  exit 0
fi
v3=-march=x86-64-v3 v4=-march=x86-64-v4
compile g++ here {kernels,nearest}:"v2 -march=x86-64-v2" {kernels,nearest}:"v3 $v3" {kernels,nearest}:"v4 $v4" \
  nearest:"avxvnni $v3 -mavxvnni" nearest:"vnni $v4 -mavx512vnni" nearest:"amx $v4 -mavx512vnni -mamx-tile -mamx-int8"
QUICKSURF_ISA=v2 "$build/here" > "$build/here.txt"
"$emulator" "$build/aarch64" > "$build/aarch64.txt"
paste "$build/here.txt" "$build/aarch64.txt"
# Sums to 1e-4: float32 in another order, products fused with sums.
paste "$build/here.txt" "$build/aarch64.txt" | awk '
  function far(a, b) { return (a - b) ^ 2 > (1e-4 * b) ^ 2 }
  $1 != $4 || far($2, $5) || far($3, $6) { print "differs: " $1; bad = 1 }
  END { exit bad || NR < 13 }'
echo "and compute the same"
