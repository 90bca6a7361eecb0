"""Boxes under QEMU: scripts/run and tests/box start, watch and end virtual machines through this file.

    scripts/machine.py run --board NAME --image FILE --folder DIR --client FILE [--memory MIB] [--lan N] [--tap]

scripts/run calls it; see there. A disk is kept in --folder: a new image replaces its boot partition, slots and boot state, and
leaves its data.
"""

import argparse
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
# Of every board's genimage.cfg: where the parts that an image replaces begin, and where the data does.
SYSTEM_FROM, SYSTEM_TO = 3 * MIB, 480 * MIB
BOOT_AT = 4 * MIB
# Room to grow into; a sparse file, so it costs what is written.
DISK_BYTES = 8 * 1024 * MIB
# Emulated starts on a busy machine; the contract for an idle one is in tests/box.
READY_WITHIN_S = 300
STOPPED_WITHIN_S = 90
ORDER_WITHIN_S = 60


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


def renew_disk(image, disk):
    """Puts the system of `image` onto a disk that has data: all between the table and the data partition."""
    with open(image, "rb") as source, open(disk, "r+b") as target:
        source.seek(SYSTEM_FROM)
        target.seek(SYSTEM_FROM)
        while target.tell() < SYSTEM_TO:
            target.write(source.read(MIB))


def virtual_lan():
    """A network of this process's boxes alone, as QEMU's -netdev without its id: datagrams that only loopback carries."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"socket,mcast=230.0.0.1:{probe.getsockname()[1]},localaddr=127.0.0.1"


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
        self.process = self.keyboard = None

    def start(self, extra=()):
        machine = self.facts["machine"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        # A Unix socket's path has room for 108 bytes; the folder may be deeper.
        self.controls = tempfile.TemporaryDirectory(prefix="refuge-qemu.")
        self.control = self.controls.name
        forwards = f"hostfwd=tcp:127.0.0.1:{self.https}-:443,hostfwd=tcp:127.0.0.1:{self.http}-:80"
        command = [machine["program"], *machine["arguments"], "-m", str(self.memory_mib)]
        command += ["-accel", "tcg,tb-size=256", "-bios", machine["firmware"]]
        command += [*self.storage(), "-device", "virtio-blk-device,drive=d0"]
        command += ["-device", "virtio-rng-device", "-display", "none", "-serial", "chardev:console"]
        command += ["-chardev", f"socket,id=console,path={self.control}/console,server=on,wait=off,logfile={self.log}"]
        command += ["-qmp", f"unix:{self.control}/qmp,server=on,wait=off"]
        for number, network in enumerate([f"user,{forwards}", *self.networks]):
            # Locally administered, and another one for each machine of a LAN.
            mac = f"52:54:00:{number:02x}:{self.https >> 8:02x}:{self.https & 255:02x}"
            command += ["-netdev", f"{network},id=n{number}", "-device", f"virtio-net-device,netdev=n{number},mac={mac}"]
        command += self.wires()
        self.keyboard = None
        # Its own session: Ctrl-C in the terminal is for us, who then end it in order.
        self.process = subprocess.Popen([*command, *extra], stdin=subprocess.DEVNULL, start_new_session=True)
        STARTED.append(self.process)
        return self

    def storage(self):
        """QEMU's words for the disk `d0`."""
        return ["-drive", f"file={self.disk},if=none,id=d0,format=raw,cache=writeback,discard=unmap"]

    def wires(self):
        """QEMU's words for what else is plugged in; a test may have more."""
        return []

    def type(self, line):
        """Types a line on the console. An image reads nothing there; a test may put a shell into its slot."""
        if self.keyboard is None:
            self.keyboard = socket.socket(socket.AF_UNIX)
            self.keyboard.connect(f"{self.control}/console")
            # What the box writes comes here too; unread, it would hold the box up. The log has it all.
            threading.Thread(target=drain, args=[self.keyboard], daemon=True).start()
        self.keyboard.sendall(f"{line}\n".encode())

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
        self.order("system_powerdown")

    def order(self, name, event=None, **arguments):
        """Has QEMU do something (its QMP reference); returns after the named event, where one is given."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(ORDER_WITHIN_S)
            control.connect(f"{self.control}/qmp")
            stream = control.makefile("rw")
            stream.readline()
            answer = None
            for execute, words in (("qmp_capabilities", {}), (name, arguments)):
                stream.write(json.dumps({"execute": execute, "arguments": words}) + "\n")
                stream.flush()
                # Events may stand between an order and its answer, and the one that is waited for before it as well.
                seen = set()
                while "return" not in (answer := json.loads(stream.readline())):
                    if "error" in answer:
                        raise Failed(f"QEMU refused {execute}: {answer['error']}")
                    seen.add(answer.get("event"))
            while event is not None and event not in seen:
                seen.add(json.loads(stream.readline()).get("event"))
            return answer["return"]

    def stop(self, within_s=STOPPED_WITHIN_S):
        """Shuts the guest down in order; says whether it did so by itself."""
        if self.process is None or self.process.poll() is not None:
            return True
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            # A guest that has just begun to answer does not hear the button yet: again until it does.
            try:
                self.press_power_button()
                self.process.wait(5)
                return True
            except subprocess.TimeoutExpired:
                continue
            except (OSError, Failed, ValueError):
                break
        if self.process.poll() is not None:
            return True
        self.kill()
        return False

    def kill(self):
        """As if the plug were pulled."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def drain(stream):
    try:
        while stream.recv(65536):
            pass
    except OSError:
        pass  # the machine ended


