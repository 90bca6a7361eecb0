SUMMARY = "The image of the box: two read-only slots, a boot state and a data partition"
DESCRIPTION = "The disk that board/README.md draws, made of the slot as refuge-bundle takes it, with what was known to be weak beside it."
HOMEPAGE = "https://refuge.example"
LICENSE = "Apache-2.0"

inherit core-image refuge-board sbom-cve-check

IMAGE_FEATURES = "read-only-rootfs"
# All of it by name: what nobody named is not there.
IMAGE_INSTALL = "\
    base-files \
    base-passwd \
    busybox \
    ca-certificates \
    dbus \
    e2fsprogs-e2fsck \
    e2fsprogs-resize2fs \
    kernel-image \
    kmod \
    libubootenv-bin \
    netbase \
    rauc \
    refuge \
    refuge-system \
    systemd \
    tzdata-core \
    util-linux-partx \
    util-linux-sfdisk \
    ${@bb.utils.contains('MACHINE_FEATURES', 'wifi', 'refuge-wifi', '', d)} \
    ${REFUGE_DEVICE_TREES} \
    ${REFUGE_FIRMWARE} \
"
REFUGE_DEVICE_TREES ?= ""
REFUGE_FIRMWARE ?= ""
# refuge-slot-good.service judges a start by the node. /var is memory, as board/common/init lays it out.
BAD_RECOMMENDATIONS += "rauc-mark-good udev-hwdb volatile-binds shared-mime-info"

# One ext4 that fits a slot, as RAUC writes it: no journal, as it is never written; no checksums of metadata, as U-Boot reads it;
# always the same UUID and hash seed, so that two builds, and the blocks of two versions, differ only where their files do.
IMAGE_ROOTFS_SIZE = "${@int(refuge_slot_mib(d)) * 1024}"
IMAGE_ROOTFS_MAXSIZE = "${IMAGE_ROOTFS_SIZE}"
IMAGE_ROOTFS_EXTRA_SPACE = "0"
IMAGE_OVERHEAD_FACTOR = "1"
EXTRA_IMAGECMD:ext4 = "-b 4096 -i 16384 -m 0 -O ^metadata_csum,^has_journal,^orphan_file,^resize_inode,^dir_index \
    -U 5265f9ee-0001-4a00-8000-0000000000a0 -E hash_seed=5265f9ee-0001-4a00-8000-0000000000a1"

def refuge_slot_mib(d):
    board = refuge_board(d)
    if not board:
        return 0
    return next(part.size_mib for part in board.table()[2] if part.name == "rootfs_a")

# The disk is made of the slot as it is.
IMAGE_TYPEDEP:wic += "ext4"
do_image_wic[depends] += "refuge-boot:do_deploy"
do_rootfs[depends] += "refuge-initramfs:do_image_complete"

ROOTFS_POSTPROCESS_COMMAND += "refuge_boot_files refuge_etc refuge_no_login"

# Names that board/common/boot.cmd loads from the slot.
refuge_boot_files() {
    install -m 0644 ${DEPLOY_DIR_IMAGE}/refuge-initramfs-${MACHINE}.cpio.zst ${IMAGE_ROOTFS}/boot/initrd.img
    mv $(readlink -f ${IMAGE_ROOTFS}/boot/${KERNEL_IMAGETYPE}) ${IMAGE_ROOTFS}/boot/${@refuge_fact(d, 'image.kernel') or 'vmlinuz'}
    rm -f ${IMAGE_ROOTFS}/boot/${KERNEL_IMAGETYPE}*
    install -d ${IMAGE_ROOTFS}/boot/dtb
    for tree in ${IMAGE_ROOTFS}/boot/*.dtb; do
        [ ! -e "$tree" ] || mv "$tree" ${IMAGE_ROOTFS}/boot/dtb/
    done
}

do_rootfs[file-checksums] += "${REFUGE_ROOT}/board/common/root:True"
# The files that are the box's own, some in place of a package's; accounts come with their packages.
refuge_etc() {
    (cd ${REFUGE_ROOT}/board/common/root && find . -type f ! -path './etc/group' ! -path './etc/passwd' ! -path './etc/shadow') |
        while read -r name; do
            install -D -m $(stat -c %a ${REFUGE_ROOT}/board/common/root/$name) ${REFUGE_ROOT}/board/common/root/$name ${IMAGE_ROOTFS}/$name
        done
    # Laid over by init.
    : >${IMAGE_ROOTFS}${sysconfdir}/machine-id
    ln -sf /run/systemd/resolve/resolv.conf ${IMAGE_ROOTFS}${sysconfdir}/resolv.conf
    ln -sf /run/refuge/localtime ${IMAGE_ROOTFS}${sysconfdir}/localtime
}

# Nobody logs in on a box: the console shows the claim code and nothing else.
refuge_no_login() {
    rm -rf ${IMAGE_ROOTFS}${sysconfdir}/systemd/system/getty.target.wants
    for unit in console-getty.service getty@.service serial-getty@.service debug-shell.service; do
        ln -sf /dev/null ${IMAGE_ROOTFS}${sysconfdir}/systemd/system/$unit
    done
}

# The boot state lies before the partitions, and is the last of the table: wic numbers partitions by where they lie.
IMAGE_CMD:wic:append() {
    if [ -n "${REFUGE_BOOT_STATE_ENTRY}" ]; then
        echo '${REFUGE_BOOT_STATE_ENTRY}' | sfdisk --quiet --append --no-reread $out.wic
    fi
}
REFUGE_BOOT_STATE_ENTRY = "${@refuge_boot_state_entry(d)}"

# sfdisk's line for it; empty on a board whose table has no room for five.
def refuge_boot_state_entry(d):
    board = refuge_board(d)
    part = next((part for part in board.table()[2] if part.name == "bootstate"), None) if board else None
    if not part or not part.number:
        return ""
    return f"start={int(part.offset_mib)}MiB, size={int(part.size_mib)}MiB, name={part.name}, uuid={part.uuid}"
