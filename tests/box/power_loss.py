"""Cuts the power of a box at many moments of its first minutes, and looks at what each cut leaves on its data partition (R4).

Usage: power_loss.py BOARD IMAGE WORK REFUGE [--long]

The box starts for the first time and is used, while every write of its disk and every flush is recorded, and outside of it what
it acknowledged. Then, for moments picked by chance: the disk as it was after a flush, and the same with a random part of what
was written until the next flush, in pieces of 4 KiB (R4) and, with --long, of 512 bytes (R5). Each is mounted as the box does it;
then everything acknowledged before must be there, whole, and nothing that was never sent. With --long some of them are booted (R6).
Needs root and loop devices.
"""

import concurrent.futures
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

from box import DATA, MIB, Box, Setting, qemu, said
from writes import Recorded, Replay, chance_of, flushes, read_log, stray

# Room for all that the workload stores, and little to copy for each state.
DISK_BYTES = (DATA[0] + 192) * MIB
FLUSHES_AT_LEAST = 400
STATES, STATES_LONG, TORN_LONG, BOOTED_LONG = 200, 1000, 500, 10
# Of the states, one after the flush, the others with a part of what came after it.
STATES_OF_A_FLUSH = 4
READY_WITHIN_S = 5
HEALTHY_WITHIN_S = 120


class Journal:
    """What the box acknowledged, and when; kept outside of it."""

    def __init__(self, machine):
        self.machine = machine
        self.lock = threading.Lock()
        self.stored, self.deleting, self.deleted, self.snapshots = {}, set(), {}, []

    def note(self, ids, name):
        with self.lock:
            ids[name] = self.machine.moment()


def use(box, journal, enough):
    """Puts small blobs, deletes some of them, until enough was flushed. Every client is one of these."""
    mine, turns = [], 0
    while not enough():
        turns += 1
        body = secrets.token_bytes(1 + secrets.randbelow(60_000))
        name = box.call("POST", "/blobs", body)["id"]
        journal.note(journal.stored, name)
        mine.append(name)
        if turns % 5 == 0:
            name = mine.pop(secrets.randbelow(len(mine)))
            journal.deleting.add(name)
            box.call("DELETE", f"/blobs/{name}")
            journal.note(journal.deleted, name)


def record(setting):
    """Boots and uses the box, and pulls its plug."""
    box = Box("power", setting, DISK_BYTES, Recorded)
    before = box.folder / "before"
    subprocess.run(["cp", "--sparse=always", box.disk, before], check=True)
    box.machine.start().wait_ready()
    box.claim()
    journal = Journal(box.machine)
    used_from = box.machine.moment()

    counted, counted_at = 0, 0.0

    def enough():
        # Counting reads the log again; not for each blob.
        nonlocal counted, counted_at
        if time.monotonic() - counted_at > 2:
            writes = read_log(box.machine.writes)
            counted = sum(1 for count in flushes(writes) if writes[count - 1].ends > used_from)
            counted_at = time.monotonic()
        return counted >= FLUSHES_AT_LEAST

    folder = box.folder / "source"
    folder.mkdir()
    with concurrent.futures.ThreadPoolExecutor(3) as clients:
        running = [clients.submit(use, box, journal, enough) for _ in range(3)]
        while not enough():
            (folder / f"file {len(journal.snapshots)}").write_bytes(secrets.token_bytes(150_000))
            box.run("backup", str(folder), "--ref", "tests")
            journal.snapshots.append(box.machine.moment())
        for client in running:
            client.result()
    box.machine.kill()
    # R18: what is not data and not the boot state is never written to, and the first start is the one that might.
    assert not (found := stray(read_log(box.machine.writes))), f"written to boot or root: {found[:5]}"
    return box, before, journal


class Expected:
    """What must be in a state that has all that was written before `moment`."""

    def __init__(self, journal, moment):
        self.gone = {name for name, when in journal.deleted.items() if when <= moment}
        self.stored = {name for name, when in journal.stored.items() if when <= moment} - journal.deleting
        self.snapshots = sum(1 for when in journal.snapshots if when <= moment)


