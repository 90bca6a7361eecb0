"""Takes an image apart: its layout, its boot files, its boot state, its slots, and what must not be in them.

Usage: image.py BOARD IMAGE WORK
"""

import configparser
import re
import stat
import struct
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MIB = 1024 * 1024
# The download of a 32-bit board, with slot B left sparse.
COMPRESSED_MOST_BYTES = 32 * MIB
# Where everything lies, on every board: board/common/init and boot.cmd count on it.
STATE_AT, STATE_COPY_AT, STATE_BYTES = 3 * MIB, 3 * MIB + MIB // 2, 0x4000
PARTITIONS = {1: (4, 28), 2: (32, 224), 3: (256, 224), 4: (480, 64)}
# What may run with the rights of another: nothing.
SETUID_NEEDED = set()


def output(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Image:
    def __init__(self, board, path, work):
        self.board, self.path, self.work = board, Path(path), Path(work)
        self.facts = tomllib.loads((ROOT / "board" / board / "board.toml").read_text())

    def part(self, at, size):
        with open(self.path, "rb") as file:
            file.seek(at)
            return file.read(size)

    def slot(self, number):
        """A copy of a partition as a file of its own."""
        at, size = PARTITIONS[number]
        file = self.work / f"partition{number}"
        if not file.exists():
            subprocess.run(["dd", f"if={self.path}", f"of={file}", "bs=1M", f"skip={at}", f"count={size}", "conv=sparse", "status=none"], check=True)
        return file

    def tree(self):
        """Slot A unpacked: modes and owners are kept by debugfs, asked for one by one in `modes`."""
        folder = self.work / "root"
        if not folder.exists():
            folder.mkdir()
            subprocess.run(["debugfs", "-R", f"rdump / {folder}", str(self.slot(2))], check=True, capture_output=True)
        return folder

    def modes(self):
        """(path, mode, uid, gid) of everything in slot A, as the file system has them."""
        waiting, found = ["/"], []
        while waiting:
            orders = "".join(f'ls -p "{folder}"\n' for folder in waiting)
            said = subprocess.run(["debugfs", "-f", "-", str(self.slot(2))], input=orders, check=True, capture_output=True, text=True).stdout
            folders, at = iter(waiting), None
            waiting = []
            for line in said.splitlines():
                if line.startswith("debugfs: ls"):
                    at = next(folders)
                elif line.startswith("/"):
                    # /inode/mode/uid/gid/name/size/
                    _, _, mode, uid, gid, name, *_ = line.split("/")
                    if name in (".", "..", "lost+found", ""):
                        continue
                    path = f"{at.rstrip('/')}/{name}"
                    found.append((path, int(mode, 8), int(uid), int(gid)))
                    if stat.S_ISDIR(int(mode, 8)):
                        waiting.append(path)
        return found


def layout(image):
    table = output("sfdisk", "--dump", str(image.path))
    found = {
        int(number): (int(start) * 512, int(size) * 512)
        for number, start, size in re.findall(r"^\S+?(\d+) : start= *(\d+), size= *(\d+)", table, re.MULTILINE)
    }
    for number, (at, size) in PARTITIONS.items():
        assert found[number] == (at * MIB, size * MIB), (number, found[number])
    # Nothing lies on the boot state, and nothing after the data partition that must grow.
    for number, (at, size) in found.items():
        assert number == 5 or not (at < STATE_AT + MIB and at + size > STATE_AT), number
        assert at <= PARTITIONS[4][0] * MIB, number
    if "label: gpt" in table:
        names = dict(re.findall(r"^\S+?(\d+) : .*name=\"(\w+)\"", table, re.MULTILINE))
        assert names == {"1": "boot", "2": "rootfs_a", "3": "rootfs_b", "4": "data", "5": "bootstate"}, names
        assert found[5] == (STATE_AT, MIB), found[5]


def boot_state(image):
    """Both copies are whole environments and say that A goes first; Linux writes where U-Boot reads."""
    for at in (STATE_AT, STATE_COPY_AT):
        copy = image.part(at, STATE_BYTES)
        (sum_,) = struct.unpack_from("<I", copy)
        assert zlib.crc32(copy[4:]) == sum_, hex(at)
        said = set(copy[4:].rstrip(b"\0").rstrip(b"\xff").rstrip(b"\0").split(b"\0"))
        assert said == {b"BOOT_ORDER=A B", b"BOOT_A_LEFT=3", b"BOOT_B_LEFT=3"}, said
    device, offset, size = (image.tree() / "etc/fw_env.config").read_text().split()
    base = STATE_AT if device.endswith("/bootstate") else 0
    assert base + int(offset, 0) == STATE_AT and int(size, 0) == STATE_BYTES
    script = boot_script(image)
    for sector in (STATE_AT // 512, STATE_COPY_AT // 512):
        assert f" {sector:#x} 0x20" in script, hex(sector)


def boot_script(image):
    raw = subprocess.run(["mtype", "-i", str(image.slot(1)), "::boot.scr"], check=True, capture_output=True).stdout
    # A legacy U-Boot image: 64 bytes of header, then the script's size and a zero.
    assert raw[:4] == bytes.fromhex("27051956")
    return raw[72:].decode()


def boot_files(image):
    listing = output("mdir", "-b", "-/", "-i", str(image.slot(1)))
    names = {line.removeprefix("::/") for line in listing.split()}
    facts = image.facts["image"]
    trees = [Path(tree).name for tree in facts["device_trees"]] if facts.get("has_device_trees_in_boot") else []
    for name in ("boot.scr", "first-boot.conf.example", *facts["boot_files"], *trees):
        assert name in names, f"the boot partition has no {name}"
    assert "first-boot.conf" not in names
    script = boot_script(image)
    assert "@" not in script and image.facts["boot"]["start_command"] in script


def boot_loader(image):
    """What the board's ROM or firmware looks for is where it looks."""
    raw = image.facts["image"]["raw_files"]
    if "MLO" in raw:
        # AM335x Technical Reference Manual, 26.1.8.5: raw mode, a table of contents that names its settings.
        assert b"CHSETTINGS" in image.part(256 * 512, 512)
        # A legacy image (U-Boot's include/image.h) or a device tree that holds one.
        assert image.part(768 * 512, 4) in (bytes.fromhex("27051956"), bytes.fromhex("d00dfeed"))
    table = image.part(0, 512)
    if "MLO" in raw:
        # The ROM takes the active partition of an MBR.
        assert table[446] == 0x80 and table[450] == 0x0C and table[510:] == b"\x55\xaa"
    if image.facts["image"].get("firmware_files"):
        # The ROM of a Raspberry Pi 3 reads an MBR: the boot partition stands there too.
        entries = [table[446 + 16 * number : 462 + 16 * number] for number in range(4)]
        assert any(entry[4] == 0x0C and struct.unpack_from("<I", entry, 8)[0] == PARTITIONS[1][0] * MIB // 512 for entry in entries)
        settings = subprocess.run(["mtype", "-i", str(image.slot(1)), "::config.txt"], check=True, capture_output=True, text=True).stdout
        kernel = re.search(r"^kernel=(\S+)$", settings, re.MULTILINE)[1]
        assert kernel in image.facts["image"]["boot_files"], kernel


def slots(image):
    for number in (2, 4):
        subprocess.run(["e2fsck", "-f", "-n", str(image.slot(number))], check=True, capture_output=True)
    assert not any(image.part(PARTITIONS[3][0] * MIB, MIB)), "slot B is left empty for the first update"
    # No journal: mounting a slot read-only must write nothing.
    assert "has_journal" not in output("dumpe2fs", "-h", str(image.slot(2)))
    tree = image.tree()
    for name in (image.facts["image"]["kernel"], "initrd.img", *(f"dtb/{Path(tree_).name}" for tree_ in image.facts["image"]["device_trees"])):
        assert (tree / "boot" / name).stat().st_size > 10_000, name
    assert (tree / "usr/share/refuge/board.toml").read_bytes() == (ROOT / "board" / image.board / "board.toml").read_bytes()
    release = next((tree / "usr/lib/modules").iterdir())
    there = {file.name.split(".")[0].replace("-", "_") for file in release.rglob("*.ko*")}
    built_in = {Path(line).name.split(".")[0].replace("-", "_") for line in (release / "modules.builtin").read_text().split()}
    for module in ["ext4", "overlay", "squashfs", "dm-verity", "loop", *image.facts["image"]["modules"]]:
        assert module.replace("-", "_") in there | built_in, f"no module {module}"


def updates(image):
    """What RAUC is told, whom it believes, and that it hears root alone."""
    tree = image.tree()
    settings = configparser.ConfigParser()
    settings.read(tree / "etc/rauc/system.conf")
    system = settings["system"]
    assert system["compatible"] == f"refuge-{image.board}" and system["bundle-formats"] == "-plain", dict(system)
    assert system["bootloader"] == "uboot" and system["activate-installed"] == "false", dict(system)
    keyring = settings["keyring"]
    assert keyring["check-purpose"] == "codesign" and keyring["check-crl"] == "true", dict(keyring)
    trusted = (tree / keyring["path"].lstrip("/")).read_text()
    assert "BEGIN CERTIFICATE" in trusted and "BEGIN X509 CRL" in trusted
    # The slots, as the boot loader names them and the initramfs links them.
    init = (ROOT / "board/common/init").read_text()
    for number, name in enumerate("AB"):
        slot = settings[f"slot.rootfs.{number}"]
        assert slot["bootname"] == name and slot["type"] == "ext4"
        assert f'ln -s "$(partition {number + 2})" {slot["device"]}\n' in init, slot["device"]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*\n", (tree / "usr/share/refuge/version").read_text())
    policies = [file for file in tree.rglob("dbus-1/system.d/*rauc*")]
    assert len(policies) == 1 and '<policy context="default">\n    <deny' in policies[0].read_text(), policies
    # The host's RAUC reads it as a box's does; unknown keys and names that appear twice are errors.
    said = subprocess.run(["rauc", f"--conf={tree}/etc/rauc/system.conf", "info", tree / "none.raucb"], capture_output=True, text=True).stderr
    assert "No such file" in said and "Failed to initialize" not in said, said
    # Who vouches for servers that updates and documents come from: each certificate of the one file can be read.
    authorities = tree / "etc/ssl/certs/ca-certificates.crt"
    count = authorities.read_text().count("BEGIN CERTIFICATE")
    listed = output("openssl", "storeutl", "-noout", "-certs", str(authorities))
    assert count > 50 and f"Total found: {count}" in listed, listed[-200:]


def writable_places(image):
    """What init lays over exists in the root, and everything else a unit writes is memory."""
    tree = image.tree()
    for line in (tree / "usr/share/refuge/writable").read_text().splitlines():
        if line and not line.startswith("#"):
            _, path, _, _ = line.split()
            assert path.startswith("/var/") or (tree / path.lstrip("/")).exists(), path


def secrets(image):
    """S1: nothing that opens a box is in the image, so no two boxes share it."""
    tree = image.tree()
    for line in (tree / "etc/shadow").read_text().splitlines():
        name, password, *_ = line.split(":")
        assert password.startswith(("!", "*")), f"{name} can log in"
    users = {line.split(":")[0] for line in (tree / "etc/passwd").read_text().splitlines()}
    assert users == {line.split(":")[0] for line in (tree / "etc/shadow").read_text().splitlines()}
    assert (tree / "etc/machine-id").stat().st_size == 0
    assert not list(tree.rglob("authorized_keys")) and not list(tree.rglob("ssh_host_*"))
    marks = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{32}")
    for file in tree.rglob("*"):
        # GnuTLS, which RAUC's libcurl brings, has the keys of its self-tests in it: everybody has those.
        if file.is_file() and not file.is_symlink() and not file.name.startswith("libgnutls.so."):
            assert not marks.search(file.read_bytes()), f"a private key in {file.relative_to(tree)}"
    # A login needs a program that asks for it.
    for name in ("login", "agetty", "sulogin", "getty", "sshd", "dropbear", "telnetd", "su", "sudo"):
        assert not [path for path in tree.rglob(name) if path.is_file()], f"{name} is in the image"
    listing = output("debugfs", "-R", "ls -p /", str(image.slot(4)))
    assert {line.split("/")[5] for line in listing.split("\n") if line.startswith("/")} <= {".", "..", "lost+found"}


def rights(image):
    """S25: no program lends rights, nothing is open to everyone, all belongs to root."""
    found = image.modes()
    assert len(found) > 500, "the listing is too short to be the root"
    for path, mode, uid, gid in found:
        kind = stat.S_IFMT(mode)
        assert (uid, gid) == (0, 0), f"{path} belongs to {uid}:{gid}"
        if kind == stat.S_IFREG:
            assert not mode & (stat.S_ISUID | stat.S_ISGID) or path in SETUID_NEEDED, f"{path} is setuid or setgid"
        if kind != stat.S_IFLNK:
            assert not mode & stat.S_IWOTH, f"{path} is writable by everyone"
        assert kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK), f"{path} is a device or a pipe"


def sandbox(image):
    """The node's unit is rated 1.5 or better."""
    unit = image.tree() / "usr/lib/systemd/system/refuge.service"
    said = output("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", str(unit))
    print(said.strip().splitlines()[-1])


def first_boot_file(image):
    """A first-boot file with errors: each is named with its line, and all the rest is applied."""
    run = image.work / "run"
    (run / "refuge").mkdir(parents=True)
    file = image.work / "first-boot.conf"
    file.write_bytes(
        b"hostname=den\nhostname=-bad\naddress=192.168.1.10/24\r\ngateway=192.168.1.1\ndns=192.168.1.1 9.9.9.9\n# a comment\n"
        b"authorities=box.example.org:8443,[2001:db8::1]:8443\nauthorities=a b\nnonsense\ncolour=red\ntimezone=../../etc/passwd\n"
        b"address=999.1.1.1/24\n\xff\xfe\x00=\n"
        b"claim-code=0123-4567-89ab-cdef\nclaim-code=0000-1111-0000-1111\nclaim-code=0123-4567-89ab-cdeU\nclaim-code=\n" + b"x" * 3000
        + b"\norigins=https://app.example.org,http://localhost:65535\norigins=https://app.example.org/path\nauthorities=box:65536\n"
        b"replicate-allow=192.168.1.0/24,fd00::/8,10.0.0.1\nreplicate-allow=192.168.1.0/33\nreplicate-allow=1::2::3\n"
    )
    script = image.tree() / "usr/lib/refuge/first-boot"
    subprocess.run(["sh", script, file, run], check=True, capture_output=True)
    errors = (run / "refuge/first-boot.errors").read_text()
    refused = [int(line.removeprefix("first-boot.conf, line ").split(":")[0]) for line in errors.splitlines()]
    assert refused == [2, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 20, 21, 23, 24], refused
    # Its owner reads them on the page: what nobody else may know is not in them.
    assert not re.search("[0-9]{4}-", errors), errors
    assert (run / "refuge/hostname").read_text() == "den\n"
    code = run / "refuge/claim-code"
    assert code.read_text() == "0123456789ABCDEF\n" and stat.S_IMODE(code.stat().st_mode) == 0o400
    assert (run / "refuge/environment").read_text().splitlines() == [
        "REFUGE_AUTHORITIES=box.example.org:8443,[2001:db8::1]:8443",
        "REFUGE_ORIGINS=https://app.example.org,http://localhost:65535",
        "REFUGE_REPLICATE_ALLOW=192.168.1.0/24,fd00::/8,10.0.0.1",
        f"REFUGE_CLAIM_CODE_FILE={code}",
        f"REFUGE_NOTES_FILE={run}/refuge/first-boot.errors",
    ]
    network = (run / "systemd/network/70-first-boot.network").read_text().splitlines()
    for line in ("Address=192.168.1.10/24", "Gateway=192.168.1.1", "DNS=192.168.1.1", "DNS=9.9.9.9"):
        assert line in network, network


def wifi(image):
    """The first-boot file's network becomes one for wpa_supplicant, on a board that has a radio; nothing in it is read as more."""
    script = image.tree() / "usr/lib/refuge/first-boot"
    has_radio = "wpasupplicant" in image.facts["image"]["packages"]
    file, run = image.work / "wifi.conf", image.work / "wifi"
    (run / "refuge").mkdir(parents=True)
    file.write_text('wifi-name=a"\\}x ☂\nwifi-password=with "quotes" and \\\nwifi-country=DE\nwifi-country=de\nwifi-password=short\n')
    subprocess.run(["sh", script, file, run, image.tree()], check=True, capture_output=True)
    errors = (run / "refuge/first-boot.errors").read_text().splitlines()
    assert [line.split(":")[0] for line in errors if "wifi-name and" not in line] == [
        f"first-boot.conf, line {number}" for number in ([] if has_radio else [1]) + [4, 5]
    ], errors
    if not has_radio:
        assert not (run / "refuge/wifi.conf").exists()
        return
    wanted = (run / "refuge/wifi.conf").read_text()
    name = 'a"\\}x ☂'.encode().hex()
    assert f"ssid={name}\n" in wanted and 'psk="with "quotes" and \\"\n' in wanted and "country=DE\n" in wanted, wanted
    tree = image.tree()
    assert (tree / "usr/sbin/wpa_supplicant").exists() and (tree / "usr/lib/firmware/regulatory.db").exists()
    waiting = tree / "usr/lib/systemd/system/sys-subsystem-net-devices-wlan0.device.wants/refuge-wifi.service"
    assert waiting.is_symlink() and waiting.exists()


def size(image):
    download = Path(f"{image.path}.xz")
    if not download.exists():
        print("not compressed")
        return
    compressed = download.stat().st_size
    print(f"compressed: {compressed} of {COMPRESSED_MOST_BYTES} bytes")
    if image.facts["image"]["architecture"] == "armhf":
        assert compressed <= COMPRESSED_MOST_BYTES
    assert Path(str(image.path).removesuffix(".img") + ".bmap").read_text().startswith("<?xml")


def main():
    image = Image(*sys.argv[1:4])
    for check in (layout, boot_state, boot_files, boot_loader, slots, updates, writable_places, secrets, rights, sandbox, first_boot_file, wifi, size):
        check(image)
        print(f"ok {image.board}: {check.__name__}", flush=True)


if __name__ == "__main__":
    main()
