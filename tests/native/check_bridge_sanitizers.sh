#!/usr/bin/env bash
# Builds the bridge's extension module with AddressSanitizer and UndefinedBehaviorSanitizer and runs its tests with it:
# every driver against its simulated hand, on every wire, with noise, silence, unplugging and processes that die.
# Optional (about five minutes); needs the package's build and test requirements installed and a compiler with
# sanitizers. Arguments go to pytest; FOLDER keeps what was built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=${FOLDER:-$(mktemp -d "${TMPDIR:-/tmp}/beingh0-sanitize.XXXXXX")}
[ -n "${FOLDER:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
python=${PYTHON:-python3}

flags="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1"
cmake -S . -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS="$flags" \
    -DSKBUILD_PROJECT_NAME=beingh0_edge -DSKBUILD_PROJECT_VERSION=0 \
    -DPython_EXECUTABLE="$(command -v "$python")" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" > "$work/log"
cmake --build "$work/build" --target _bridge -j "${JOBS:-2}"

# The package as it is, but for this one module.
package=$work/site/beingh0_edge
mkdir -p "$package"
for part in python/beingh0_edge/* quantize train; do ln -sfn "$PWD/$part" "$package/$(basename "$part")"; done
rm -rf "$package/firmware_bridge"
mkdir "$package/firmware_bridge"
for part in firmware_bridge/*; do ln -sfn "$PWD/$part" "$package/firmware_bridge/$(basename "$part")"; done
rm -f "$package"/firmware_bridge/_bridge*.so
find "$work/build" -name '_bridge*.so' -exec cp {} "$package/firmware_bridge/" \;

# The interpreter itself is no business of the leak check; its allocator would hide overruns.
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc
LD_PRELOAD="$("${CXX:-g++}" -print-file-name=libasan.so) $("${CXX:-g++}" -print-file-name=libstdc++.so)" \
    PYTHONPATH="$work/site" "$python" -m pytest -q -p no:cacheprovider tests/unit/test_bridge_* tests/unit/test_codec_* \
    tests/integration/test_bridge_* "$@"
