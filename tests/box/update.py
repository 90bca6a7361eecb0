"""Brings a box to other versions of its system, good and bad ones, and pulls its plug meanwhile (R15 to R17, S2, S23).

Usage: update.py BOARD IMAGE WORK REFUGE [--refusals | --long]     --refusals: nothing that boots

    refusals      bundles that RAUC, with the box's settings, does not take: looked at on this machine, nothing boots
    one box       updated · gone back by hand · updated from a server whose line breaks, from a USB disk, from another box · refuses an older bundle, one for another board, one with a damaged payload · goes back
                  by itself from a system whose data it cannot write, and from one without an init · updated again
                  after each of these: identity, tokens, refs and blobs as before
    another       plug pulled at random moments of an update: always a slot starts, with all data (5 times; 50 with --long)
    --long        goes back from an init that hangs, from a node that ends again and again, and from a system without a network
"""

import http.server
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

from box import DATA, MIB, ROOT, SLOT_A, Box, Setting, add_shell, compare, debugfs, make_folder, qemu, said
from wires import UsbDisk

VERSION, NEXT, BAD = "0.1.0", "0.2.0", "0.3.0"
# The table, for an emulated box on an idle machine.
BUNDLE_MOST_BYTES = 48 * MIB
INSTALL_MOST_S, GET_P99_MOST_S, UPDATE_MOST_S, BACK_MOST_S, PANIC_MOST_S = 60, 1, 150, 150, 240
# What a busy machine may take before it is a failure and not a delay.
PATIENCE_S = 1500
CUTS, CUTS_LONG = 5, 50
# The host, as a guest reaches it over QEMU's user network (documentation of QEMU, "Using the user mode network stack").
HOST = "10.0.2.2"
# What may travel of a bundle between two boxes whose versions differ only in the program.
TRAVELS_MOST = 1 / 3

UNITS = "/usr/lib/systemd/system"
# Bundles that nobody needs any more.
LEFT_BEHIND = "ls /data/update/bundle.raucb /data/refuge/bundles/next.raucb 2>/dev/null"


def shell(script, **environment):
    """Runs a script with the functions of scripts/needs.sh and scripts/signing.sh."""
    whole = f"set -euo pipefail; . {ROOT}/scripts/needs.sh; . {ROOT}/scripts/signing.sh; {script}"
    subprocess.run(["bash", "-c", whole], check=True, capture_output=True, env=dict(os.environ, **environment))


# What RAUC does not take.


class Authority:
    """Keys of a test's own, in a folder of their own."""

    def __init__(self, folder, name):
        self.folder = folder
        shell(f'make_authority "{folder}" "{name}"')

    def certify(self, name, kind="signer", end="20360101000000Z"):
        shell(f'sign_certificate "{self.folder}" {name} {kind} {end}')

    def trust(self, *revoked):
        shell(f'revoke_and_list "{self.folder}" {" ".join(revoked)}')
        return self.folder / "keyring.pem"


def small_bundle(work, name, authority, signer, form="verity"):
    """A bundle with a root of a few bytes."""
    content, bundle = work / f"{name}.content", work / f"{name}.raucb"
    content.mkdir()
    # A squashfs of one block is too small for a tree of hashes.
    (content / "rootfs.ext4").write_bytes(random.Random(1).randbytes(64 * 1024))
    manifest = f"[update]\ncompatible=refuge-qemu-arm\nversion={NEXT}\n\n[bundle]\nformat={form}\n\n[image.rootfs]\nfilename=rootfs.ext4\n"
    (content / "manifest.raucm").write_text(manifest)
    key = [f"--cert={authority.folder / signer}.pem", f"--key={authority.folder / signer}.key"]
    subprocess.run(["rauc", "bundle", *key, content, bundle], check=True, capture_output=True)
    return bundle


