# The BeagleBone's part; the common one is in recipes-kernel.
SRC_URI:append:refuge-os:beaglebone-yocto = " file://${REFUGE_BOARD}/linux.cfg"
