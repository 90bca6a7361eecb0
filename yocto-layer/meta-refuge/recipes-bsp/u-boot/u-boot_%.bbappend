# What board/common/boot.cmd needs, and what must not be: an environment of U-Boot's own on the boot partition.
FILESEXTRAPATHS:prepend:refuge-os := "${REFUGE_ROOT}/board:"
SRC_URI:append:refuge-os = " file://common/uboot.cfg file://${REFUGE_BOARD}/uboot.cfg"
