"""What follows from a board's data: files that every way of making its image needs, each made here and nowhere else.

    scripts/board.py NAME fact TABLE.KEY   from board.toml: a list gives one line each, a table KEY VALUE; nothing where it is not there
    scripts/board.py NAME FILE             boot.cmd, fw_env.config, system.conf (RAUC's), watchdog.conf (systemd's) or bootstate.bin

scripts/image, yocto-layer/ and board/buildroot/ call it, and tests/layers holds it against what they make.
"""

import re
import struct
import sys
import tomllib
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
# As board/common/boot.cmd has them: how large a copy of the boot state is, where the second lies from the first, and what a new
# card's says.
STATE_BYTES = 0x4000
STATE_COPY_AT = MIB // 2
NEW_STATE = ("BOOT_ORDER=A B", "BOOT_A_LEFT=3", "BOOT_B_LEFT=3")


class Wrong(Exception):
    """What a board's data lacks, for whoever changed it."""


class Partition:
    """One of genimage.cfg: `number` is its place in the table, None for what is written raw; offset and size in MiB, size None
    where the image in it decides; `uuid` of a GPT, None in an MBR."""

    def __init__(self, name, number, lines):
        self.name, self.number = name, number
        self.offset_mib = mebibytes(lines["offset"])
        self.size_mib = mebibytes(lines["size"]) if "size" in lines else None
        self.uuid = lines.get("partition-uuid")


class Board:
    def __init__(self, name, root=ROOT):
        self.name, self.root = name, Path(root)
        self.folder = self.root / "board" / name
        if not (self.folder / "board.toml").is_file():
            raise Wrong(f"no board {name} in {self.folder.parent}")
        self.facts = tomllib.loads((self.folder / "board.toml").read_text())

    def fact(self, key):
        """The value at TABLE.KEY; an empty list where it is not there."""
        value = self.facts
        for part in key.split("."):
            value = value.get(part, [])
        return value

    def table(self):
        """("gpt", "hybrid" or "mbr", the disk's UUID or signature, its partitions in the order of genimage.cfg)."""
        text = re.sub(r"#.*", "", (self.folder / "genimage.cfg").read_text())
        head = settings(re.search(r"hdimage \{(.*?)\}", text, re.DOTALL)[1])
        found, number = [], 0
        for name, body in re.findall(r"partition ([\w-]+) \{(.*?)\}", text, re.DOTALL):
            lines = settings(body)
            in_table = lines.get("in-partition-table") != "false"
            number += in_table
            found.append(Partition(name, number if in_table else None, lines))
        return head["partition-table-type"], head.get("disk-uuid") or head["disk-signature"], found

    def boot_script(self):
        """boot.cmd as U-Boot reads it, before mkimage: comments are left out."""
        trees = {
            "firmware": ("true", "${fdt_addr}"),
            "slot": ("load ${devtype} ${devnum}:${pnum} ${fdt_addr_r} /boot/dtb/${fdtfile}", "${fdt_addr_r}"),
        }
        source = self.fact("boot.device_tree")
        if source not in trees:
            raise Wrong("boot.device_tree is firmware or slot")
        lines = (self.root / "board/common/boot.cmd").read_text().splitlines(keepends=True)
        return filled(
            "".join(line for line in lines if line.strip() and not line.lstrip().startswith("#")),
            DISK_SELECT="mmc dev ${devnum}" if self.fact("boot.disk_command") == "mmc" else "true",
            DISK_COMMAND=self.fact("boot.disk_command"),
            ARGUMENTS=self.fact("boot.arguments"),
            DISK=self.fact("storage.disk"),
            KERNEL=self.fact("image.kernel"),
            LOAD_DEVICE_TREE=trees[source][0],
            START_COMMAND=self.fact("boot.start_command"),
            DEVICE_TREE_ADDRESS=trees[source][1],
        )

    def fw_env_config(self):
        """For libubootenv: the first copy of the boot state alone. boot.cmd makes the second."""
        return f"{self.fact('boot_state.device')} {self.fact('boot_state.offset_bytes')} {STATE_BYTES:#x}\n"

    def system_conf(self):
        return filled((self.root / "board/common/system.conf").read_text(), BOARD=self.name)

    def watchdog_conf(self):
        """A drop-in for systemd's system.conf."""
        return f"[Manager]\nRuntimeWatchdogSec={self.fact('watchdog.timeout_s')}\n"

    def boot_state(self):
        """The mebibyte of the boot state, with both copies: an environment of U-Boot's (CRC32, NAME=VALUE and a zero each, a zero)."""
        text = "".join(f"{line}\0" for line in NEW_STATE).encode()
        text = (text + b"\0").ljust(STATE_BYTES - 4, b"\xff")
        copy = struct.pack("<I", zlib.crc32(text)) + text
        whole = bytearray(MIB)
        for at in (0, STATE_COPY_AT):
            whole[at : at + STATE_BYTES] = copy
        return bytes(whole)

    def file(self, name):
        """The bytes of one of FILES."""
        made = FILES[name](self)
        return made if isinstance(made, bytes) else made.encode()


FILES = {
    "boot.cmd": Board.boot_script,
    "fw_env.config": Board.fw_env_config,
    "system.conf": Board.system_conf,
    "watchdog.conf": Board.watchdog_conf,
    "bootstate.bin": Board.boot_state,
}


def settings(text):
    """NAME = VALUE lines of genimage's, without their quotes."""
    return {name: value.strip('"') for name, value in re.findall(r"^\s*([\w-]+) = (\S+)\s*$", text, re.MULTILINE)}


def mebibytes(text):
    """genimage's sizes in MiB: 4M is 4, 128K an eighth."""
    number, unit = int(text[:-1]), text[-1]
    return number * {"K": 1024, "M": MIB}[unit] / MIB


def filled(text, **gaps):
    """`text` with every @NAME@ in its place; one that nothing fills is an error, as is a value without a gap."""
    for name, value in gaps.items():
        if f"@{name}@" not in text:
            raise Wrong(f"nothing asks for @{name}@")
        text = text.replace(f"@{name}@", str(value))
    left = re.search(r"@[A-Z_]+@", text)
    if left:
        raise Wrong(f"nothing fills {left[0]}")
    return text


def shown(value):
    if isinstance(value, dict):
        value = [f"{key} {text}" for key, text in value.items()]
    return "".join(f"{line}\n" for line in (value if isinstance(value, list) else [value]))


def main(words):
    try:
        match words:
            case [name, "fact", key]:
                print(shown(Board(name).fact(key)), end="")
            case [name, file] if file in FILES:
                sys.stdout.buffer.write(Board(name).file(file))
            case _:
                sys.exit(__doc__)
    except Wrong as wrong:
        sys.exit(f"error: {wrong}")


if __name__ == "__main__":
    main(sys.argv[1:])
