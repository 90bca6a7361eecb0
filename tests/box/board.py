"""A box with hands on it: its light and button, driven from outside of the virtual machine, and USB disks plugged and pulled.

Usage: board.py BOARD IMAGE WORK REFUGE [--long]

    light and button    starting · unclaimed · a short press lets its owner in without a code · ready · a short press shows which
                        box it is · held for a while the light warns, let go nothing happened
    USB disks (R28)     a foreign disk is refused · an empty one adopted by its serial · pulled during writes: 503 for its store,
                        the rest goes on · another disk in its place is not taken for it · the same one is back by itself · a
                        disk of links, devices and odd names is data (S14) · ejected
    a store moves       main is carried onto a disk while it is written to · the disk pulled: 503, and the box answers · back · and
                        onto the card again
    a factory reset     the button held: the box is another one without an owner, and of what it kept, blobs and keys, nothing is
                        left on its card (S27)
"""

import concurrent.futures
import http.client
import json
import secrets
import shutil
import ssl
import subprocess
import sys
import threading
import time
import tomllib

from box import MIB, Box, Setting, qemu, said
from wires import UsbDisk, Wired

PULLS, PULLS_LONG = 3, 20
CANARIES = 100
# A disk that is plugged in is noticed by the kernel, then by the node, then checked: on a busy machine.
NOTICED_WITHIN_S = 180


