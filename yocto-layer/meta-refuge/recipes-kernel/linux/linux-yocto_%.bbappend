# What the box needs of its kernel.
FILESEXTRAPATHS:prepend:refuge-os := "${REFUGE_ROOT}/board:"
SRC_URI:append:refuge-os = " file://common/linux.cfg"
SRC_URI:append:refuge-os:qemuall = " file://${REFUGE_BOARD}/linux.cfg"
