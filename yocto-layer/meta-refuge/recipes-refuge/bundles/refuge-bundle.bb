SUMMARY = "The update of a box: its slot, signed"
DESCRIPTION = "A RAUC bundle in verity format. Its key and certificate are named by whoever builds it, and are in no repository."
HOMEPAGE = "https://refuge.example"
LICENSE = "Apache-2.0"

PV = "${DISTRO_VERSION}"
SRC_URI = ""

inherit bundle refuge-board

RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_COMPATIBLE = "refuge-${REFUGE_BOARD}"
RAUC_BUNDLE_VERSION = "${PV}"
RAUC_BUNDLE_BUILD = "${REPRODUCIBLE_TIMESTAMP_ROOTFS}"
RAUC_BUNDLE_DESCRIPTION = "Refuge ${PV}"

RAUC_BUNDLE_SLOTS = "rootfs"
RAUC_SLOT_rootfs = "refuge-image"
RAUC_SLOT_rootfs[fstype] = "ext4"
# Blocks that the box has are not fetched again.
RAUC_SLOT_rootfs[adaptive] = "block-hash-index"

RAUC_KEY_FILE ??= "${REFUGE_KEYS}/development.key"
RAUC_CERT_FILE ??= "${REFUGE_KEYS}/development.pem"
BUNDLE_ARGS += '--mksquashfs-args="-comp zstd -Xcompression-level 15"'