def command(*words, allowed=(0,)):
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode in allowed, f"{' '.join(map(str, words))}: {done.returncode}: {done.stdout}{done.stderr}"
    return done


class State:
    """The data partition after a cut."""

    def __init__(self, file, what, expected, most):
        self.file, self.what, self.expected, self.most = file, what, expected, most

    def look(self, refuge, is_served):
        try:
            self.check(refuge, is_served)
        except Exception as error:
            kept = Path(qemu.tempfile.gettempdir()) / f"refuge-{self.file.name}"
            shutil.copy(self.file, kept)
            raise AssertionError(f"{self.what}: {error} (the state is kept as {kept})") from error
        finally:
            self.file.unlink()

    def check(self, refuge, is_served):
        # As board/common/init does it. With whole blocks nothing needs the second run.
        code = command("e2fsck", "-p", self.file, allowed=(0, 1, 4, 5)).returncode
        if code & 4:
            assert self.most < 4096, "the file system needs repair although no block was torn"
            command("e2fsck", "-y", self.file, allowed=(0, 1))
        place = self.file.with_suffix(".mounted")
        place.mkdir()
        command("mount", "-o", "loop,noatime,nosuid,nodev,noexec", self.file, place)
        try:
            data = place / "refuge"
            if self.expected is None and not (data / "refuge.json").exists():
                return
            self.check_node(refuge, data)
            if is_served:
                starts(refuge, data)
        finally:
            command("umount", place)
            place.rmdir()

    def check_node(self, refuge, data):
        command(refuge, "check", "--read-data", "--data", data)
        listed = {line.split()[0] for line in command(refuge, "ls", "--data", data).stdout.splitlines()}
        if self.expected is not None:
            lost = self.expected.stored - listed
            assert not lost, f"{len(lost)} acknowledged blobs are lost: {sorted(lost)[:3]}"
            back = self.expected.gone & listed
            assert not back, f"{len(back)} deleted blobs are back: {sorted(back)[:3]}"
            if self.expected.snapshots:
                kept = command(refuge, "snapshots", "tests", "--json", "--data", data).stdout.splitlines()
                assert len(kept) >= self.expected.snapshots, f"{len(kept)} of {self.expected.snapshots} acknowledged snapshots"
                command(refuge, "verify", "tests", "--data", data)
        database = sqlite3.connect(data / "node.db")
        try:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        finally:
            database.close()


