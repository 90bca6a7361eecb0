FILESEXTRAPATHS:prepend:refuge-os := "${THISDIR}/busybox:"
SRC_URI:append:refuge-os = " file://refuge.cfg"
