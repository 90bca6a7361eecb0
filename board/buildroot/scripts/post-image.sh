#!/bin/sh
# Puts the disk together as board/BOARD/genimage.cfg draws it.
# Usage: post-image.sh BINARIES_DIR BOARD    Buildroot gives both, and HOST_DIR and BUILD_DIR
set -eu
images=$1
board=$2
root=$(realpath "$(dirname "$0")/../../..")
PATH=$HOST_DIR/bin:$HOST_DIR/sbin:$PATH

board_file() { python3 "$root/scripts/board.py" "$board" "$1"; }
fact() { python3 "$root/scripts/board.py" "$board" fact "$1"; }

cp --dereference "$images/rootfs.ext4" "$images/rootfs_a.ext4"
board_file bootstate.bin >"$images/bootstate.bin"

# The data partition as it leaves here: empty and small. The box grows it to the card.
rm -f "$images/data.ext4"
truncate --size=64M "$images/data.ext4"
mke2fs -q -t ext4 -b 4096 -i 65536 -m 1 -J size=16 -L data -E resize=536870912 "$images/data.ext4"

# The boot partition: our script, and what the board's firmware wants.
boot=$BUILD_DIR/refuge-boot
rm -rf "$boot"
mkdir -p "$boot"
board_file boot.cmd >"$images/boot.cmd"
mkimage -A arm -T script -C none -n refuge -d "$images/boot.cmd" "$boot/boot.scr"
cp "$root/board/common/first-boot.conf.example" "$boot/"
[ ! -d "$root/board/$board/boot" ] || cp "$root/board/$board/boot"/* "$boot/"
for file in $(fact image.firmware_files); do cp "$images/rpi-firmware/$file" "$boot/"; done
fact image.boot_files | while read -r file from; do cp "$images/$(basename "$from")" "$boot/$file"; done
[ -z "$(fact image.has_device_trees_in_boot)" ] || cp "$images"/*.dtb "$boot/"
rm -f "$images/boot.vfat"
truncate --size=28M "$images/boot.vfat"
mkfs.vfat --invariant -n BOOT "$images/boot.vfat"
for file in "$boot"/*; do mcopy -n -o -i "$images/boot.vfat" "$file" ::; done

rm -rf "$BUILD_DIR/genimage.tmp" "$BUILD_DIR/genimage.root"
mkdir -p "$BUILD_DIR/genimage.root"
genimage --config "$root/board/$board/genimage.cfg" --rootpath "$BUILD_DIR/genimage.root" --tmppath "$BUILD_DIR/genimage.tmp" \
    --inputpath "$images" --outputpath "$images"
mv "$images/disk.img" "$images/refuge-$board.img"