def starts(refuge, data):
    """The node starts from it, within the contract's time."""
    orders = [refuge, "serve", "--data", data, "--listen", "127.0.0.1:0", "--plain-http", "127.0.0.1:0", "--json"]
    with subprocess.Popen(orders, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as node:
        watch = threading.Timer(READY_WITHIN_S * 12, node.kill)
        watch.start()
        try:
            assert "node_id" in json.loads(node.stdout.readline() or "{}"), "the node does not start"
        finally:
            watch.cancel()
            node.send_signal(signal.SIGTERM)
            node.communicate()


def pick(writes, journal, used_from, states, chance):
    """(entries until a flush, entries until the next, how many states): mostly from when the box was used."""
    ends = flushes(writes)
    pairs = list(zip(ends, ends[1:]))
    used = [pair for pair in pairs if writes[pair[0] - 1].ends > used_from]
    start = [pair for pair in pairs if pair not in set(used)]
    wanted = max(1, states // STATES_OF_A_FLUSH)
    # One in ten from the first start: the partition grows, the node is made.
    picked = chance.sample(start, min(len(start), wanted // 10))
    picked += chance.sample(used, min(len(used), wanted - len(picked)))
    return sorted(picked)


def replay(setting, box, before, journal, states, most, seed):
    chance = chance_of(seed)
    writes = read_log(box.machine.writes)
    first = min(journal.stored.values(), default=0)
    picked = pick(writes, journal, first, states, chance)
    fast = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else box.folder
    room = Path(qemu.tempfile.mkdtemp(prefix="refuge-states.", dir=fast))
    now = room / "now"
    subprocess.run(["dd", f"if={before}", f"of={now}", "bs=1M", f"skip={DATA[0]}", "conv=sparse", "status=none"], check=True)
    os.truncate(now, DISK_BYTES - DATA[0] * MIB)
    moving = Replay(box.machine.writes, writes, now, DATA[0] * MIB, DISK_BYTES)
    looked, lost, doing = 0, 0, []
    try:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as lookers:
            for until, next_flush in picked:
                moving.move_to(until)
                moment = writes[until - 1].ends
                expected = Expected(journal, moment) if moment >= first else None
                for turn in range(STATES_OF_A_FLUSH):
                    file = room / f"state{looked}"
                    subprocess.run(["cp", "--sparse=always", now, file], check=True)
                    if turn:
                        lost += moving.tear(file, chance, next_flush, most)
                    state = State(file, f"seed {seed}, {most} bytes, entries {until} to {next_flush}, turn {turn}", expected, most)
                    doing.append(lookers.submit(state.look, setting.refuge, looked % 10 == 0))
                    looked += 1
                    # Each state is as large as the partition: no more of them than are looked at.
                    while len(doing) > os.cpu_count():
                        doing.pop(0).result()
            for done in doing:
                done.result()
    finally:
        shutil.rmtree(room, ignore_errors=True)
    said(f"{looked} states of {len(flushes(writes))} flushes, {lost} pieces of {most} bytes lost, seed {seed}: {len(journal.stored)} blobs, {len(journal.deleted)} deletions and {len(journal.snapshots)} snapshots were acknowledged; none is lost")


def boot(setting, box, before, journal, count, seed):
    """R6: the whole disk after a cut is started as a box."""
    chance = chance_of(seed)
    writes = read_log(box.machine.writes)
    first = min(journal.stored.values())
    picked = pick(writes, journal, first, count * STATES_OF_A_FLUSH, chance)
    now = box.folder / "now"
    subprocess.run(["cp", "--sparse=always", before, now], check=True)
    moving = Replay(box.machine.writes, writes, now, 0, DISK_BYTES)
    for turn, (until, next_flush) in enumerate(picked):
        moving.move_to(until)
        subprocess.run(["cp", "--sparse=always", now, box.disk], check=True)
        moving.tear(box.disk, chance, next_flush, 4096)
        machine = qemu.Machine(setting.facts, box.disk, box.folder / f"boot{turn}")
        began = time.monotonic()
        machine.start().wait_ready()
        took = time.monotonic() - began
        said(f"booted after a cut at entry {until}: answers after {took:.0f} s (at most {HEALTHY_WITHIN_S} on an idle machine)")
        assert machine.stop(), "the power button did not shut the box down"
        part = box.folder / "part"
        subprocess.run(["dd", f"if={box.disk}", f"of={part}", "bs=1M", f"skip={DATA[0]}", "conv=sparse", "status=none"], check=True)
        moment = writes[until - 1].ends
        State(part, f"booted, entries {until} to {next_flush}", Expected(journal, moment) if moment >= first else None, 4096).look(setting.refuge, True)


def main():
    if os.getuid() != 0 or subprocess.run(["losetup", "--find"], capture_output=True).returncode != 0:
        said("SKIPPED: power loss of the data partition (R4): it needs root and loop devices")
        return
    setting = Setting(*sys.argv[1:5])
    is_long = "--long" in sys.argv
    seed = secrets.randbits(32)
    began = time.monotonic()
    box, before, journal = record(setting)
    said(f"recorded ({time.monotonic() - began:.0f} s)")
    replay(setting, box, before, journal, STATES_LONG if is_long else STATES, 4096, seed)
    if is_long:
        replay(setting, box, before, journal, TORN_LONG, 512, seed)
        boot(setting, box, before, journal, BOOTED_LONG, seed)
    said(f"ok {setting.board}: power loss ({time.monotonic() - began:.0f} s)")
    shutil.rmtree(box.folder)


if __name__ == "__main__":
    try:
        main()
    finally:
        qemu.kill_all()
