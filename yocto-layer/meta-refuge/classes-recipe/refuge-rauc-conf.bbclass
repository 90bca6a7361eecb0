# RAUC's settings, from the board's data, and the keyring of whoever signs (REFUGE_KEYS).

inherit refuge-board

# The template, which is fetched in place of the example; the next task puts the board's in.
FILESEXTRAPATHS:prepend := "${REFUGE_ROOT}/board/common:"
SRC_URI += "${REFUGE_BOARD_SRC}"

RAUC_KEYRING_FILE = "keyring.pem"
# Parsing needs no keys; packaging does.
RAUC_KEYRING_URI = "${@refuge_keyring(d)}"

def refuge_keyring(d):
    file = d.expand("${REFUGE_KEYS}/${RAUC_KEYRING_FILE}")
    bb.parse.mark_dependency(d, file)
    return "file://" + file if os.path.exists(file) else ""

python do_refuge_conf() {
    if not d.getVar("RAUC_KEYRING_URI"):
        bb.fatal(d.expand("no ${REFUGE_KEYS}/${RAUC_KEYRING_FILE}: README.md of meta-refuge says how to make keys"))
    refuge_write(d, d.getVar("UNPACKDIR"), "system.conf")
}
addtask refuge_conf after do_patch before do_configure
do_refuge_conf[doc] = "Puts the board's settings in place of the template"

# Where system.conf looks for it.
do_install:append() {
    install -D -m 0644 ${UNPACKDIR}/${RAUC_KEYRING_FILE} ${D}${sysconfdir}/rauc/${RAUC_KEYRING_FILE}
    rm ${D}${nonarch_libdir}/rauc/${RAUC_KEYRING_FILE}
}
