#!/usr/bin/env bash
# Replays the goldens on a processor that has no AVX, in an emulator: the module must run there, with SSE4.2. Optional;
# needs the package installed on x86-64 and, on Debian:  apt-get install qemu-user
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d "${TMPDIR:-/tmp}/beingh0-v2.XXXXXX")
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" tests/native/record.py "$work/goldens"
tests/native/build.sh "$work/check_kernels"
"${QEMU_X86_64:-qemu-x86_64}" -cpu Nehalem "$work/check_kernels" "$work/goldens" | tee "$work/said"
! grep -v -e '^ok   sse42 ' -e '^all good$' "$work/said"
