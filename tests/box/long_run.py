"""Leaves a box alone for an hour, then keeps it busy for one: what it writes (R21), and whether it grows (R27).

Usage: long_run.py BOARD IMAGE WORK REFUGE [IDLE_S BUSY_S]     how long, in seconds: an hour each where it is left out
"""

import secrets
import shutil
import sys
import time

from box import DATA, MIB, Box, Setting, number, qemu, said
from writes import Recorded, read_log, stray

HOUR_S = 3600
IDLE_MOST_BYTES = 256 * 1024
GROWS_MOST_KIB = 1024
LOG_MOST_BYTES = 16 * MIB
# The start is over, and what is done a minute after it as well.
SETTLED_S = 120


def written(box, since):
    """Bytes that went to the data partition and elsewhere after that moment in the log."""
    recent = [write for write in read_log(box.machine.writes) if write.ends > since]
    assert not stray(recent), "boot or root was written to"
    data = sum(write.size for write in recent if write.at >= DATA[0] * MIB)
    return data, sum(write.size for write in recent) - data


def measure(box):
    """Resident KiB, open files, bytes of the database's log."""
    node = "$(systemctl show --property=MainPID --value refuge)"
    resident = number(r"VmRSS:\s+(\d+)", box.ask(f"grep VmRSS /proc/{node}/status"))
    files = number(r"(\d+)", box.ask(f"ls /proc/{node}/fd | wc -l"))
    log = number(r"(\d+)", box.ask("stat -c %s /data/refuge/node.db-wal 2>/dev/null || echo 0"))
    return resident, files, log


def stays_idle(box, seconds):
    time.sleep(SETTLED_S)
    since, began = box.machine.moment(), box.machine.processor_s()
    time.sleep(seconds)
    data, elsewhere = written(box, since)
    said(f"idle for {seconds} s: {data} bytes to data, {elsewhere} elsewhere, {box.machine.processor_s() - began:.0f} s of QEMU's processor time")
    assert data <= IDLE_MOST_BYTES * max(seconds, HOUR_S) / HOUR_S and elsewhere == 0


def stays_as_it_is(box, seconds):
    folder = box.folder / "source"
    folder.mkdir()
    turns, first, until = 0, None, time.monotonic() + seconds
    while time.monotonic() < until:
        (folder / "file").write_bytes(secrets.token_bytes(200_000))
        box.run("backup", str(folder), "--ref", "tests")
        box.run("prune", "tests", "--keep-last", "3")
        turns += 1
        # Caches are full after some turns; from there on nothing may grow.
        if turns == 20:
            first = measure(box)
    assert first is not None, f"only {turns} turns"
    last = measure(box)
    hours = max(1, seconds / HOUR_S)
    said(f"{turns} backups in {seconds} s: resident {first[0]} to {last[0]} KiB, {first[1]} to {last[1]} open files, log of the database {last[2]} bytes")
    assert last[0] - first[0] <= GROWS_MOST_KIB * hours and last[1] <= first[1] and last[2] <= LOG_MOST_BYTES


def main():
    setting = Setting(*sys.argv[1:5])
    idle_s, busy_s = (int(text) for text in (sys.argv[5:7] or [HOUR_S, HOUR_S]))
    box = Box("long", setting, kind=Recorded)
    box.with_shell()
    box.machine.start().wait_ready()
    box.claim()
    stays_idle(box, idle_s)
    stays_as_it_is(box, busy_s)
    assert box.machine.stop()
    shutil.rmtree(box.folder)
    said(f"ok {setting.board}: long run")


if __name__ == "__main__":
    try:
        main()
    finally:
        qemu.kill_all()
