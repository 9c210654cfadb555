#!/usr/bin/env bash
# The kernels' tests and goldens on the AVX-512 instruction sets, on a machine that has none: their code is compiled with
# those instructions emulated. Shows that they compute the right thing, not how fast. Optional; needs an environment that
# has ".[test]" and, on Debian:  apt-get install libsimde-dev
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}
work=$(mktemp -d "${TMPDIR:-/tmp}/beingh0-avx512.XXXXXX")
trap 'rm -rf "$work"' EXIT
"$python" -m pip install --quiet --no-deps --target "$work/package" . -C build-dir="$work/build" \
    -C cmake.define.BEINGH0_EMULATE_AVX512=ON -C cmake.define.BEINGH0_BUILD_BRIDGE=OFF
export PYTHONPATH="$work/package:tests" PYTHONDONTWRITEBYTECODE=1
for BEINGH0_ISA in avx512bf16 avx512; do
    export BEINGH0_ISA
    "$python" -c 'from beingh0_edge import _kernels; print(_kernels.isa())'
    # Without tests/conftest.py, which imports much.
    "$python" -m pytest -q -p no:cacheprovider --confcutdir=tests/unit tests/unit/test_{grq,mano,rotations}.py
    "$python" -m pytest -q -p no:cacheprovider --confcutdir=tests/golden \
        tests/golden/test_{tokenizer,mano,rotations}_golden.py
done
