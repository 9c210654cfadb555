#!/usr/bin/env bash
# Compiles check_kernels without CMake or Python: tests/native/build.sh OUT, with CXX, CXXFLAGS and LDFLAGS of the
# environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cxx=${CXX:-c++}
objects=$(mktemp -d "${TMPDIR:-/tmp}/beingh0-objects.XXXXXX")
trap 'rm -rf "$objects"' EXIT
flags="-std=c++17 -O3 -Wall -Wextra -Wno-psabi -fno-math-errno -fno-trapping-math -ffp-contract=fast -Icsrc"  # as csrc/CMakeLists.txt
sse42="-msse4.2 -mpopcnt"
avx2="$sse42 -mavx2 -mfma"
avx512="$avx2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512"
avx512bf16="$avx512 -mavx512vnni -mavx512bf16"
neon="" neondot="-march=armv8.2-a+dotprod" generic="" base=""
case $("$cxx" -dumpmachine) in
    x86_64*) isas="sse42 avx2 avx512 avx512bf16" base=$sse42 ;;
    aarch64*) isas="neon neondot" ;;
    *) isas="generic" ;;
esac
compile() { "$cxx" $flags ${CXXFLAGS:-} "${@:3}" -c "$1" -o "$objects/$2.o"; }
for source in csrc/{packed_weights,conv_net,grq,mano,mano_jacobian,rotations,retarget,raster,simd}.cpp tests/native/check_kernels.cpp; do
    compile "$source" "$(basename "$source" .cpp)" $base
done
for isa in $isas; do
    for source in csrc/simd/*.cpp; do
        compile "$source" "${isa}_$(basename "$source" .cpp)" -DBEINGH0_ISA="$isa" ${!isa}
    done
done
"$cxx" ${CXXFLAGS:-} "$objects"/*.o -pthread ${LDFLAGS:-} -o "$1"
