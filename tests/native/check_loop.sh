#!/usr/bin/env bash
# Builds check_loop with ThreadSanitizer and runs it for some seconds: tests/native/check_loop.sh [SECONDS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d "${TMPDIR:-/tmp}/beingh0-loop.XXXXXX")
trap 'rm -rf "$work"' EXIT
"${CXX:-c++}" -std=c++17 -O1 -g1 -Wall -Wextra -fsanitize=thread -pthread -Ifirmware_bridge/src tests/native/check_loop.cpp \
    firmware_bridge/src/{loop,session,shared_page}.cpp firmware_bridge/src/core/*.cpp firmware_bridge/src/io/stream.cpp \
    -o "$work/check_loop"
fixed=$(command -v setarch > /dev/null && echo "setarch -R" || true)  # TSan wants no randomised addresses
TSAN_OPTIONS=halt_on_error=1 $fixed "$work/check_loop" "${1:-5}"
