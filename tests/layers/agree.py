"""Holds the Yocto layer and the Buildroot tree against board/ and systemd/: what one of them says of partitions, boot state, boot
script, updates, kernel and accounts, the others must mean.

Usage: agree.py WORK
"""

import configparser
import hashlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from board import MIB, NEW_STATE, STATE_BYTES, STATE_COPY_AT, Board  # noqa: E402

LAYER = ROOT / "yocto-layer/meta-refuge"
BUILDROOT = ROOT / "board/buildroot"
BOARDS = sorted(file.parent.name for file in ROOT.glob("board/*/board.toml"))
SECTOR = 512
WIC_TABLE = {"gpt": "gpt", "hybrid": "gpt-hybrid", "mbr": "msdos"}


def variables(file):
    """NAME = "VALUE" of a BitBake file, continued lines joined; of several, the last."""
    text = file.read_text().replace("\\\n", " ")
    return dict(re.findall(r'^([\w:${}/.\[\]-]+) *(?:\?\?=|\?=|\+=|:=|=) *"(.*)"$', text, re.MULTILINE))


class Wks:
    """A kickstart file of wic: its partitions with their options, and the table's kind and name."""

    def __init__(self, board):
        self.parts, self.kind, self.disk = [], None, None
        number = 0
        for line in (LAYER / f"files/wic/refuge-{board}.wks.in").read_text().splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            options, waiting = {}, None
            for word in words[1:]:
                if word.startswith("--"):
                    waiting, given, value = word[2:].partition("=")
                    options[waiting] = value if given else True
                else:
                    options[waiting] = word
            if words[0] == "part":
                number += "no-table" not in options
                options["number"] = None if "no-table" in options else number
                self.parts.append(options)
            else:
                self.kind, self.disk = options["ptable"], options["diskid"]

    def file(self, name):
        return next(part for part in self.parts if f"file={name}" in part.get("sourceparams", ""))


def mebibytes(text):
    return int(text[:-1]) / {"K": 1024, "M": 1}[text[-1]]


def partitions(board, work):
    """Numbers, names, places, sizes and UUIDs of wic's disk are those of genimage's."""
    kind, disk, wanted = board.table()
    wks = Wks(board.name)
    assert wks.kind == WIC_TABLE[kind], wks.kind
    assert wks.disk.lower() == disk.lower(), wks.disk
    for part in wanted:
        if part.name == "bootstate":
            found = wks.file("refuge-bootstate.bin")
        elif part.number is None:
            found = wks.file({"mlo": "MLO", "u-boot": "u-boot.img"}[part.name])
        else:
            found = next(other for other in wks.parts if other["number"] == part.number)
            assert mebibytes(found["fixed-size"]) == part.size_mib, part.name
            assert found.get("part-name") == (None if kind == "mbr" else part.name), part.name
            assert found.get("uuid") == part.uuid, part.name
            assert found["fstype"] == ("vfat" if part.name == "boot" else "ext4"), part.name
        assert mebibytes(found["offset"]) == part.offset_mib, part.name
    assert [part["number"] for part in wks.parts if "active" in part] == [1]
    assert ("mbr" in wks.parts[1]) == (kind == "hybrid")
    # wic goes from the front to the back of the disk, or refuses.
    places = [mebibytes(part["offset"]) for part in wks.parts]
    assert places == sorted(places), places


def numbers(board, work):
    """What init and the boot script count on is what the table says."""
    _, _, parts = board.table()
    named = {part.name: part for part in parts}
    init = (ROOT / "board/common/init").read_text()
    slots = dict(re.findall(r"^        (A|B)\) number=(\d) ;;$", init, re.MULTILINE))
    assert slots == {"A": str(named["rootfs_a"].number), "B": str(named["rootfs_b"].number)}, slots
    assert f'data=$(partition {named["data"].number})' in init and f'"$(partition {named["boot"].number})" /boot' in init
    script = board.boot_script()
    for slot, name in (("A", "rootfs_a"), ("B", "rootfs_b")):
        tried = set(re.findall(rf'"\${{BOOT_{slot}_LEFT}}" = "\d"; then\s+setenv BOOT_{slot}_LEFT \d\s+setenv pnum (\d)', script))
        assert tried == {str(named[name].number)}, (slot, tried)
    assert board.fact("storage.data_partition") == named["data"].number
    # The data partition is the last on the disk, or it could not grow.
    assert named["data"].offset_mib == max(part.offset_mib for part in parts)


