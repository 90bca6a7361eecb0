#!/bin/sh
# Makes Buildroot's root the box's: settings of systemd, the board's data, the kernel and the initramfs in /boot.
# Usage: post-build.sh TARGET_DIR BOARD      Buildroot gives both, and BINARIES_DIR, HOST_DIR and BUILD_DIR
set -eu
target=$1
board=$2
root=$(realpath "$(dirname "$0")/../../..")

board_file() { python3 "$root/scripts/board.py" "$board" "$1"; }
fact() { python3 "$root/scripts/board.py" "$board" fact "$1"; }

# Drop-ins, for systemd's programs and for its units; links and networks.
for folder in "$root"/systemd/*.conf.d "$root"/systemd/network; do
    mkdir -p "$target/usr/lib/systemd/$(basename "$folder")"
    install -m 0644 "$folder"/* "$target/usr/lib/systemd/$(basename "$folder")/"
done
for folder in "$root"/systemd/*.service.d; do
    mkdir -p "$target/usr/lib/systemd/system/$(basename "$folder")"
    install -m 0644 "$folder"/* "$target/usr/lib/systemd/system/$(basename "$folder")/"
done
board_file watchdog.conf >"$target/usr/lib/systemd/system.conf.d/20-board.conf"
mkdir -p "$target/usr/lib/modules-load.d"
fact watchdog.module >"$target/usr/lib/modules-load.d/watchdog.conf"

# The board's data, where the boot state is, and RAUC's settings; the keyring is that of whoever signs.
mkdir -p "$target/usr/share/refuge" "$target/etc/rauc" "$target/data" "$target/boot/dtb"
install -m 0644 "$root/board/$board/board.toml" "$root/board/common/writable" "$target/usr/share/refuge/"
# 2026-01-01, as scripts/image has it: the floor of the clock.
echo "${SOURCE_DATE_EPOCH:-1767225600}" >"$target/usr/share/refuge/built"
sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" >"$target/usr/share/refuge/version"
board_file fw_env.config >"$target/etc/fw_env.config"
board_file system.conf >"$target/etc/rauc/system.conf"
if [ -n "${REFUGE_KEYRING:-}" ]; then
    install -m 0644 "$REFUGE_KEYRING" "$target/etc/rauc/keyring.pem"
else
    echo "refuge: no REFUGE_KEYRING: this image takes no updates" >&2
fi
: >"$target/etc/machine-id"
ln -sf /run/systemd/resolve/resolv.conf "$target/etc/resolv.conf"
ln -sf /run/refuge/localtime "$target/etc/localtime"

# Nobody logs in on a box: the console shows the claim code and nothing else.
for unit in console-getty.service getty@.service serial-getty@.service debug-shell.service; do
    ln -sf /dev/null "$target/etc/systemd/system/$unit"
done

# What board/common/boot.cmd loads from the slot.
for kernel in zImage Image; do
    [ ! -f "$BINARIES_DIR/$kernel" ] || install -m 0644 "$BINARIES_DIR/$kernel" "$target/boot/$(fact image.kernel)"
done
for tree in "$BINARIES_DIR"/*.dtb; do
    [ ! -f "$tree" ] || install -m 0644 "$tree" "$target/boot/dtb/"
done

# The initramfs: busybox with the libraries of C, and board/common/init. The kernel has what the disk needs built in
# (board/*/linux.cfg): there is no module to load.
first=$BUILD_DIR/refuge-initramfs
rm -rf "$first"
for folder in bin boot dev etc lib proc run slot sys; do mkdir -p "$first/$folder"; done
ln -s lib "$first/lib64"
cp "$target/bin/busybox" "$first/bin/"
for library in "$target"/lib/ld-linux* "$target"/lib/libc.so* "$target"/lib/libm.so* "$target"/lib/libresolv.so*; do
    [ ! -e "$library" ] || cp --dereference "$library" "$first/lib/"
done
# shellcheck disable=SC2013 # words are what is wanted
for applet in $(sed '/^#/d' "$root/board/common/init-applets"); do ln -s busybox "$first/bin/$applet"; done
install -m 0755 "$root/board/common/init" "$first/init"
: >"$first/etc/modules"
(cd "$first" && find . | LC_ALL=C sort | cpio --quiet --create --format=newc --reproducible --owner=0:0) |
    "$HOST_DIR/bin/zstd" --quiet -19 --threads=1 >"$target/boot/initrd.img"