class Owner:
    """Requests to a box whose answers may be refusals."""

    def __init__(self, box):
        self.box = box
        self.token = tomllib.loads((box.folder / "config/refuge/nodes.toml").read_text())["node"][0]["token"]

    def ask(self, method, path, body=None):
        """(status, body)."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.box.machine.https, timeout=120, context=ssl._create_unverified_context())
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def light_and_button(box):
    """The box starts for the first time here, and has an owner in the end."""
    lines = box.machine.lines
    box.machine.wait_ready()
    # A start may be over before one pattern is.
    assert lines.changes[0][1], "the light stayed dark while the box started"
    box.note_identity()
    lines.wait("unclaimed")
    refused = subprocess.run([box.refuge, "claim", box.url], env=box.environment(), capture_output=True, text=True)
    assert refused.returncode != 0, "claimed without a code and without a press"
    since = time.monotonic()
    lines.press_shortly()
    box.machine.wait("the light shows which box it is", lambda: lines.shows("identify", since), 60)
    subprocess.run([box.refuge, "claim", box.url], env=box.environment(), check=True, timeout=120)
    lines.wait("ready")
    since = time.monotonic()
    lines.press_shortly()
    box.machine.wait("the light shows which box it is", lambda: lines.shows("identify", since), 60)
    lines.wait("ready")
    # A warning is not yet a reset.
    since = time.monotonic()
    lines.press()
    box.machine.wait("the light warns", lambda: lines.shows("warning", since), 60)
    lines.let_go()
    lines.wait("ready")
    assert Owner(box).ask("GET", "/api/status")[0] == 200


def disks(box):
    """By serial."""
    return {disk["serial"]: disk for disk in json.loads(Owner(box).ask("GET", "/api/board/disks")[1])["disks"]}


def plugged(box, disk):
    disk.plug()
    box.machine.wait(f"the disk {disk.serial} is listed", lambda: disk.serial in disks(box), NOTICED_WITHIN_S)
    return disks(box)[disk.serial]


def status_of(box, store):
    return json.loads(Owner(box).ask("GET", f"/stores/{store}")[1])


def wait_online(box, store):
    box.machine.wait(f"the store {store} is back", lambda: "offline" not in status_of(box, store), NOTICED_WITHIN_S)


def adopt(box, found, *words):
    return subprocess.run(
        [box.refuge, "board", "adopt", found["name"], *words, "--node", box.url],
        env=box.environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def usb_disks(box, pulls):
    machine, owner = box.machine, Owner(box)
    foreign = UsbDisk(machine, box.folder / "foreign.img", "FOREIGN1")
    foreign.format("-L", "holiday")
    before = foreign.file.read_bytes()
    found = plugged(box, foreign)
    assert found["holds"]["kind"] == "foreign" and "ext4" in str(found["holds"]["what"]), found
    refused = adopt(box, found, "--serial", foreign.serial)
    assert refused.returncode != 0 and "ext4" in refused.stderr, refused.stderr
    refused = adopt(box, found, "--serial", "ANOTHER", "--format")
    assert refused.returncode != 0, "adopted without its serial"
    foreign.pull()
    assert foreign.file.read_bytes() == before, "a foreign disk was written to"

    usb = UsbDisk(machine, box.folder / "usb.img", "USB0001")
    found = plugged(box, usb)
    assert found["holds"]["kind"] == "nothing" and found["size_bytes"] == 64 * MIB, found
    done = adopt(box, found, "--serial", usb.serial)
    assert done.returncode == 0, done.stderr
    stored = {}
    for turn in range(pulls):
        stored |= pulled_during_writes(box, owner, usb)
        if turn == 0:
            foreign.plug()
            machine.wait("the foreign disk is listed", lambda: foreign.serial in disks(box), NOTICED_WITHIN_S)
            assert "offline" in status_of(box, "disk"), "another disk was taken for the one that was pulled"
            foreign.pull()
        usb.plug()
        wait_online(box, "disk")
        for name, body in stored.items():
            status, answer = owner.ask("GET", f"/stores/disk/blobs/{name}")
            assert (status, answer) == (200, body), f"acknowledged and lost after pull {turn + 1}: {name}, {status}"
    said(f"pulled {pulls} times during writes and back by itself, {len(stored)} acknowledged blobs, none lost")
    assert subprocess.run([box.refuge, "board", "eject", "disk", "--node", box.url], env=box.environment(), timeout=600).returncode == 0
    usb.pull()
    assert foreign.file.read_bytes() == before, "a foreign disk was written to"
    return usb


def pulled_during_writes(box, owner, usb):
    """What was acknowledged until then."""
    stored, ended = {}, threading.Event()

    def write():
        while not ended.is_set():
            body = secrets.token_bytes(1 + secrets.randbelow(60_000))
            try:
                status, answer = owner.ask("POST", "/stores/disk/blobs", body)
            except OSError:
                continue
            if status < 300:
                stored[json.loads(answer)["id"]] = body

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        box.machine.wait("blobs are stored on the disk", lambda: len(stored) >= 20, NOTICED_WITHIN_S)
        usb.pull()
        box.machine.wait("the store is offline", lambda: "offline" in status_of(box, "disk"), NOTICED_WITHIN_S)
    finally:
        ended.set()
        for writer in writers:
            writer.join()
    status, answer = owner.ask("POST", "/stores/disk/blobs", b"late")
    assert status == 503 and b"offline" in answer, (status, answer)
    status, _ = owner.ask("POST", "/blobs", secrets.token_bytes(1000))
    assert status < 300, "the store main does not go on"
    return stored


def evil_disk(box, usb):
    """S14: what somebody put on a disk of ours at another machine is read as data or not at all."""
    odd = box.folder / "odd"
    odd.write_bytes(b"not a blob")
    script = [
        "cd /store/blobs", "mkdir 00", "cd 00", "mkdir 0", "cd 0",
        f"symlink {'0' * 64} /etc/shadow", f"mknod {'0' * 63}1 b 254 0", f"mknod {'0' * 63}2 p",
        f"symlink {'0' * 63}3.part ../../../../../../data/refuge/node.db", f'write {odd} "a\tname -rf $(reboot)"',
        f"write {odd} {'0' * 63}4", f"set_inode_field {'0' * 63}4 mode 0104777",
        "cd /store", "symlink new.link /data", "mknod tty c 5 0",
    ]  # fmt: skip
    subprocess.run(["debugfs", "-w", "-f", "-", str(usb.file)], input="".join(f"{line}\n" for line in script), check=True, capture_output=True, text=True)
    usb.plug()
    wait_online(box, "disk")
    owner = Owner(box)
    for last in "01234":
        status, answer = owner.ask("GET", f"/stores/disk/blobs/blake3-{'0' * 63}{last}")
        assert status in (404, 500) and b"root" not in answer, (last, status, answer)
    status, answer = owner.ask("POST", "/stores/disk/blobs", b"goes on")
    assert status < 300, (status, answer)
    mounted = [line for line in box.ask("cat /proc/mounts").splitlines() if "/run/refuge/disks/" in line]
    assert len(mounted) == 1, mounted
    assert {"nosuid", "nodev", "noexec", "nosymfollow"} <= set(mounted[0].split()[3].split(",")), mounted
    assert subprocess.run([box.refuge, "board", "eject", "disk", "--node", box.url], env=box.environment(), timeout=600).returncode == 0
    usb.pull()
    # A store that stays away is something to look at: the light would say so from here on.
    assert owner.ask("DELETE", "/stores/disk?not_empty=true")[0] < 300


def main_moves(box):
    machine, owner = box.machine, Owner(box)
    usb = UsbDisk(machine, box.folder / "other.img", "USB0002")
    found = plugged(box, usb)
    assert adopt(box, found, "--serial", usb.serial, "--as", "spare").returncode == 0
    stored, ended = {}, threading.Event()

    def write():
        while not ended.is_set():
            body = secrets.token_bytes(1 + secrets.randbelow(30_000))
            status, answer = owner.ask("POST", "/blobs", body)
            assert status < 300, (status, answer)
            stored[json.loads(answer)["id"]] = body

    def all_are_there(where):
        for name, body in list(stored.items()):
            status, answer = owner.ask("GET", f"/blobs/{name}")
            assert (status, answer) == (200, body), f"{where}: {name}, {status}"

    def moved(to):
        order = [box.refuge, "board", "move", "main", "--to", to, "--node", box.url]
        return subprocess.run(order, env=box.environment(), check=True, timeout=900, capture_output=True, text=True)

    with concurrent.futures.ThreadPoolExecutor(1) as writer:
        writing = writer.submit(write)
        machine.wait("something is stored", lambda: len(stored) >= 10 or writing.done(), 60)
        moved(found["name"])
        ended.set()
        writing.result()
    all_are_there("on the disk")
    usb.pull()
    machine.wait("main is offline", lambda: "offline" in status_of(box, "main"), NOTICED_WITHIN_S)
    assert owner.ask("POST", "/blobs", b"late")[0] == 503
    assert owner.ask("GET", "/api/status")[0] == 200 and machine.answers(), "the box does not answer without its disk"
    machine.lines.wait("failed")
    usb.plug()
    wait_online(box, "main")
    all_are_there("after the disk was back")
    moved("card")
    usb.pull()
    all_are_there("on the card again")
    said(f"main went onto a disk and back, {len(stored)} acknowledged blobs, none lost")


def on_card(box, needles):
    """Of these bytes, what stands anywhere on the disk."""
    longest = max(map(len, needles))
    found, before = set(), b""
    with open(box.disk, "rb") as disk:
        while piece := disk.read(16 * MIB):
            window = before + piece
            found |= {needle for needle in needles if needle in window}
            before = piece[-longest:]
    return found


def is_reset(box):
    machine, lines, owner = box.machine, box.machine.lines, Owner(box)
    # Random bytes, which no compression changes. Those of each canary begin alike, so that one search finds all.
    mark = secrets.token_bytes(16)
    canaries = [mark + number.to_bytes(2, "big") for number in range(CANARIES)]
    for canary in canaries:
        status, answer = owner.ask("POST", "/blobs", secrets.token_bytes(2000) + canary + secrets.token_bytes(2000))
        assert status < 300, (status, answer)
    keys = [bytes.fromhex("".join(box.ask(f"od -An -v -tx1 /data/refuge/identity/{name}").split())) for name in ("node.key", "tls.key")]
    secret = [key[len(key) // 2 - 8 : len(key) // 2 + 8] for key in keys]
    assert on_card(box, [mark, *secret]) == {mark, *secret}, "a test that finds nothing before would show nothing after"
    before, known = machine.fact("node id"), machine.console().count("node id")
    since = time.monotonic()
    lines.press()
    machine.wait("the light warns", lambda: lines.shows("warning", since), 60)
    machine.wait("the box is another one", lambda: machine.console().count("node id") > known, 300)
    lines.let_go()
    machine.wait_ready()
    assert machine.fact("node id") != before and machine.fact("claim code"), machine.console()[-2000:]
    lines.wait("unclaimed")
    box.note_identity()
    machine.wait("nothing of what it kept is left", lambda: not on_card(box, [mark, *secret]), 180)
    assert owner.ask("GET", "/api/status")[0] == 401, "the token of its owner before is good for the new one"
    said(f"a factory reset left none of {CANARIES} blobs and {len(secret)} keys on the card")


def main():
    setting = Setting(*sys.argv[1:5])
    is_long = "--long" in sys.argv
    begun = time.monotonic()

    def step(test, *words):
        nonlocal begun
        made = test(*words)
        said(f"ok {setting.board}: {test.__name__} ({time.monotonic() - begun:.0f} s)")
        begun = time.monotonic()
        return made

    box = Box("wired", setting, kind=Wired)
    box.with_shell()
    box.machine.start()
    step(light_and_button, box)
    usb = step(usb_disks, box, PULLS_LONG if is_long else PULLS)
    step(evil_disk, box, usb)
    step(main_moves, box)
    step(is_reset, box)
    assert box.machine.stop()
    shutil.rmtree(box.folder)


if __name__ == "__main__":
    try:
        main()
    finally:
        qemu.kill_all()