def boot_state(board, work):
    """The boot script, fw_env.config and the image mean the same sectors of the disk."""
    part = next(part for part in board.table()[2] if part.name == "bootstate")
    at = int(part.offset_mib * MIB)
    sectors = {f"{place // SECTOR:#x} {STATE_BYTES // SECTOR:#x}" for place in (at, at + STATE_COPY_AT)}
    script = board.boot_script()
    assert set(re.findall(r"(?:read|write) \$\{ramdisk_addr_r\} (0x\w+ 0x\w+)", script)) == sectors
    assert set(re.findall(r"env import -c \$\{ramdisk_addr_r\} (0x\w+)", script)) == {f"{STATE_BYTES:#x}"}
    device, offset, size = board.fw_env_config().split()
    base = at if device == f"/dev/disk/by-partlabel/{part.name}" else 0
    assert base + int(offset, 0) == at and int(size, 0) == STATE_BYTES
    assert (device.startswith("/dev/disk/by-partlabel/")) == bool(part.number)
    whole = board.boot_state()
    assert len(whole) == part.size_mib * MIB
    (work / "state").write_bytes(whole)
    for place in (0, STATE_COPY_AT):
        (work / "fw_env.config").write_text(f"{work / 'state'} {place:#x} {STATE_BYTES:#x}\n")
        said = subprocess.run(["fw_printenv", "--config", work / "fw_env.config"], check=True, capture_output=True, text=True).stdout
        assert sorted(said.split("\n")) == sorted([*NEW_STATE, ""]), said
    (work / "text").write_text("".join(f"{line}\n" for line in NEW_STATE))
    subprocess.run(["mkenvimage", "-s", f"{STATE_BYTES:#x}", "-o", work / "made", work / "text"], check=True)
    assert whole.startswith((work / "made").read_bytes()), "mkenvimage makes another boot state"


def boot_script(board, work):
    """U-Boot's mkimage takes the script."""
    (work / "boot.cmd").write_text(board.boot_script())
    subprocess.run(
        ["mkimage", "-A", "arm", "-T", "script", "-C", "none", "-n", "refuge", "-d", work / "boot.cmd", work / "boot.scr"],
        check=True,
        capture_output=True,
    )
    assert "rauc.slot=${slot}" in board.boot_script()


def updates(board, work):
    """RAUC installs into the slots that the boot script starts, and takes the bundles that are made for this board."""
    text = board.system_conf()
    settings = configparser.ConfigParser()
    settings.read_string(text)
    named = {part.name: part for part in board.table()[2]}
    init = (ROOT / "board/common/init").read_text()
    for number, (slot, name) in enumerate((("A", "rootfs_a"), ("B", "rootfs_b"))):
        section = settings[f"slot.rootfs.{number}"]
        assert section["type"] == "ext4" and section["bootname"] == slot
        # The initramfs links the slot's partition there.
        assert f'ln -s "$(partition {named[name].number})" {section["device"]}\n' in init, section["device"]
    bundle = variables(LAYER / "recipes-refuge/bundles/refuge-bundle.bb")
    wanted = bundle["RAUC_BUNDLE_COMPATIBLE"].replace("${REFUGE_BOARD}", board.name)
    assert settings["system"]["compatible"] == wanted
    assert bundle["RAUC_BUNDLE_FORMAT"] == "verity" and settings["system"]["bundle-formats"] in ("verity", "-plain")
    # What the layer and the tree make of the keyring lies where RAUC looks.
    assert settings["keyring"]["path"] == "/etc/rauc/keyring.pem"
    assert "${D}${sysconfdir}/rauc/${RAUC_KEYRING_FILE}" in (LAYER / "classes-recipe/refuge-rauc-conf.bbclass").read_text()
    assert "$target/etc/rauc/keyring.pem" in (BUILDROOT / "scripts/post-build.sh").read_text()
    # RAUC itself: unknown keys, slots that are twice there and the like are errors. The slots are not on this machine, so it goes no
    # further than what it read.
    file = work / "system.conf"
    file.write_text(text)
    said = subprocess.run(["rauc", f"--conf={file}", "status"], capture_output=True, text=True)
    assert "Failed to load system config" not in said.stderr, said.stderr
    broken = work / "broken.conf"
    broken.write_text(text.replace("bootname=B", "bootname=A"))
    refused = subprocess.run(["rauc", f"--conf={broken}", "status"], capture_output=True, text=True)
    assert "Failed to load system config" in refused.stderr, "rauc did not read the file"