def kill_all():
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.wait()


class Bridge:
    """A bridge of this machine with one tap for each box. Needs root."""

    NAME = "refuge0"

    def __init__(self, boxes):
        self.taps = [f"refuge-tap{number}" for number in range(1, boxes + 1)]

    def __enter__(self):
        orders = [
            ["link", "add", self.NAME, "type", "bridge"],
            # Link-local, as the boxes take where nobody gives addresses.
            ["address", "add", "169.254.77.1/16", "dev", self.NAME],
            ["link", "set", self.NAME, "up"],
        ]
        for tap in self.taps:
            orders += [["tuntap", "add", tap, "mode", "tap"], ["link", "set", tap, "master", self.NAME, "up"]]
        for order in orders:
            if subprocess.run(["ip", *order], check=False).returncode != 0:
                self.__exit__()
                raise Failed(f"ip {' '.join(order)} failed: is another bridge {self.NAME} there?")
        return self

    def __exit__(self, *_):
        for name in [*self.taps, self.NAME]:
            subprocess.run(["ip", "link", "delete", name], check=False, stderr=subprocess.DEVNULL)


def prepare(image, folder, number):
    """The disk of box `number`: kept where it is there, with the system of the image where that is newer."""
    home = folder / f"box{number}"
    home.mkdir(parents=True, exist_ok=True)
    disk, stamp = home / "disk.img", home / "image"
    state = image.stat()
    now = f"{state.st_size} {state.st_mtime_ns}"
    if not disk.exists():
        make_disk(image, disk)
    elif not stamp.exists() or stamp.read_text() != now:
        renew_disk(image, disk)
    stamp.write_text(now)
    return disk, home


def welcome(machine, client):
    url = f"https://127.0.0.1:{machine.https}"
    lines = ["", "The box answers.", "", f"  URL           {url}", f"  plain HTTP    http://127.0.0.1:{machine.http}"]
    for name in ("node id", "fingerprint", "claim code"):
        if value := machine.fact(name):
            lines.append(f"  {name:<13} {value}")
    lines += [f"  console       {machine.log}", f"  QEMU          process {machine.process.pid}"]
    if code := machine.fact("claim code"):
        lines += ["", f"It has no owner yet. In another terminal:\n\n  {client} claim {url} {code}"]
    else:
        lines += ["", "It has an owner."]
    print("\n".join(lines), flush=True)


def run(arguments):
    facts = board(arguments.board)
    boxes = max(1, arguments.lan)
    # A bridge is a LAN already.
    lan = [virtual_lan()] if arguments.lan and not arguments.tap else []
    machines = []

    def boot(taps):
        for number in range(1, boxes + 1):
            disk, home = prepare(Path(arguments.image), Path(arguments.folder), number)
            networks = lan + ([f"tap,ifname={taps[number - 1]},script=no,downscript=no"] if taps else [])
            machine = Machine(facts, disk, home, arguments.memory, 8443 + number - 1, 8080 + number - 1, networks)
            own = [f"{host}:{port}" for port in (machine.https, machine.http) for host in ("127.0.0.1", "localhost")]
            write_first_boot(disk, ["authorities=" + ",".join(own)])
            machines.append(machine.start())
            # The next one must not be given the ports that this one has not bound yet.
            machine.wait("QEMU forwards its ports", lambda: not is_free(machine.https), 30)
        for machine in machines:
            welcome(machine.wait_ready(), arguments.client)
        print("\nCtrl-C shuts it down.", flush=True)
        while all(machine.process.poll() is None for machine in machines):
            time.sleep(0.5)
        print("A box is off." if boxes > 1 else "The box is off.", flush=True)

    try:
        if arguments.tap:
            with Bridge(boxes) as bridge:
                try:
                    boot(bridge.taps)
                finally:
                    end(machines)
        else:
            boot([])
    finally:
        end(machines)


def is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def end(machines):
    running = [machine for machine in machines if machine.process and machine.process.poll() is None]
    if running:
        print("\nShutting down …", flush=True)
    for machine in running:
        print("The box is off." if machine.stop() else "The box did not shut down in time and was cut off.", flush=True)


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run")
    for option in ("--board", "--image", "--folder", "--client"):
        runner.add_argument(option, required=True)
    runner.add_argument("--memory", type=int)
    runner.add_argument("--lan", type=int, default=0)
    runner.add_argument("--tap", action="store_true")
    arguments = parser.parse_args()
    # As Ctrl-C: whoever ends this program wants the boxes shut down. A second time cuts them off.
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, interrupt)
    try:
        run(arguments)
    except KeyboardInterrupt:
        sys.exit(0)
    except Failed as failure:
        sys.exit(f"error: {failure}")
    finally:
        kill_all()


def interrupt(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
