"""A box of the tests: a disk made from an image, the machine that runs from it, and its owner's client."""

import hashlib
import http.client
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import machine as qemu  # noqa: E402

MIB = 1024 * 1024
STATE_AT, STATE_COPY_AT, STATE_BYTES = 3 * MIB, 3 * MIB + MIB // 2, 0x4000
# Where and how long, in MiB; the data partition goes on to the end of the disk.
BOOT, SLOT_A, SLOT_B, DATA = (4, 28), (32, 224), (256, 224), (480, 0)
# Enough for the folder below twice, small enough to make and check quickly.
DISK_BYTES = 1024 * MIB

# The image has no login; this gives a slot one, for the tests alone.
SHELL = """[Service]
StandardInput=tty-force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
ExecStart=/bin/sh
"""


class Setting:
    """What every test is told: the board, its image, a folder to work in, the client."""

    def __init__(self, board, image, work, refuge):
        self.board, self.image, self.work, self.refuge = board, image, Path(work), refuge
        self.facts = qemu.board(board)


class Box:
    """`settings` goes to qemu.Machine."""

    def __init__(self, name, setting, size=DISK_BYTES, kind=qemu.Machine, **settings):
        self.folder = setting.work / name
        self.folder.mkdir()
        self.refuge = setting.refuge
        self.disk = self.folder / "disk.img"
        qemu.make_disk(setting.image, self.disk, size)
        self.machine = kind(setting.facts, self.disk, self.folder, **settings)
        self.url = f"https://127.0.0.1:{self.machine.https}"
        self.asked = 0
        self.threads = threading.local()
        self.write_first_boot()

    def write_first_boot(self, *lines):
        own = [f"authorities=127.0.0.1:{self.machine.https}"]
        qemu.write_first_boot(self.disk, ["hostname=box-of-tests", *own, *lines])

    def note_identity(self):
        """For whoever compares all boxes of a run (S1): node id, key and claim code of each are its own."""
        note_identities({name: [self.machine.fact(name)] for name in IDENTITY})

    # The owner's client.

    def environment(self):
        return dict(os.environ, XDG_CONFIG_HOME=str(self.folder / "config"), XDG_CACHE_HOME=str(self.folder / "cache"))

    def client(self, *words, **options):
        return subprocess.Popen([self.refuge, *words, "--node", self.url], env=self.environment(), **options)

    def run(self, *words):
        with self.client(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            said = process.communicate(timeout=600)[0]
        assert process.returncode == 0, f"refuge {' '.join(words)}: {said}"
        return said

    def claim(self):
        code = self.machine.fact("claim code")
        subprocess.run([self.refuge, "claim", self.url, code], env=self.environment(), check=True, timeout=120)

    def call(self, method, path, body=None, is_again=False):
        """What its owner is answered. Each thread has a connection of its own."""
        if not hasattr(self.threads, "connection"):
            known = tomllib.loads((self.folder / "config/refuge/nodes.toml").read_text())
            self.threads.token = known["node"][0]["token"]
            # Whose token it is, was proved when it was claimed.
            context = ssl._create_unverified_context()
            self.threads.connection = http.client.HTTPSConnection("127.0.0.1", self.machine.https, timeout=120, context=context)
        connection = self.threads.connection
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.threads.token}"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            # A box that was started again does not know the connection; the next call makes a new one.
            connection.close()
            if method != "GET" or is_again:
                raise
            return self.call(method, path, is_again=True)
        assert answer.status < 300, f"{method} {path}: {answer.status} {text}"
        return json.loads(text) if text else None

    def peers(self):
        """What its page lists: the node id of each, and how it was found."""
        return {peer["id"]: set(peer["found_by"]) for peer in self.call("GET", "/api/peers")["peers"]}

    # The disk.

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

    def copy_part(self, part, file):
        size = [f"count={part[1]}"] if part[1] else []
        subprocess.run(["dd", f"if={self.disk}", f"of={file}", "bs=1M", f"skip={part[0]}", *size, "conv=sparse", "status=none"], check=True)

    def put_part(self, file, part):
        subprocess.run(["dd", f"if={file}", f"of={self.disk}", "bs=1M", f"seek={part[0]}", "conv=notrunc", "status=none"], check=True)

    def state(self):
        """The first copy of the boot state, as Linux and U-Boot left it."""
        configuration = self.folder / "fw_env.config"
        configuration.write_text(f"{self.disk} {STATE_AT:#x} {STATE_BYTES:#x}\n")
        said = subprocess.run(["fw_printenv", "-c", configuration], check=True, capture_output=True, text=True).stdout
        return dict(line.split("=", 1) for line in said.splitlines())

    def judged_good(self, slot):
        """The slot has its attempts back once the node answers."""
        self.machine.wait(f"slot {slot} is judged good", lambda: self.state().get(f"BOOT_{slot}_LEFT") == "3", 120)

    def with_shell(self):
        """A shell on the console of what slot A starts."""
        slot = self.folder / "slot"
        self.copy_part(SLOT_A, slot)
        add_shell(slot)
        self.put_part(slot, SLOT_A)
        slot.unlink()

    # The shell of a slot that `add_shell` was done to.

    def ask(self, command, within_s=180):
        """What a command says on the console."""
        self.asked += 1
        begin, end = f"answer {self.asked} begins\n", f"answer {self.asked} ends\n"
        # The console shows what is typed as well: split, it is not taken for the answer.
        self.machine.type(f"echo 'answer '{self.asked} begins; {command}; echo 'answer '{self.asked} ends")
        self.machine.wait(f"an answer to: {command}", lambda: end in self.machine.console(), within_s)
        return self.machine.console().split(begin)[-1].split(end)[0]


# What of a box nobody else has, as its console names it.
IDENTITY = ("node id", "fingerprint", "claim code")


def note_identities(found):
    """Appends to the file that tests/box/run looks through in the end; `found` has lists by name."""
    if path := os.environ.get("REFUGE_IDENTITIES"):
        with open(path, "a") as file:
            file.writelines(f"{name} {value}\n" for name, values in found.items() for value in values if value)


def add_shell(slot):
    """Puts the shell into a slot's file."""
    unit = slot.parent / "shell.service"
    unit.write_text(SHELL)
    folder = "/usr/lib/systemd/system"
    debugfs(slot, f"cd {folder}", f"write {unit} shell.service", "cd multi-user.target.wants", "symlink shell.service ../shell.service")


def debugfs(file, *orders):
    done = subprocess.run(["debugfs", "-w", "-f", "-", str(file)], input="".join(f"{order}\n" for order in orders), check=True, capture_output=True, text=True)
    # Its first line of errors is its version.
    errors = done.stderr.splitlines()[1:]
    assert not errors, errors


def make_folder(folder):
    """Files of every size and kind that a user's folder has, and enough of them to pull the plug in the middle."""
    folder.mkdir()
    for number in range(40):
        (folder / f"file {number}").write_bytes(os.urandom(1 + number * 7919))
    (folder / "large").write_bytes(os.urandom(8 * MIB))
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


def number(pattern, text):
    """The number that a pattern finds."""
    found = re.search(pattern, text, re.MULTILINE)
    assert found, f"no {pattern} in {text}"
    return int(found[1])


def said(text):
    print(text, flush=True)