def kernel(board, work):
    """Every module that the packaged kernel loads is an option of the configured ones; those of the initramfs are built in."""
    options = {}
    for file in ("common", board.name):
        text = (ROOT / f"board/{file}/linux.cfg").read_text()
        options |= dict(re.findall(r"^# ([\w-]+)\n(?:#.*\n)*CONFIG_\w+=([ym])$", text, re.MULTILINE))
    common = [line for line in (ROOT / "board/common/modules").read_text().split("\n") if line and not line.startswith("#")]
    modules = [*common, *board.fact("image.modules"), board.fact("watchdog.module")]
    missing = [name for name in modules if name not in options]
    assert not missing, f"linux.cfg says nothing of {missing}"
    loaded = [name for name in board.fact("image.initramfs_modules") if options.get(name) != "y"]
    assert not loaded, f"the initramfs of these builds loads no module, so these must be built in: {loaded}"


def boot_loader(board, work):
    """A watchdog that U-Boot starts counts as long as the board's says."""
    text = (ROOT / f"board/{board.name}/uboot.cfg").read_text()
    times = re.findall(r"^CONFIG_WATCHDOG_TIMEOUT_MSECS=(\d+)$", text, re.MULTILINE)
    assert all(int(time) == board.fact("watchdog.timeout_s") * 1000 for time in times), times
    sectors = re.findall(r"^CONFIG_SYS_MMCSD_RAW_MODE_U_BOOT_SECTOR=(0x\w+)$", text, re.MULTILINE)
    loader = [part for part in board.table()[2] if part.name == "u-boot"]
    assert [int(sector, 16) * SECTOR for sector in sectors] == [part.offset_mib * MIB for part in loader]
    start = {"bootz": "CONFIG_CMD_BOOTZ=y", "booti": "CONFIG_CMD_BOOTI=y"}[board.fact("boot.start_command")]
    assert start in text


def buildroot(board, work):
    """Its configuration for a board names that board everywhere, and makes the same slot."""
    name = board.name.replace("-", "_")
    text = (BUILDROOT / f"configs/refuge_{name}_defconfig").read_text()
    said = dict(re.findall(r'^(BR2_\w+)="?(.*?)"?$', text, re.MULTILINE))
    assert said["BR2_ROOTFS_POST_SCRIPT_ARGS"] == board.name
    for key in ("BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES", "BR2_TARGET_UBOOT_CONFIG_FRAGMENT_FILES", "BR2_ROOTFS_OVERLAY"):
        for path in said[key].split():
            assert Path(path.replace("$(BR2_EXTERNAL_REFUGE_PATH)", str(BUILDROOT))).exists(), path
    slot = next(part for part in board.table()[2] if part.name == "rootfs_a")
    assert said["BR2_TARGET_ROOTFS_EXT2_SIZE"] == f"{int(slot.size_mib)}M"
    features = re.search(r"features='(.*?)'", (ROOT / "scripts/image").read_text())[1]
    assert said["BR2_TARGET_ROOTFS_EXT2_MKFS_OPTIONS"].endswith(f"-O {features}")
    assert f"-O {features} " in variables(LAYER / "recipes-refuge/images/refuge-image.bb")["EXTRA_IMAGECMD:ext4"]
    kernels = {"bootz": "BR2_arm", "booti": "BR2_aarch64"}
    assert kernels[board.fact("boot.start_command")] in said


