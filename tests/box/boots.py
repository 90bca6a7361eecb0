"""Boots a board's image under QEMU and uses it as its owner would, with the plug pulled in between.

Usage: boots.py BOARD IMAGE WORK REFUGE [--long]

    one box     first start · claimed · a folder backed up · plug pulled during the next backup · first copy of the boot state
                torn · second start · backed up, verified, restored, compared · power button · nothing written to boot and root
    another     boot state of noise, a slot A without init, slot B whole · falls back by itself · B is judged good · what it
                uses of memory and which ports listen · another identity than the first
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))
import machine as qemu  # noqa: E402

MIB = 1024 * 1024
STATE_AT, STATE_COPY_AT, STATE_BYTES = 3 * MIB, 3 * MIB + MIB // 2, 0x4000
BOOT, SLOT_A, SLOT_B, DATA = (4, 28), (32, 224), (256, 224), (480, 0)
# Enough for the folder below twice, small enough to make and check quickly.
DISK_BYTES = 1024 * MIB
# The contract (README): an idle machine, second start. A busy one only says so.
PROCESSOR_MOST_S = 30
USED_MOST_KIB, NODE_MOST_KIB = 60 * 1024, 16 * 1024
# What may listen: the node on its two ports, mDNS and its beacon; and where DHCP is answered.
PORTS = {("tcp", 80), ("tcp", 443), ("udp", 5353), ("udp", 7338), ("udp", 68), ("udp", 546)}


class Box:
    """A disk made from the image, and the machine that runs from it."""

    def __init__(self, name, setting):
        board, image, work, refuge, *_ = setting
        self.folder = Path(work) / name
        self.folder.mkdir()
        self.refuge = refuge
        self.disk = self.folder / "disk.img"
        qemu.make_disk(image, self.disk, DISK_BYTES)
        self.machine = qemu.Machine(qemu.board(board), self.disk, self.folder)
        self.url = f"https://127.0.0.1:{self.machine.https}"
        qemu.write_first_boot(self.disk, ["hostname=box-of-tests", f"authorities=127.0.0.1:{self.machine.https}", "no line of ours"])

    def client(self, *words, **options):
        environment = dict(os.environ, XDG_CONFIG_HOME=str(self.folder / "config"), XDG_CACHE_HOME=str(self.folder / "cache"))
        return subprocess.Popen([self.refuge, *words, "--node", self.url], env=environment, **options)

    def run(self, *words):
        with self.client(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            said = process.communicate(timeout=600)[0]
        assert process.returncode == 0, f"refuge {' '.join(words)}: {said}"
        return said

    def claim(self):
        environment = dict(os.environ, XDG_CONFIG_HOME=str(self.folder / "config"), XDG_CACHE_HOME=str(self.folder / "cache"))
        subprocess.run([self.refuge, "claim", self.url, self.machine.fact("claim code")], env=environment, check=True, timeout=120)

    def write(self, at, data):
        with open(self.disk, "r+b") as file:
            file.seek(at)
            file.write(data)

    def hash(self, part):
        digest = hashlib.sha256()
        with open(self.disk, "rb") as file:
            file.seek(part[0] * MIB)
            for _ in range(part[1]):
                digest.update(file.read(MIB))
        return digest.hexdigest()

    def state(self):
        """The first copy of the boot state, as Linux and U-Boot left it."""
        configuration = self.folder / "fw_env.config"
        configuration.write_text(f"{self.disk} {STATE_AT:#x} {STATE_BYTES:#x}\n")
        said = subprocess.run(["fw_printenv", "-c", configuration], check=True, capture_output=True, text=True).stdout
        return dict(line.split("=", 1) for line in said.splitlines())


def make_folder(folder):
    """Files of every size and kind that a user's folder has, and enough of them to pull the plug in the middle."""
    folder.mkdir()
    for number in range(40):
        (folder / f"file {number}").write_bytes(os.urandom(1 + number * 7919))
    (folder / "large").write_bytes(os.urandom(24 * MIB))
    (folder / "below" / "deeper").mkdir(parents=True)
    (folder / "below" / "naïve ☂").write_text("text\n" * 1000)
    (folder / "below" / "deeper" / "link").symlink_to("../naïve ☂")
    (folder / "below" / "script").write_text("#!/bin/sh\n")
    (folder / "below" / "script").chmod(0o755)
    os.utime(folder / "below" / "deeper", ns=(10**18, 10**18 + 123456789))


