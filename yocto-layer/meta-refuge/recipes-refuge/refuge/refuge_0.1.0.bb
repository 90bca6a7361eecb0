SUMMARY = "Stores, syncs and shares people's own data, without a company in between"
DESCRIPTION = "The node: blobs by content, folders with their history and documents for CouchDB's clients, over HTTPS and on the \
command line, for small computers that are plugged in and forgotten."
HOMEPAGE = "https://refuge.example"
SECTION = "net"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# The checkout that this layer lies in: what is built is what the layer was made for.
FILESEXTRAPATHS:prepend := "${REFUGE_ROOT}:"
SRC_URI = "file://Cargo.toml;subdir=${BP} \
           file://Cargo.lock;subdir=${BP} \
           file://LICENSE;subdir=${BP} \
           file://.cargo;subdir=${BP} \
           file://src;subdir=${BP} \
           file://systemd;subdir=${BP} \
           file://board/common/root/usr/lib;subdir=${BP} \
          "

require refuge-crates.inc

inherit cargo features_check systemd useradd

REQUIRED_DISTRO_FEATURES = "systemd"

# BLAKE3's code for NEON is chosen at compile time on 32-bit ARM.
CARGO_BUILD_FLAGS:append = " --bin refuge ${@bb.utils.contains('TUNE_FEATURES', 'neon', '--features neon', '', d)}"
# The symbols go into refuge-dbg; what is not in the image costs it nothing.
export CARGO_PROFILE_RELEASE_STRIP = "false"

USERADD_PACKAGES = "${PN}"
# Its number is in the distribution's table of accounts.
USERADD_PARAM:${PN} = "--system --no-create-home --home-dir /data/refuge --shell ${sbindir}/nologin --user-group refuge"

SYSTEMD_PACKAGES = "${PN} ${PN}-wifi"
SYSTEMD_SERVICE:${PN} = "${@refuge_units(d, lambda name: 'wifi' not in name)}"
SYSTEMD_SERVICE:${PN}-wifi = "${@refuge_units(d, lambda name: 'wifi' in name)}"

# The units of systemd/ that say by what they are started.
def refuge_units(d, is_wanted):
    folder = os.path.join(d.getVar("REFUGE_ROOT"), "systemd")
    bb.parse.mark_dependency(d, folder)
    found = []
    for name in sorted(os.listdir(folder)):
        file = os.path.join(folder, name)
        if os.path.isfile(file) and is_wanted(name):
            bb.parse.mark_dependency(d, file)
            with open(file) as unit:
                if "[Install]" in unit.read():
                    found.append(name)
    return " ".join(found)

refuge_units[vardepsexclude] += "REFUGE_ROOT"

do_install:append() {
    install -d ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/systemd/*.service ${S}/systemd/*.socket ${D}${systemd_system_unitdir}/

    install -d ${D}${nonarch_libdir}/refuge ${D}${nonarch_libdir}/sysctl.d
    install -m 0755 ${S}/board/common/root/usr/lib/refuge/* ${D}${nonarch_libdir}/refuge/
    install -m 0644 ${S}/board/common/root/usr/lib/sysctl.d/* ${D}${nonarch_libdir}/sysctl.d/
}

PACKAGE_BEFORE_PN = "${PN}-wifi"

FILES:${PN}-wifi += "${systemd_system_unitdir}/refuge-wifi.service"
FILES:${PN} += "${nonarch_libdir}/refuge ${nonarch_libdir}/sysctl.d ${systemd_system_unitdir}"
# What first-boot and slot-good call, and what keeps disks (src/board/privileged).
RDEPENDS:${PN} = "busybox e2fsprogs-e2fsck e2fsprogs-mke2fs libubootenv-bin"
RDEPENDS:${PN}-wifi = "${PN} wireless-regdb-static wpa-supplicant"
