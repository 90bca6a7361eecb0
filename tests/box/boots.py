"""Boots a board's image under QEMU and uses it as its owner would, with the plug pulled in between.

Usage: boots.py BOARD IMAGE WORK REFUGE

    one box     first start · claimed · a folder backed up · plug pulled during the next backup · first copy of the boot state
                torn · second start · backed up, verified, restored, compared
    another     on the same virtual LAN: boot state of noise, a slot A without init, slot B whole · falls back by itself · B is
                judged good · what it uses of memory and which ports listen · another identity than the first
    both        find each other by multicast DNS and by UDP
    another     its node stops and is started again by its watchdog · its kernel panics, or hangs where the machine has a
                watchdog, and it starts again (R19)
    one box     power button · nothing written to boot and root (R18)
"""

import os
import re
import shutil
import subprocess
import sys
import time

from box import (
    BOOT, DATA, DISK_BYTES, MIB, SLOT_A, SLOT_B, STATE_AT, STATE_BYTES, STATE_COPY_AT,
    Box, Setting, add_shell, compare, debugfs, make_folder, number, qemu, said,
)  # fmt: skip

# The contract (README): an idle machine, second start. A busy one only says so.
PROCESSOR_MOST_S = 30
READY_MOST_S = 3
USED_MOST_KIB, NODE_MOST_KIB = 60 * 1024, 16 * 1024
# What may listen: the node on its two ports, mDNS and its beacon; and where DHCP is answered. Answers to the node's own questions
# of the beacon come to a port that the system picks, one for each family of addresses (net.ipv4.ip_local_port_range).
PORTS = {("tcp", 80), ("tcp", 443), ("udp", 5353), ("udp", 7338), ("udp", 68), ("udp", 546)}
PICKED, PICKED_MOST = range(32768, 61000), 2
# What scripts/flash would have picked for the other box.
CHOSEN_CODE = "7Q2M-ZKX4-0A9C-HJ5T"
UNTOUCHED = (("boot", BOOT), ("slot A", SLOT_A), ("slot B", SLOT_B))