def machines():
    """Every board has its machines in the layer, and every machine its kas file."""
    text = (LAYER / "conf/distro/include/refuge-boards.inc").read_text()
    boards = dict(re.findall(r'^REFUGE_BOARD:([\w-]+) = "([\w-]+)"$', text, re.MULTILINE))
    assert sorted(boards.values()) == BOARDS, boards
    built = {re.search(r"^machine: (\S+)$", file.read_text(), re.MULTILINE)[1] for file in ROOT.glob("yocto-layer/kas/*.yml") if file.stem != "base"}
    found = {override for machine in built for override in boards if machine == override or (override == "rpi" and machine.startswith("raspberrypi"))}
    assert found == set(boards), (built, boards)


def accounts():
    """The node's account is the one that its unit names, with one number everywhere."""
    recipe = next(LAYER.glob("recipes-refuge/refuge/refuge_*.bb"))
    said = variables(recipe)
    users = dict(line.split(":")[0:3:2] for line in (ROOT / "board/common/root/etc/passwd").read_text().splitlines())
    unit = (ROOT / "systemd/refuge.service").read_text()
    assert f"User={said['USERADD_PARAM:${PN}'].split()[-1]}\n" in unit
    before = (ROOT / "board/common/root/usr/lib/refuge/before-node").read_text()
    assert f"chown 0:{users['refuge']} " in before and f"chown {users['refuge']} " in before
    assert f"refuge {users['refuge']} refuge" in (BUILDROOT / "package/refuge/refuge.mk").read_text()


def versions():
    """One version, one licence, one time in every place."""
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
    assert (LAYER / f"recipes-refuge/refuge/refuge_{cargo['version']}.bb").exists()
    distro = variables(LAYER / "conf/distro/refuge-os.conf")
    assert distro["DISTRO_VERSION"] == cargo["version"]
    assert f"REFUGE_VERSION = {cargo['version']}\n" in (BUILDROOT / "package/refuge/refuge.mk").read_text()
    recipe = variables(LAYER / f"recipes-refuge/refuge/refuge_{cargo['version']}.bb")
    assert recipe["LICENSE"] == cargo["license"]
    assert recipe["LIC_FILES_CHKSUM"].endswith(hashlib.md5((ROOT / "LICENSE").read_bytes()).hexdigest())
    time = re.search(r"^export SOURCE_DATE_EPOCH=(\d+)$", (ROOT / "scripts/image").read_text(), re.MULTILINE)[1]
    assert distro["REPRODUCIBLE_TIMESTAMP_ROOTFS"] == time
    assert f"SOURCE_DATE_EPOCH:-{time}" in (BUILDROOT / "scripts/post-build.sh").read_text()


def rust():
    """No locked crate asks for a newer Rust than Cargo.toml: that is what the series of the layer has."""
    said = subprocess.run(["cargo", "metadata", "--locked", "--format-version", "1"], cwd=ROOT, check=True, capture_output=True, text=True)
    needed = {f"{package['name']} {package['version']}": package["rust_version"] for package in json.loads(said.stdout)["packages"]}
    most = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["rust-version"]
    newer = [crate for crate, version in needed.items() if version and release(version) > release(most)]
    assert not newer, f"these need a newer Rust than {most}: {newer}"


def release(version):
    return tuple(int(part) for part in version.split("."))[:2]


def main():
    work = Path(sys.argv[1])
    for name in BOARDS:
        board = Board(name)
        for check in (partitions, numbers, boot_state, boot_script, updates, kernel, boot_loader, buildroot):
            folder = work / f"{name}-{check.__name__}"
            folder.mkdir()
            check(board, folder)
            print(f"ok {name}: {check.__name__}")
    for check in (machines, accounts, versions, rust):
        check()
        print(f"ok {check.__name__}")


if __name__ == "__main__":
    main()
