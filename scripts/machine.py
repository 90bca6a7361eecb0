"""Boxes under QEMU: tests/box starts, watches and ends virtual machines through this file."""

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
# Of every board's genimage.cfg.
BOOT_AT = 4 * MIB
# Room to grow into; a sparse file, so it costs what is written.
DISK_BYTES = 8 * 1024 * MIB
# Emulated starts on a busy machine; the contract for an idle one is in tests/box.
READY_WITHIN_S = 300
STOPPED_WITHIN_S = 90


# Every machine of this process: none outlives it.
STARTED = []


class Failed(Exception):
    """What the person at the terminal is told."""


def board(name):
    """The facts of board/NAME/board.toml."""
    return tomllib.loads((ROOT / "board" / name / "board.toml").read_text())


def free_port(wanted=0):
    """A TCP port of loopback that nobody holds: the wanted one where it is free."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise Failed("no port of 127.0.0.1 is free")


def make_disk(image, disk, size=DISK_BYTES):
    """A disk with this image, as if it had been flashed onto a larger card."""
    subprocess.run(["cp", "--sparse=always", image, disk], check=True)
    os.truncate(disk, size)


def write_first_boot(disk, lines):
    """Writes first-boot.conf into the boot partition, which the box itself only reads."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        subprocess.run(["mcopy", "-o", "-i", f"{disk}@@{BOOT_AT}", file.name, "::first-boot.conf"], check=True)


class Machine:
    """One virtual machine. `folder` takes its console's log and its control socket."""

    def __init__(self, facts, disk, folder, memory_mib=None, https=0, http_port=0, networks=()):
        self.facts, self.disk, self.folder = facts, Path(disk), Path(folder)
        self.memory_mib = memory_mib or facts["machine"]["memory_mib"]
        self.https, self.http = free_port(https), free_port(http_port)
        # More networks beside the one that forwards ports, as QEMU's -netdev without its id.
        self.networks = list(networks)
        self.log = self.folder / "console.log"
        self.process = None

    def start(self, extra=()):
        machine = self.facts["machine"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        # A Unix socket's path has room for 108 bytes; the folder may be deeper.
        self.control = tempfile.mkdtemp(prefix="refuge-qemu.")
        forwards = f"hostfwd=tcp:127.0.0.1:{self.https}-:443,hostfwd=tcp:127.0.0.1:{self.http}-:80"
        command = [machine["program"], *machine["arguments"], "-m", str(self.memory_mib)]
        command += ["-accel", "tcg,tb-size=256", "-bios", machine["firmware"]]
        command += ["-drive", f"file={self.disk},if=none,id=d0,format=raw,cache=writeback", "-device", "virtio-blk-device,drive=d0"]
        command += ["-device", "virtio-rng-device", "-display", "none", "-serial", f"file:{self.log}"]
        command += ["-qmp", f"unix:{self.control}/qmp,server=on,wait=off"]
        for number, network in enumerate([f"user,{forwards}", *self.networks]):
            # Locally administered, and another one for each machine of a LAN.
            mac = f"52:54:00:{number:02x}:{self.https >> 8:02x}:{self.https & 255:02x}"
            command += ["-netdev", f"{network},id=n{number}", "-device", f"virtio-net-device,netdev=n{number},mac={mac}"]
        # Its own session: Ctrl-C in the terminal is for us, who then end it in order.
        self.process = subprocess.Popen([*command, *extra], stdin=subprocess.DEVNULL, start_new_session=True)
        STARTED.append(self.process)
        return self

    def console(self):
        """What was written on the console so far, without the colours."""
        text = self.log.read_bytes().decode("utf-8", "replace").replace("\r", "")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)

    def fact(self, name):
        """What the node last said of itself on the console: `node id`, `fingerprint` or `claim code`; None where nothing."""
        said = re.findall(rf"^ +{name} +(\S.*)$", self.console(), re.MULTILINE)
        return said[-1].strip() if said else None

    def answers(self):
        """Whether HTTPS answers through the forwarded port."""
        context = ssl._create_unverified_context()  # who it is, is for those who claim it to check
        connection = http.client.HTTPSConnection("127.0.0.1", self.https, timeout=5, context=context)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def wait(self, what, is_so, within_s):
        """Waits for a condition; a machine that ends meanwhile, or time that runs out, is a failure with the console's end."""
        deadline = time.monotonic() + within_s
        while not is_so():
            if self.process.poll() is not None:
                raise Failed(f"QEMU ended before {what}\n{self.console()[-3000:]}")
            if time.monotonic() > deadline:
                raise Failed(f"not within {within_s} s: {what}\n{self.console()[-3000:]}")
            time.sleep(0.25)

    def wait_ready(self, within_s=READY_WITHIN_S):
        self.wait("the box answers over HTTPS", lambda: self.fact("node id") and self.answers(), within_s)
        return self

    def processor_s(self):
        """Processor time QEMU has used so far, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def press_power_button(self):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(f"{self.control}/qmp")
            stream = control.makefile("rw")
            stream.readline()
            for order in ("qmp_capabilities", "system_powerdown"):
                stream.write(json.dumps({"execute": order}) + "\n")
                stream.flush()
                # Events may stand between an order and its answer.
                while "return" not in (answer := json.loads(stream.readline())):
                    if "error" in answer:
                        raise Failed(f"QEMU refused {order}: {answer['error']}")

    def stop(self, within_s=STOPPED_WITHIN_S):
        """Shuts the guest down in order; says whether it did so by itself."""
        if self.process is None or self.process.poll() is not None:
            return True
        try:
            self.press_power_button()
            self.process.wait(within_s)
            return True
        except (OSError, Failed, subprocess.TimeoutExpired):
            self.kill()
            return False

    def kill(self):
        """As if the plug were pulled."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def kill_all():
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.wait()