def lives_through_a_power_cut(setting, lan):
    """The box goes on running; with it, what its parts held that nothing may write to."""
    box = Box("one", setting, networks=[lan])
    box.write_first_boot("no line of ours")
    source = box.folder / "source"
    make_folder(source)
    box.machine.start().wait_ready()
    said(f"first start: {box.machine.processor_s():.1f} s of processor time")
    assert "the data partition grows" in box.machine.console()
    assert "first-boot.conf, line 3" in box.machine.console()
    box.note_identity()
    node = box.machine.fact("node id")
    # Only from here on: the first start may grow the data partition, but not these.
    untouched = {name: box.hash(part) for name, part in UNTOUCHED}
    box.claim()
    reasons = box.call("GET", "/api/status")["reasons"]
    assert reasons == ["first-boot.conf, line 3: no KEY=VALUE"], reasons
    box.run("backup", str(source), "--ref", "tests")
    box.judged_good("A")

    (source / "more").write_bytes(os.urandom(24 * MIB))
    with box.client("backup", str(source), "--ref", "tests", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as backup:
        before = in_use(box)
        box.machine.wait("the second backup stores bytes", lambda: in_use(box) > before + 6 * MIB or backup.poll() is not None, 300)
        was_cut = backup.poll() is None
        box.machine.kill()
    assert was_cut, "the backup was done before the plug was pulled"

    box.write(STATE_AT, os.urandom(512))
    start = time.monotonic()
    box.machine.start().wait_ready()
    said(f"second start: {box.machine.processor_s():.1f} s of processor time, {time.monotonic() - start:.0f} s by the clock (at most {PROCESSOR_MOST_S} s on an idle machine)")
    text = box.machine.console()
    assert "the first copy of the boot state is damaged" in text and "no copy of the boot state" not in text, text[-2000:]
    assert "Refuge: slot A, attempts left" in text
    assert box.machine.fact("node id") == node, "the node is another one after a power cut"
    assert box.machine.fact("claim code") is None, "a claimed box shows a claim code"
    box.run("backup", str(source), "--ref", "tests")
    box.run("verify", "tests")
    box.run("restore", "tests", str(box.folder / "restored"))
    said(f"{compare(source, box.folder / 'restored')} entries came back identical")
    box.judged_good("A")
    return box, untouched


def in_use(box):
    """Bytes of the disk that are in use, as this machine's own file system counts them: grows as the box stores."""
    return box.disk.stat().st_blocks * 512


def ends_in_order(box, untouched):
    assert box.machine.stop(), "the power button did not shut the box down"
    for name, part in UNTOUCHED:
        assert box.hash(part) == untouched[name], f"{name} was written to"
    data = box.folder / "data"
    box.copy_part(DATA, data)
    # Shut down in order: nothing is left to replay or repair. A megabyte at the end is the second partition table's.
    header = subprocess.run(["dumpe2fs", "-h", data], check=True, capture_output=True, text=True).stdout
    assert re.search(r"^Filesystem state: +clean$", header, re.MULTILINE) and "needs_recovery" not in header, header
    assert number(r"^Block count: +(\d+)", header) * 4096 > DISK_BYTES - DATA[0] * MIB - 8 * MIB, "the data file system did not grow to the disk"


def falls_back(setting, lan):
    box = Box("another", setting, networks=[lan])
    box.write_first_boot(f"claim-code={CHOSEN_CODE}")
    slot = box.folder / "slot"
    # Slot B: the image's root, with a shell on the console.
    box.copy_part(SLOT_A, slot)
    add_shell(slot)
    box.put_part(slot, SLOT_B)
    # Slot A: everything but init.
    debugfs(slot, "rm /usr/sbin/init")
    box.put_part(slot, SLOT_A)
    slot.unlink()
    for at in (STATE_AT, STATE_COPY_AT):
        box.write(at, os.urandom(STATE_BYTES))
    box.machine.start().wait_ready()
    text = box.machine.console()
    assert text.count("no copy of the boot state is whole") == 1, "the first start writes a whole one"
    attempts = re.findall(r"Refuge: slot ([AB]), attempts left: A (\d), B (\d)", text)
    assert attempts == [("A", "2", "3"), ("A", "1", "3"), ("A", "0", "3"), ("B", "0", "2")], attempts
    assert box.machine.fact("claim code") == CHOSEN_CODE
    box.note_identity()
    box.judged_good("B")
    assert box.state()["BOOT_A_LEFT"] == "0"
    return box


def is_as_the_contract_says(box):
    """Sandbox, ports, mounts and memory of a box that has started, found by its own shell."""
    state = box.ask("systemctl is-system-running --wait").split()[-1]
    assert state == "running", f"{state}: " + box.ask("systemctl --failed --no-pager --plain --no-legend")
    journal = box.ask("journalctl --unit=refuge --output=cat --no-pager | cut -c 1-200")
    assert "confined to its folders" in journal, journal
    shown = box.ask("systemctl show --property=ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic refuge")
    began, ready = (number(rf"^{name}TimestampMonotonic=(\d+)", shown) for name in ("ExecMainStart", "ActiveEnter"))
    assert 0 < began < ready, shown
    said(f"exec to ready: {(ready - began) / 1e6:.1f} s (at most {READY_MOST_S} s on an idle machine)")
    about = box.ask("cat /proc/$(systemctl show --property=MainPID --value refuge)/status")
    # Neither capabilities nor a way to get some, and a system call filter: capabilities(7), seccomp(2).
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in about, f"{line} is not so: {about}"
    assert number(r"^Uid:\s+(\d+)", about) != 0
    listening = {
        (kind, int(port))
        for kind, address, port in re.findall(r"^(tcp|udp)\S* +\d+ +\d+ +(\S+):(\d+) ", box.ask("netstat -ltun"), re.MULTILINE)
        if not address.startswith("127.")
    }
    picked = {(kind, port) for kind, port in listening if kind == "udp" and port in PICKED}
    assert {("tcp", 80), ("tcp", 443)} <= listening - picked <= PORTS and len(picked) <= PICKED_MOST, listening
    lines = box.ask("cat /proc/mounts").splitlines()
    mounts = {fields[1]: fields[3].split(",") for line in lines if len(fields := line.split()) == 6 and fields[1].startswith("/")}
    assert "ro" in mounts["/"], mounts["/"]
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(mounts["/data"]), mounts["/data"]
    assert box.ask("cat /proc/sys/kernel/hostname").strip() == "box-of-tests", "the first-boot file's name is not the host's"
    used, total, node = 0, 0, 0

    def is_small():
        nonlocal used, total, node
        memory = box.ask("cat /proc/meminfo")
        total = number(r"^MemTotal: +(\d+) kB", memory)
        used = total - number(r"^MemAvailable: +(\d+) kB", memory)
        node = number(r"^VmRSS:\s+(\d+) kB", box.ask("cat /proc/$(systemctl show --property=MainPID --value refuge)/status"))
        return used <= USED_MOST_KIB and node <= NODE_MOST_KIB

    # What a start leaves behind is given back by and by.
    box.machine.wait(f"system and node use at most {USED_MOST_KIB} and {NODE_MOST_KIB} KiB", is_small, 120)
    said(f"memory: {used / 1024:.1f} MiB of {total // 1024} used, of it the node {node / 1024:.1f}")


def find_each_other(one, other):
    both = {"mdns", "udp"}
    began = time.monotonic()
    for asked, sought in ((one, other), (other, one)):
        node = sought.machine.fact("node id")
        asked.machine.wait(f"the page of {asked.folder.name} lists the other, found in both ways", lambda: asked.peers().get(node) == both, 180)
    said(f"each page lists the other, found by multicast DNS and UDP, {time.monotonic() - began:.1f} s after both had an owner")
    # The command as well; it takes less than two seconds on a machine that is not emulated.
    found = other.ask("refuge discover --json")
    assert one.machine.fact("node id") in found and '"mdns"' in found and '"udp"' in found, found


def node_is_started_again(box):
    """R19: a node that makes no progress."""
    shown = "systemctl show --property={} --value refuge"
    before = box.ask(shown.format("MainPID")).strip()
    began = time.monotonic()
    box.ask(f"kill -STOP {before}")
    assert not box.machine.answers()
    box.machine.wait("the watchdog starts the node again", lambda: box.ask(shown.format("NRestarts")).strip() == "1", 180)
    box.machine.wait("the node answers again", box.machine.answers, 180)
    said(f"a node that hangs answers again after {time.monotonic() - began:.0f} s")
    assert box.ask(shown.format("MainPID")).strip() != before
    assert "Watchdog timeout" in box.ask("journalctl --unit=refuge --output=cat --no-pager | cut -c 1-200")


def machine_is_started_again(box):
    """R19: a kernel that panics, and one that hangs where something outlives it."""
    starts = box.machine.console().count("Refuge: slot B, attempts left")
    has_watchdog = "i6300esb" in box.machine.facts["machine"]["arguments"]
    # Without a restart of its own after a panic the kernel just stands there.
    hang = "echo 0 >/proc/sys/kernel/panic; " if has_watchdog else ""
    began = time.monotonic()
    box.machine.type(f"{hang}echo c >/proc/sysrq-trigger")
    box.machine.wait("the machine starts again", lambda: box.machine.console().count("Refuge: slot B, attempts left") > starts, 180)
    said(f"a machine whose kernel {'hangs' if has_watchdog else 'panics'} starts again after {time.monotonic() - began:.0f} s")
    box.machine.wait_ready()
    box.judged_good("B")


def main():
    setting = Setting(*sys.argv[1:5])
    lan = qemu.virtual_lan()
    begun = time.monotonic()

    def step(test, *words):
        nonlocal begun
        made = test(*words)
        said(f"ok {setting.board}: {test.__name__} ({time.monotonic() - begun:.0f} s)")
        begun = time.monotonic()
        return made

    one, untouched = step(lives_through_a_power_cut, setting, lan)
    other = step(falls_back, setting, lan)
    assert one.machine.fact("node id") != other.machine.fact("node id"), "two boxes have one identity"
    step(is_as_the_contract_says, other)
    other.claim()
    step(find_each_other, one, other)
    step(node_is_started_again, other)
    step(machine_is_started_again, other)
    other.machine.kill()
    shutil.rmtree(other.folder)
    step(ends_in_order, one, untouched)
    shutil.rmtree(one.folder)


if __name__ == "__main__":
    try:
        main()
    finally:
        qemu.kill_all()