def compare(one, other):
    """Every entry, with content, mode, time and target of a link."""

    def tree(folder):
        found = {}
        for path in sorted(folder.rglob("*")):
            about = path.lstat()
            content = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(folder))] = (about.st_mode, about.st_mtime_ns, content)
        return found

    first, second = tree(one), tree(other)
    assert first and first == second, {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
    return len(first)


def started_with_a_torn_state(box):
    text = box.machine.console()
    assert "the first copy of the boot state is damaged" in text and "no copy of the boot state" not in text, text[-2000:]
    assert "Refuge: slot A, attempts left" in text


def one_box(setting):
    box = Box("one", setting)
    source = box.folder / "source"
    make_folder(source)
    box.machine.start().wait_ready()
    said(f"first start: {box.machine.processor_s():.1f} s of processor time")
    assert "the data partition grows" in box.machine.console()
    assert "first-boot.conf, line 3" in box.machine.console()
    node = box.machine.fact("node id")
    # Only from here on: the first start may grow, but not these.
    untouched = {name: box.hash(part) for name, part in (("boot", BOOT), ("slot A", SLOT_A), ("slot B", SLOT_B))}
    box.claim()
    box.run("backup", str(source), "--ref", "tests")
    judged_good(box, "A")

    (source / "more").write_bytes(os.urandom(48 * MIB))
    with box.client("backup", str(source), "--ref", "tests", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as backup:
        before = written(box)
        box.machine.wait("the second backup stores bytes", lambda: written(box) > before + 8 * MIB or backup.poll() is not None, 300)
        was_cut = backup.poll() is None
        box.machine.kill()
    assert was_cut, "the backup was done before the plug was pulled"

    box.write(STATE_AT, os.urandom(512))
    start = time.monotonic()
    box.machine.start().wait_ready()
    said(f"second start: {box.machine.processor_s():.1f} s of processor time, {time.monotonic() - start:.0f} s by the clock (at most {PROCESSOR_MOST_S} s on an idle machine)")
    started_with_a_torn_state(box)
    assert box.machine.fact("node id") == node, "the node is another one after a power cut"
    assert box.machine.fact("claim code") is None, "a claimed box shows a claim code"
    box.run("backup", str(source), "--ref", "tests")
    box.run("verify", "tests")
    box.run("restore", "tests", str(box.folder / "restored"))
    said(f"{compare(source, box.folder / 'restored')} entries came back identical")
    judged_good(box, "A")
    assert box.machine.stop(), "the power button did not shut the box down"
    for name, part in (("boot", BOOT), ("slot A", SLOT_A), ("slot B", SLOT_B)):
        assert box.hash(part) == untouched[name], f"{name} was written to"
    data = box.folder / "data"
    subprocess.run(["dd", f"if={box.disk}", f"of={data}", "bs=1M", f"skip={DATA[0]}", "conv=sparse", "status=none"], check=True)
    # Shut down in order: nothing is left to replay or repair. A megabyte at the end is the second partition table's.
    header = subprocess.run(["dumpe2fs", "-h", data], check=True, capture_output=True, text=True).stdout
    assert re.search(r"^Filesystem state: +clean$", header, re.MULTILINE) and "needs_recovery" not in header, header
    blocks = int(re.search(r"^Block count: +(\d+)", header, re.MULTILINE)[1])
    assert blocks * 4096 > DISK_BYTES - DATA[0] * MIB - 8 * MIB, "the data file system did not grow to the disk"
    shutil.rmtree(box.folder)
    return node


def written(box):
    """Bytes of the disk that are in use, as the machine's own file system counts them: grows as the box stores."""
    return box.disk.stat().st_blocks * 512


def judged_good(box, slot):
    """The slot has its attempts back once the node answers."""
    box.machine.wait(f"slot {slot} is judged good", lambda: box.state().get(f"BOOT_{slot}_LEFT") == "3", 120)


PROBE = """[Unit]
After=refuge-slot-good.service systemd-logind.service systemd-timesyncd.service systemd-resolved.service
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/console
ExecStartPre=/usr/bin/sleep 5
ExecStart=/bin/sh -c 'echo probe begins; cat /proc/meminfo; grep -H VmRSS $(grep -l refuge /proc/[0-9]*/comm | sed s/comm/status/); netstat -ltun; cat /proc/mounts; cat /proc/sys/kernel/hostname; echo probe ends'
[Install]
"""


def debugfs(file, *orders):
    done = subprocess.run(["debugfs", "-w", "-f", "-", str(file)], input="".join(f"{order}\n" for order in orders), check=True, capture_output=True, text=True)
    # Its first line of errors is its version.
    errors = done.stderr.splitlines()[1:]
    assert not errors, errors


def another_box(setting):
    box = Box("another", setting)
    slot = box.folder / "slot"
    # Slot B: the image's root, with a unit that says what a console login would show.
    subprocess.run(["dd", f"if={box.disk}", f"of={slot}", "bs=1M", f"skip={SLOT_A[0]}", f"count={SLOT_A[1]}", "conv=sparse", "status=none"], check=True)
    probe = box.folder / "probe.service"
    probe.write_text(PROBE)
    units = "/usr/lib/systemd/system"
    debugfs(slot, f"cd {units}", f"write {probe} probe.service", "cd multi-user.target.wants", "symlink probe.service ../probe.service")
    subprocess.run(["dd", f"if={slot}", f"of={box.disk}", "bs=1M", f"seek={SLOT_B[0]}", "conv=notrunc", "status=none"], check=True)
    # Slot A: everything but init.
    debugfs(slot, "rm /usr/sbin/init")
    subprocess.run(["dd", f"if={slot}", f"of={box.disk}", "bs=1M", f"seek={SLOT_A[0]}", "conv=notrunc", "status=none"], check=True)
    for at in (STATE_AT, STATE_COPY_AT):
        box.write(at, os.urandom(STATE_BYTES))
    box.machine.start().wait_ready()
    text = box.machine.console()
    assert text.count("no copy of the boot state is whole") == 1, "the first start writes a whole one"
    attempts = re.findall(r"Refuge: slot ([AB]), attempts left: A (\d), B (\d)", text)
    assert attempts == [("A", "2", "3"), ("A", "1", "3"), ("A", "0", "3"), ("B", "0", "2")], attempts
    judged_good(box, "B")
    assert box.state()["BOOT_A_LEFT"] == "0"
    box.machine.wait("the probe", lambda: "probe ends" in box.machine.console(), 180)
    facts = box.machine.console().split("probe begins")[1].split("probe ends")[0]
    total, available = (int(re.search(rf"^{name}: +(\d+) kB", facts, re.MULTILINE)[1]) for name in ("MemTotal", "MemAvailable"))
    node = int(re.search(r"VmRSS:\s+(\d+) kB", facts)[1])
    said(f"memory: {(total - available) // 1024} MiB of {total // 1024} used, of it the node {node // 1024}")
    assert total - available <= USED_MOST_KIB, "the idle system uses too much memory"
    assert node <= NODE_MOST_KIB, "the idle node uses too much memory"
    listening = {
        (kind, int(port))
        for kind, address, port in re.findall(r"^(tcp|udp)\S* +\d+ +\d+ +(\S+):(\d+) ", facts, re.MULTILINE)
        if not address.startswith("127.")
    }
    assert {("tcp", 80), ("tcp", 443)} <= listening <= PORTS, listening
    mounts = {fields[1]: fields[3].split(",") for line in facts.splitlines() if len(fields := line.split()) == 6 and fields[1].startswith("/")}
    assert "ro" in mounts["/"], mounts["/"]
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(mounts["/data"]), mounts["/data"]
    assert "box-of-tests" in facts.splitlines(), "the first-boot file's name is not the host's"
    identity = box.machine.fact("node id")
    box.machine.kill()
    shutil.rmtree(box.folder)
    return identity


def said(text):
    print(text, flush=True)


def main():
    setting = sys.argv[1:]
    identities = []
    for test in (one_box, another_box):
        begun = time.monotonic()
        identities.append(test(setting))
        said(f"ok {setting[0]}: {test.__name__} ({time.monotonic() - begun:.0f} s)")
    assert len(set(identities)) == len(identities), "two boxes have one identity"


if __name__ == "__main__":
    try:
        main()
    finally:
        qemu.kill_all()
