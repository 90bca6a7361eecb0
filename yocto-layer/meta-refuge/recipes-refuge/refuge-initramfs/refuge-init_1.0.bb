SUMMARY = "/init of the box"
DESCRIPTION = "Mounts the slot that the boot loader chose and the data partition, checked; then systemd takes over."
HOMEPAGE = "https://refuge.example"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

inherit allarch

FILESEXTRAPATHS:prepend := "${REFUGE_ROOT}/board/common:"
SRC_URI = "file://init"

S = "${UNPACKDIR}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -m 0755 ${S}/init ${D}/init
    # The kernel has what the disk needs built in (board/*/linux.cfg): there is no module to load.
    install -d ${D}${sysconfdir} ${D}/boot ${D}/slot
    touch ${D}${sysconfdir}/modules
}

FILES:${PN} += "/init ${sysconfdir}/modules /boot /slot"
RDEPENDS:${PN} = "busybox"
