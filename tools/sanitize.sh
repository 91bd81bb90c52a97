#!/usr/bin/env bash
# The kernel tests under gcc's sanitizers; fails on a failed test and on any report.
#
#     tools/sanitize.sh address    memory errors and undefined behaviour, all kernel tests
#     tools/sanitize.sh thread     data races, the tests that keep the pool busy
#     tools/sanitize.sh address tests/kernels -k fuzz     other tests, any of pytest's arguments
#
# Python, numpy and torch are not instrumented: leaks are not looked for (an interpreter never frees everything), and
# races count where an instrumented module made the access or the call.
set -euo pipefail
cd "$(dirname "$0")/.."

kind="${1:-}"
case "$kind" in
  address) sanitizers=address,undefined runtimes="libasan.so libubsan.so libstdc++.so.6"
    tests=(tests/kernels tests/mesh/test_rasterize.py tests/render tests/test_rays.py) ;;
  thread) sanitizers=thread runtimes="libtsan.so libstdc++.so.6"
    tests=(tests/kernels/test_threads.py tests/kernels/test_ray_operations.py tests/mesh/test_rasterize.py
      tests/kernels/test_networks.py tests/kernels/test_instruction_sets.py) ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
shift
if [ $# -gt 0 ]; then tests=("$@"); fi

build="build/sanitize-$kind"
CXX=g++ cmake -S . -B "$build" -G Ninja -DPython_EXECUTABLE="$(command -v python)" \
  -DQUICKSURF_SANITIZE="$sanitizers" > /dev/null
cmake --build "$build"

# The package as it is, but for the extension: tests import it from here, not from the checkout or the installation.
package="$build/package/quicksurf"
rm -rf "$build/package" "$build"/report.*
mkdir -p "$package/kernels"
for part in quicksurf/* quicksurf/kernels/*; do
  case "$part" in *.so | *.pyd | */__pycache__ | */csrc | quicksurf/kernels) ;;
    *) ln -s "$PWD/$part" "$build/package/$part" ;;
  esac
done
ln -s "$PWD/configs" "$build/package/configs"
cp "$build"/_native*.so "$package/kernels/"

preload=""
for runtime in $runtimes; do preload+="$(g++ -print-file-name="$runtime") "; done
report="$PWD/$build/report"
export PYTHONPATH="$PWD/$build/package" OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
export ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:log_path=$report"
export UBSAN_OPTIONS="print_stacktrace=1:log_path=$report"
export TSAN_OPTIONS="ignore_noninstrumented_modules=1:die_after_fork=0:halt_on_error=0:log_path=$report"
(cd "$build" && LD_PRELOAD="$preload" python -c "import quicksurf.kernels._native as n; assert '$build' in n.__file__, n.__file__")
status=0
# Fixed addresses: the thread sanitizer's map of memory does not fit every random layout.
LD_PRELOAD="$preload" setarch -R python "$(command -v pytest)" -p no:faulthandler -p no:cacheprovider "${tests[@]}" || status=$?
if compgen -G "$report.*" > /dev/null; then
  cat "$report".*
  status=1
fi
exit "$status"
