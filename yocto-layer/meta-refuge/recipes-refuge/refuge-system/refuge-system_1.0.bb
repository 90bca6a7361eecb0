SUMMARY = "What makes a board a box"
DESCRIPTION = "The board's data for the node, the settings of systemd, the place of the boot state, and which kernel modules are wanted."
HOMEPAGE = "https://refuge.example"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

inherit refuge-board

SRC_URI = "${REFUGE_BOARD_SRC} file://systemd"

S = "${UNPACKDIR}"

do_configure[noexec] = "1"

python do_compile() {
    made = d.expand("${B}/made")
    refuge_write(d, made, "fw_env.config", "watchdog.conf")
    for name, lines in (
        ("modules-load.conf", [refuge_fact(d, "watchdog.module")]),
        # Seconds since 1970: the floor of the clock, and the time of the image.
        ("built", [d.getVar("REPRODUCIBLE_TIMESTAMP_ROOTFS")]),
        # What the system says that it is; refuge-bundle's is the same.
        ("version", [d.getVar("DISTRO_VERSION")]),
    ):
        with open(os.path.join(made, name), "w") as file:
            file.writelines(f"{line}\n" for line in lines)
}

do_install() {
    install -D -m 0644 ${S}/board/${REFUGE_BOARD}/board.toml ${D}${datadir}/refuge/board.toml
    install -m 0644 ${S}/board/common/writable ${B}/made/built ${B}/made/version ${D}${datadir}/refuge/
    install -D -m 0644 ${B}/made/fw_env.config ${D}${sysconfdir}/fw_env.config
    install -D -m 0644 ${B}/made/modules-load.conf ${D}${nonarch_libdir}/modules-load.d/watchdog.conf

    # Drop-ins, for systemd's programs and for its units; links and networks.
    for folder in ${S}/systemd/*.conf.d ${S}/systemd/network; do
        install -d ${D}${systemd_unitdir}/$(basename $folder)
        install -m 0644 $folder/* ${D}${systemd_unitdir}/$(basename $folder)/
    done
    for folder in ${S}/systemd/*.service.d; do
        install -d ${D}${systemd_system_unitdir}/$(basename $folder)
        install -m 0644 $folder/* ${D}${systemd_system_unitdir}/$(basename $folder)/
    done
    install -m 0644 ${B}/made/watchdog.conf ${D}${systemd_unitdir}/system.conf.d/20-board.conf

    # Where init and the system keep things, on a root that is never written.
    install -d ${D}/data
}

FILES:${PN} += "${datadir}/refuge ${nonarch_libdir} /data"
RDEPENDS:${PN} = "refuge"
# Those that this kernel has built in are in no package.
RRECOMMENDS:${PN} = "${@' '.join('kernel-module-' + name.replace('_', '-') for name in refuge_modules(d))}"

# Every module that the board's root may load.
def refuge_modules(d):
    board = refuge_board(d)
    if not board:
        return []
    with open(os.path.join(d.getVar("REFUGE_ROOT"), "board/common/modules")) as file:
        common = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    return [*common, *board.fact("image.modules"), board.fact("watchdog.module")]
