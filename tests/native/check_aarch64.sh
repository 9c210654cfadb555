#!/usr/bin/env bash
# Cross-compiles the kernels for aarch64 and replays the goldens on them in an emulator. Optional; needs the package
# installed and, on Debian:  apt-get install g++-aarch64-linux-gnu qemu-user
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d "${TMPDIR:-/tmp}/beingh0-aarch64.XXXXXX")
trap 'rm -rf "$work"' EXIT
compiler=${CXX_AARCH64:-aarch64-linux-gnu-g++}
emulator=${QEMU_AARCH64:-qemu-aarch64}
flags="-std=c++17 -O3 -Wall -Wextra -fno-math-errno -fno-trapping-math -ffp-contract=fast -Icsrc"  # as csrc/CMakeLists.txt

"${PYTHON:-python3}" tests/native/record.py "$work/goldens"
objects=()
for source in csrc/{packed_weights,conv_net,grq,mano,mano_jacobian,rotations,simd}.cpp; do
    objects+=("$work/$(basename "$source" .cpp).o")
    "$compiler" $flags -c "$source" -o "${objects[-1]}"
done
for source in csrc/simd/*.cpp; do
    objects+=("$work/neon_$(basename "$source" .cpp).o")
    "$compiler" $flags -DBEINGH0_ISA=neon -c "$source" -o "${objects[-1]}"
done
"$compiler" $flags tests/native/check_kernels.cpp "${objects[@]}" -static -pthread -o "$work/check_kernels"
"$emulator" "$work/check_kernels" "$work/goldens"