def flipped(bundle, at):
    """A copy with one bit changed at that place."""
    data = bytearray(bundle.read_bytes())
    data[at] ^= 1
    copy = bundle.with_name(f"{bundle.stem}-{at}.raucb")
    copy.write_bytes(data)
    return copy


def refuses_what_it_must(setting):
    """S23: those of the matrix that are seen before anything is installed."""
    work = setting.work / "refusals"
    work.mkdir()
    ours, others = Authority(work / "ours", "ours"), Authority(work / "others", "others")
    for name, kind, end in (("good", "signer", None), ("mail", "mailer", None), ("old", "signer", "20260201000000Z"), ("revoked", "signer", None)):
        ours.certify(name, kind, *([end] if end else []))
    others.certify("stranger")
    keyring = ours.trust("revoked")
    conf = work / "system.conf"
    text = (ROOT / "board/common/system.conf").read_text().replace("@BOARD@", "qemu-arm")
    text = re.sub(r"(?m)^path=.*$", f"path={keyring}", text)
    conf.write_text(re.sub(r"(?m)^statusfile=.*$", f"statusfile={work / 'status'}", text))

    def look(bundle):
        return subprocess.run(["rauc", f"--conf={conf}", "info", bundle], capture_output=True, text=True)

    good = small_bundle(work, "good", ours, "good")
    assert look(good).returncode == 0, look(good).stderr
    whole = good.read_bytes()
    unsigned, cut = work / "unsigned.raucb", work / "cut.raucb"
    subprocess.run(["mksquashfs", work / "good.content", unsigned, "-quiet", "-no-progress"], check=True, capture_output=True)
    cut.write_bytes(whole[: len(whole) - 100])
    refused = {
        "unsigned": unsigned,
        "signed by a stranger": small_bundle(work, "stranger", others, "stranger"),
        "signed with a key for mail": small_bundle(work, "mail", ours, "mail"),
        "signed with a certificate that is over": small_bundle(work, "old", ours, "old"),
        "signed with a certificate that was revoked": small_bundle(work, "revoked", ours, "revoked"),
        "with a bit of its manifest flipped": flipped(good, whole.rindex(b"compatible=") + 20),
        "with a bit of its signature flipped": flipped(good, len(whole) - 20),
        "truncated": cut,
        "in plain format": small_bundle(work, "plain", ours, "good", "plain"),
    }
    for what, bundle in refused.items():
        done = look(bundle)
        assert done.returncode != 0, f"a bundle {what} is taken"
        said(f"refused: a bundle {what}: {done.stderr.strip().splitlines()[-1]}")
    shutil.rmtree(work)


# Bundles of whole systems.


class Systems:
    """Roots and bundles, made from the slot of an image."""

    def __init__(self, setting):
        self.setting, self.folder = setting, setting.work / "systems"
        self.folder.mkdir()
        self.base = self.folder / "base"
        subprocess.run(["dd", f"if={setting.image}", f"of={self.base}", "bs=1M", f"skip={SLOT_A[0]}", f"count={SLOT_A[1]}", "conv=sparse", "status=none"], check=True)
        add_shell(self.base)
        # The host is no address of the public internet.
        debugfs(self.base, f"mkdir {UNITS}/refuge.service.d", *self.drop_in("refuge.service", f"[Service]\nEnvironment=REFUGE_REPLICATE_ALLOW={HOST}\n", "50-server"))
        self.version_of(self.base, VERSION)

    def version_of(self, slot, version):
        file = self.folder / "version"
        file.write_text(f"{version}\n")
        debugfs(slot, "cd /usr/share/refuge", "rm version", f"write {file} version")

    def bundle(self, name, version, *changes, board=None):
        """A bundle of the image's system under that version, with changes as debugfs makes them."""
        slot, bundle = self.folder / name, self.folder / f"{name}.raucb"
        subprocess.run(["cp", "--sparse=always", self.base, slot], check=True)
        self.version_of(slot, version)
        if changes:
            debugfs(slot, *changes)
        subprocess.run([ROOT / "scripts/bundle", "--board", board or self.setting.board, "--slot", slot, "--output", bundle], check=True, capture_output=True)
        slot.unlink()
        return bundle

    def drop_in(self, unit, text, name="90-test"):
        """Orders that give a unit more settings."""
        file = self.folder / f"{name}.conf"
        file.write_text(text)
        return (f"cd {UNITS}/{unit}.d", f"write {file} {name}.conf")


