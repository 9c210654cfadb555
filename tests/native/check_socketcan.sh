#!/usr/bin/env bash
# Runs the SocketCAN side of the bridge in an emulated machine with a Debian kernel, for machines whose own kernel has no
# CAN. Optional; needs a Debian or Ubuntu system with
#   apt-get install qemu-system-x86 busybox-static cpio g++
# The kernel's package is downloaded and unpacked, not installed. KERNEL_PACKAGE names another, FOLDER keeps the files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
work=${FOLDER:-$(mktemp -d "${TMPDIR:-/tmp}/beingh0-socketcan.XXXXXX")}
[ -n "${FOLDER:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"

if ! compgen -G "$work/kernel/boot/vmlinuz-*" > /dev/null; then
    # Not the cloud kernel: it has no CAN at all.
    package=${KERNEL_PACKAGE:-$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -1)}
    (cd "$work" && apt-get download -q "$package")
    dpkg -x "$work"/linux-image-*.deb "$work/kernel"
fi
kernel=$(compgen -G "$work/kernel/boot/vmlinuz-*")
modules=$(compgen -G "$work/kernel/lib/modules/*/kernel" || compgen -G "$work/kernel/usr/lib/modules/*/kernel")

sources=$(find firmware_bridge/src -name '*.cpp' ! -name 'bind*')
# shellcheck disable=SC2086
"${CXX:-g++}" -std=c++17 -O1 -Wall -Wextra -static -pthread -Ifirmware_bridge/src tests/native/check_socketcan.cpp \
    $sources -o "$work/check_socketcan"

rm -rf "$work/root"
mkdir -p "$work/root"/{bin,proc,sys,modules}
cp "$(command -v busybox)" "$work/root/bin/busybox"
cp "$work/check_socketcan" "$work/root/bin/"
names="can can-raw can-dev vcan"
for name in $names; do
    find "$modules" -name "$name.ko*" -exec cp {} "$work/root/modules/" \;
done
find "$work/root/modules" -name '*.xz' -exec xz -d {} +
cat > "$work/root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
for name in can can-raw can-dev vcan; do /bin/busybox insmod /modules/$name.ko; done
for interface in vcan0 vcan1 vcan2; do /bin/busybox ip link add dev $interface type vcan; done
/bin/busybox ip link set vcan0 mtu 72
/bin/busybox ip link set vcan1 mtu 16
/bin/busybox ip link set vcan0 up
/bin/busybox ip link set vcan1 up
/bin/busybox uname -r
/bin/check_socketcan
/bin/busybox poweroff -f
INIT
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio -o -H newc --quiet | gzip -1) > "$work/initramfs.gz"

timeout "${SECONDS_ALLOWED:-300}" qemu-system-x86_64 -accel tcg -cpu max -m 256 -nographic -no-reboot -nic none \
    -kernel "$kernel" -initrd "$work/initramfs.gz" -append "console=ttyS0 quiet panic=-1" < /dev/null \
    | tr -d '\r' | tee "$work/output"
cd "$root"
grep -q '^SocketCAN: all checks passed$' "$work/output"
