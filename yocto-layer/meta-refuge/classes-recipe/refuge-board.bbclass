# For recipes of the box's system, which differs by board: it is made by this distribution and for these machines alone.

inherit features_check refuge-facts

REQUIRED_DISTRO_FEATURES = "rauc systemd"
COMPATIBLE_MACHINE = "^(qemuarm|qemuarm64|rpi|beaglebone-yocto)$"
PACKAGE_ARCH = "${MACHINE_ARCH}"

python () {
    if not d.getVar("REFUGE_BOARD"):
        raise bb.parse.SkipRecipe("made for the machines of board/ with DISTRO = refuge-os")
}

# For SRC_URI of what has files made from the data: a change of it is a rebuild.
FILESEXTRAPATHS:prepend := "${REFUGE_ROOT}:"
REFUGE_BOARD_SRC = "file://board file://scripts/board.py"

# Others build this layer from a checkout elsewhere.
refuge_write[vardepsexclude] += "REFUGE_ROOT"
refuge_board[vardepsexclude] += "REFUGE_ROOT"