# Ways by which a bundle comes.


class WithUsb(qemu.Machine):
    """A machine with room for USB disks."""

    def wires(self):
        return ["-device", "qemu-xhci,id=usb"]


class BrokenLine(http.server.ThreadingHTTPServer):
    """Serves a bundle with ranges; the first answer breaks off in its middle."""

    def __init__(self, bundle):
        self.bundle, self.begins = bundle.read_bytes(), []
        super().__init__(("127.0.0.1", 0), BrokenLineHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self):
        return f"http://{HOST}:{self.server_port}/refuge.raucb"


class BrokenLineHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        bundle = self.server.bundle
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
        begin, end = int(asked[1]), int(asked[2] or len(bundle) - 1) + 1
        self.send_response(206)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(end - begin))
        self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(bundle)}")
        self.end_headers()
        # How long it is is asked for first, by a byte.
        if end - begin > 1:
            self.server.begins.append(begin)
            end = len(bundle) // 2 if len(self.server.begins) == 1 else end
        try:
            self.wfile.write(bundle[begin:end])
        except OSError:
            pass  # it goes on with another question
        self.close_connection = True

    def log_message(self, *_):
        pass


class Line:
    """Leads to a box, and counts what moves on it."""

    def __init__(self):
        self.listener, self.target, self.moved = socket.create_server(("127.0.0.1", 0)), None, 0
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.lead, daemon=True).start()

    def lead(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(("127.0.0.1", self.target))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.move, args=[one, other], daemon=True).start()

    def move(self, one, other):
        try:
            while piece := one.recv(65536):
                self.moved += len(piece)
                other.sendall(piece)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one end is gone


def arrives(box, source, *words):
    """Installs from there; nothing of it stays but what others may have."""
    code, text, steps, _ = update(box, source, *words)
    assert code == 0 and f"version {NEXT} runs in slot B" in text, f"{source}: {text}"
    runs(box, NEXT, "B")
    assert not box.ask(LEFT_BEHIND).strip()
    said(f"from {source}: {text.splitlines()[-1]} after {steps['done']:.0f} s")


def arrives_from_a_server(box, systems):
    server = BrokenLine(systems.folder / "next.raucb")
    arrives(box, server.url())
    assert any(begin > 1000 for begin in server.begins), f"it was fetched anew: {server.begins}"
    server.shutdown()
    box.run("update", "rollback")


def arrives_from_a_stick(box, systems):
    """S14: a disk of others is read and not written."""
    file = box.folder / "stick.img"
    stick = UsbDisk(box.machine, file, "STICK01", size=96 * MIB)
    subprocess.run(["mkfs.vfat", "-n", "STICK", file], check=True, capture_output=True)
    subprocess.run(["mcopy", "-i", file, systems.folder / "next.raucb", "::refuge-next.raucb"], check=True)
    before = file.read_bytes()
    stick.plug()
    box.machine.wait("the stick is seen", lambda: "refuge-next.raucb" in box.run("update", "check"), PATIENCE_S)
    arrives(box, "usb:refuge-next.raucb")
    stick.pull()
    assert file.read_bytes() == before, "something was written to the stick"
    box.run("update", "rollback")


