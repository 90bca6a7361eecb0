SUMMARY = "The box's boot script and boot state"
DESCRIPTION = "board/common/boot.cmd for the board, what else is the box's own on the boot partition, and both copies of the boot state."
HOMEPAGE = "https://refuge.example"
SECTION = "bootloaders"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

inherit deploy kernel-arch nopackages refuge-board

DEPENDS += "u-boot-mkimage-native"
PROVIDES += "u-boot-default-script"
INHIBIT_DEFAULT_DEPS = "1"

SRC_URI = "${REFUGE_BOARD_SRC}"

S = "${UNPACKDIR}"

do_configure[noexec] = "1"
do_install[noexec] = "1"

python do_compile() {
    refuge_write(d, d.getVar("B"), "boot.cmd", "bootstate.bin")
    bb.build.exec_func("do_compile_script", d)
}
do_compile_script() {
    mkimage -A ${UBOOT_ARCH} -T script -C none -n refuge -d ${B}/boot.cmd ${B}/boot.scr
}

do_deploy() {
    install -d ${DEPLOYDIR}/refuge-boot
    install -m 0644 ${B}/boot.scr ${S}/board/common/first-boot.conf.example ${DEPLOYDIR}/refuge-boot/
    if [ -d ${S}/board/${REFUGE_BOARD}/boot ]; then
        install -m 0644 ${S}/board/${REFUGE_BOARD}/boot/* ${DEPLOYDIR}/refuge-boot/
    fi
    install -m 0644 ${B}/bootstate.bin ${DEPLOYDIR}/refuge-bootstate.bin
}
addtask deploy after do_compile before do_build
