# U-Boot: picks a slot, counts the attempt, starts its kernel. scripts/image fills in what stands between @ signs from
# board.toml.
#
# The boot state is an environment of U-Boot's (CRC32, then NAME=VALUE) with three names:
#   BOOT_ORDER          slots, the preferred one first: "A B", "B A", or only one of them
#   BOOT_A_LEFT, BOOT_B_LEFT   attempts that are left, 0 to 3; Linux sets 3 again when it judges a start good
# Two copies lie raw on the disk, at 3 MiB and at 3.5 MiB. The first counts wherever it is whole. Before this script changes
# it, it copies it to the second; Linux changes only the first. So a torn write of either leaves one whole state:
#   the second torn   the first was not touched
#   the first torn    the second holds the state from before this start, or before what Linux wrote since
# With neither whole, the state is that of a new card.
#
# No setexpr: the BeagleBone's U-Boot has none.

setenv state none
setenv BOOT_ORDER
setenv BOOT_A_LEFT
setenv BOOT_B_LEFT
@DISK_SELECT@
if @DISK_COMMAND@ read ${ramdisk_addr_r} 0x1800 0x20; then
    if env import -c ${ramdisk_addr_r} 0x4000 BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT; then
        setenv state first
        @DISK_COMMAND@ write ${ramdisk_addr_r} 0x1c00 0x20
    fi
fi
if test "${state}" = "none"; then
    echo "Refuge: the first copy of the boot state is damaged"
    if @DISK_COMMAND@ read ${ramdisk_addr_r} 0x1c00 0x20; then
        if env import -c ${ramdisk_addr_r} 0x4000 BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT; then
            setenv state second
        fi
    fi
fi
if test "${state}" = "none"; then
    echo "Refuge: no copy of the boot state is whole: starting as a new card does"
fi
if test "${BOOT_ORDER}" = ""; then
    setenv BOOT_ORDER "A B"
    setenv BOOT_A_LEFT 3
    setenv BOOT_B_LEFT 3
fi

for slot in ${BOOT_ORDER}; do
    setenv pnum
    if test "${slot}" = "A"; then
        if test "${BOOT_A_LEFT}" = "3"; then
            setenv BOOT_A_LEFT 2
            setenv pnum 2
        elif test "${BOOT_A_LEFT}" = "2"; then
            setenv BOOT_A_LEFT 1
            setenv pnum 2
        elif test "${BOOT_A_LEFT}" = "1"; then
            setenv BOOT_A_LEFT 0
            setenv pnum 2
        fi
    elif test "${slot}" = "B"; then
        if test "${BOOT_B_LEFT}" = "3"; then
            setenv BOOT_B_LEFT 2
            setenv pnum 3
        elif test "${BOOT_B_LEFT}" = "2"; then
            setenv BOOT_B_LEFT 1
            setenv pnum 3
        elif test "${BOOT_B_LEFT}" = "1"; then
            setenv BOOT_B_LEFT 0
            setenv pnum 3
        fi
    fi
    if test "${pnum}" != ""; then
        env export -c -s 0x4000 ${ramdisk_addr_r} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT
        @DISK_COMMAND@ write ${ramdisk_addr_r} 0x1800 0x20
        echo "Refuge: slot ${slot}, attempts left: A ${BOOT_A_LEFT}, B ${BOOT_B_LEFT}"
        setenv bootargs "@ARGUMENTS@ refuge.disk=@DISK@ refuge.slot=${slot} rauc.slot=${slot}"
        if load ${devtype} ${devnum}:${pnum} ${kernel_addr_r} /boot/@KERNEL@; then
            @LOAD_DEVICE_TREE@
            if load ${devtype} ${devnum}:${pnum} ${ramdisk_addr_r} /boot/initrd.img; then
                @START_COMMAND@ ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} @DEVICE_TREE_ADDRESS@
            fi
        fi
        echo "Refuge: slot ${slot} holds nothing that starts"
    fi
done

echo "Refuge: no slot is left: giving both their attempts again"
setenv BOOT_ORDER "A B"
setenv BOOT_A_LEFT 3
setenv BOOT_B_LEFT 3
env export -c -s 0x4000 ${ramdisk_addr_r} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT
@DISK_COMMAND@ write ${ramdisk_addr_r} 0x1800 0x20
# Not in a hurry: a card that is being written or a supply that comes up slowly gets its time.
sleep 5
reset