def arrives_from_another_box(box, systems, setting, line):
    """A second box that runs the old version, which it got as a bundle, takes the new one from the first."""
    arrives(box, systems.folder / "next.raucb")
    box.run("update", "offer")
    other = Box("other", setting)
    other.put_part(systems.base, SLOT_A)
    other.machine.start().wait_ready(PATIENCE_S)
    other.claim()
    bundle = systems.bundle("same", VERSION)
    code, text, _, _ = update(other, bundle, "--allow-older")
    assert code == 0, text
    runs(other, VERSION, "B")
    node, before = box.machine.fact("node id"), line.moved
    code, text, _, _ = update(other, f"box:{node}@https://{HOST}:{line.port}")
    assert code == 0 and f"version {NEXT} runs in slot A" in text, text
    travelled, size = line.moved - before, (systems.folder / "next.raucb").stat().st_size
    said(f"{travelled / MIB:.1f} of {size / MIB:.1f} MiB travelled between two boxes (at most {TRAVELS_MOST:.2f} of it)")
    assert travelled <= size * TRAVELS_MOST
    runs(other, NEXT, "A")
    assert other.machine.stop()
    shutil.rmtree(other.folder)
    box.run("update", "rollback")


def update(box, bundle, *words):
    """Runs `refuge update install`: how it ended, what it said, when it came to each step, what GETs took meanwhile."""
    began, steps, took, is_over = time.monotonic(), {}, [], threading.Event()
    getting = threading.Thread(target=get_often, args=[box, took, is_over])
    getting.start()
    lines = []
    with box.client("update", "install", str(bundle), *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            lines.append(line.strip())
            steps.setdefault(line.strip(), time.monotonic() - began)
            if line.strip() in ("restarting", "away"):
                is_over.set()
    is_over.set()
    getting.join()
    steps["done"] = time.monotonic() - began
    return process.returncode, "\n".join(lines), steps, took


def restarted(steps):
    """When the box went away; it may be gone before it says so."""
    return steps.get("restarting", steps.get("away"))


def get_often(box, took, is_over):
    while not is_over.wait(0.1):
        began = time.monotonic()
        try:
            box.call("GET", "/api/status")
        except (OSError, AssertionError, qemu.http.client.HTTPException):
            continue
        took.append(time.monotonic() - began)


def what_it_keeps(box):
    """S2: who it is, who may use it, what it holds."""
    identity = box.ask("sha256sum /data/refuge/identity/* /data/refuge/refuge.json")
    tokens = {(token["id"], tuple(token["scopes"])) for token in box.call("GET", "/api/tokens")["tokens"]}
    blobs, after = set(), ""
    while page := box.call("GET", f"/blobs?limit=1000{after}")["blobs"]:
        blobs |= {(blob["id"], blob["len"]) for blob in page}
        after = f"&after={page[-1]['id']}"
    return identity, tokens, box.call("GET", "/refs"), blobs


def keeps(box, kept):
    """The same, and the same blobs: beside them at most what a new system put there to see whether it can."""
    *others, blobs = what_it_keeps(box)
    assert others == list(kept[:-1]), f"{others} and no more {kept[:-1]}"
    assert kept[-1] <= blobs and len(blobs - kept[-1]) <= 1, blobs ^ kept[-1]


def runs(box, version, slot):
    # Root is asked once the node answers.
    box.machine.wait("the box says that nothing is on trial", lambda: is_idle(box), PATIENCE_S)
    status = box.call("GET", "/api/update")
    assert (status["running"], status["slot"], status["step"]) == (version, slot, "idle"), status
    box.judged_good(slot)
    return status


def is_updated(box, systems):
    bundle = systems.bundle("next", NEXT)
    size = bundle.stat().st_size
    assert size <= BUNDLE_MOST_BYTES, size
    code, text, steps, took = update(box, bundle)
    assert code == 0 and f"version {NEXT} runs in slot B" in text, text
    restarts = restarted(steps)
    installed, back = restarts - steps.get("fetching", 0), steps["done"] - restarts
    p99 = sorted(took)[len(took) * 99 // 100] if took else 0
    said(f"bundle: {size / MIB:.1f} MiB (at most {BUNDLE_MOST_BYTES // MIB})")
    said(f"installed in {installed:.0f} s (at most {INSTALL_MOST_S} on an idle machine); GET meanwhile: p99 {p99:.2f} s of {len(took)} (at most {GET_P99_MOST_S})")
    said(f"restarted and judged good in {back:.0f} s; both {installed + back:.0f} s (at most {UPDATE_MOST_S} on an idle machine)")
    status = runs(box, NEXT, "B")
    assert status["before"] == VERSION and status["last"] == {"version": NEXT, "good": True, "reasons": []}, status
    assert box.state()["BOOT_ORDER"] == "B A"


def goes_back_by_hand(box):
    said(box.run("update", "rollback").strip().splitlines()[-1])
    assert runs(box, VERSION, "A")["before"] == NEXT


def refuses_in_the_guest(box, systems):
    """S23: what RAUC would take and the box does not, and what only reading it shows."""
    bundle = systems.folder / "next.raucb"
    older, other = systems.bundle("older", "0.0.9"), systems.bundle("other", NEXT, board="beaglebone")
    # Somewhere in the packed root; dm-verity finds it when the block is read.
    damaged = flipped(bundle, bundle.stat().st_size // 2)
    for what, file, words in (("older", older, "0.0.9"), ("for another board", other, "refuge-beaglebone"), ("damaged", damaged, "")):
        code, text, _, _ = update(box, file)
        assert code != 0 and words in text, f"a bundle that is {what}: {code} {text}"
        said(f"refused: a bundle that is {what}: {text.splitlines()[-1]}")
        state = box.state()
        assert state["BOOT_ORDER"].split()[0] == "A" and (what != "damaged" or state["BOOT_B_LEFT"] == "0"), state
        assert not box.ask(LEFT_BEHIND).strip()
        file.unlink()


def goes_back(box, bundle, words, starts, most_s):
    """A bad update: the old slot again, which says why."""
    seen = len(re.findall(r"Refuge: slot B, attempts left", box.machine.console()))
    code, text, steps, _ = update(box, bundle)
    assert code == 1 and words in text, f"{code}: {text}"
    tried = len(re.findall(r"Refuge: slot B, attempts left", box.machine.console())) - seen
    assert tried == starts, f"{tried} starts of the bad slot"
    status = runs(box, VERSION, "A")
    assert status["last"]["version"] == BAD and not status["last"]["good"], status
    assert any(f"version {BAD} did not stay" in reason for reason in box.call("GET", "/api/status")["reasons"])
    said(f"back after {tried} starts and {steps['done'] - restarted(steps):.0f} s (at most {most_s} on an idle machine): {text.splitlines()[-1]}")
    bundle.unlink()


def hung_init(systems):
    """A program that does nothing for ever, to stand for init in the guest."""
    file = systems.folder / "hung-init"
    file.write_text("#!/bin/sh\nwhile :; do sleep 1000; done\n")
    return file


def bad_updates(box, systems, is_long):
    yield "cannot write data", ("documents", 1, BACK_MOST_S), systems.drop_in("refuge.service", "[Service]\nReadOnlyPaths=-/data/refuge/databases\n")
    yield "has no init", ("three attempts", 3, PANIC_MOST_S), ("rm /usr/sbin/init",)
    if is_long:
        yield "has an init that hangs", ("three attempts", 3, PANIC_MOST_S), ("cd /usr/sbin", "rm init", f"write {hung_init(systems)} init", "set_inode_field init mode 0100755")
        yield "ends again and again", ("node ended", 1, BACK_MOST_S), systems.drop_in("refuge.service", "[Service]\nExecStartPre=/bin/false\n")
        yield "has no network", ("gateway", 1, BACK_MOST_S), (f"rm {UNITS}/systemd-networkd.service", f"rm {UNITS}/systemd-networkd.socket")


def updates_and_comes_back(setting, systems, is_long):
    line, box = Line(), Box("updated", setting, kind=WithUsb)
    line.target = box.machine.https
    qemu.write_first_boot(box.disk, ["hostname=box-of-tests", f"authorities=127.0.0.1:{box.machine.https},{HOST}:{line.port}"])
    box.put_part(systems.base, SLOT_A)
    source = box.folder / "source"
    make_folder(source)
    box.machine.start().wait_ready(PATIENCE_S)
    box.claim()
    box.run("backup", str(source), "--ref", "tests")
    runs(box, VERSION, "A")
    kept = what_it_keeps(box)

    def step(test, *words):
        began = time.monotonic()
        test(*words)
        keeps(box, kept)
        said(f"ok {test.__name__} ({time.monotonic() - began:.0f} s)")

    step(is_updated, box, systems)
    step(goes_back_by_hand, box)
    step(arrives_from_a_server, box, systems)
    step(arrives_from_a_stick, box, systems)
    step(arrives_from_another_box, box, systems, setting, line)
    step(refuses_in_the_guest, box, systems)
    for name, wanted, changes in bad_updates(box, systems, is_long):
        said(f"a system that {name}")
        step(goes_back, box, systems.bundle("bad", BAD, *changes), *wanted)
    code, text, _, _ = update(box, systems.folder / "next.raucb")
    assert code == 0, text
    runs(box, NEXT, "B")
    keeps(box, kept)
    box.run("restore", "tests", str(box.folder / "restored"))
    compare(source, box.folder / "restored")
    assert box.machine.stop()
    shutil.rmtree(box.folder)


def survives_cuts(setting, systems, cuts):
    """R16: at any moment of an update, from the transfer to the verdict."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    said(f"{cuts} cuts, seed {seed}")
    box = Box("cut", setting)
    box.put_part(systems.base, SLOT_A)
    source = box.folder / "source"
    make_folder(source)
    box.machine.start().wait_ready(PATIENCE_S)
    box.claim()
    box.run("backup", str(source), "--ref", "tests")
    runs(box, VERSION, "A")
    bundle = systems.folder / "next.raucb"
    began = time.monotonic()
    code, text, _, _ = update(box, bundle)
    assert code == 0, text
    whole_s = time.monotonic() - began
    for number in range(cuts):
        after = chance.uniform(0, whole_s)
        with box.client("update", "install", str(bundle), "--allow-older", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(after)
            box.machine.kill()
            process.kill()
        box.machine.start().wait_ready(PATIENCE_S)
        box.machine.wait("the box is judged", lambda: is_idle(box), PATIENCE_S)
        status = box.call("GET", "/api/update")
        box.judged_good(status["slot"])
        box.run("verify", "tests")
        said(f"cut {number + 1} after {after:.0f} s of {whole_s:.0f}: {status['running']} in slot {status['slot']}, last {status.get('last')}")
    box.run("restore", "tests", str(box.folder / "restored"))
    compare(source, box.folder / "restored")
    assert box.machine.stop()
    data = box.folder / "data"
    box.copy_part(DATA, data)
    subprocess.run(["e2fsck", "-fn", data], check=True, capture_output=True)
    shutil.rmtree(box.folder)


def is_idle(box):
    try:
        return box.call("GET", "/api/update")["step"] == "idle"
    except (OSError, AssertionError, qemu.http.client.HTTPException):
        return False


def main():
    setting, is_long = Setting(*sys.argv[1:5]), "--long" in sys.argv
    refuses_what_it_must(setting)
    said("ok refusals")
    if "--refusals" in sys.argv:
        return
    systems = Systems(setting)
    updates_and_comes_back(setting, systems, is_long)
    said("ok updates and comes back")
    survives_cuts(setting, systems, CUTS_LONG if is_long else CUTS)
    said("ok cuts")


if __name__ == "__main__":
    try:
        main()
    finally:
        qemu.kill_all()
