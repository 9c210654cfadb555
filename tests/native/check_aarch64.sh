#!/usr/bin/env bash
# Cross-compiles the kernels for aarch64 and replays the goldens on them in an emulator. Optional; needs the package
# installed and, on Debian:  apt-get install g++-aarch64-linux-gnu qemu-user
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d "${TMPDIR:-/tmp}/beingh0-aarch64.XXXXXX")
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" tests/native/record.py "$work/goldens"
CXX=${CXX_AARCH64:-aarch64-linux-gnu-g++} LDFLAGS=-static tests/native/build.sh "$work/check_kernels"
"${QEMU_AARCH64:-qemu-aarch64}" "$work/check_kernels" "$work/goldens"
