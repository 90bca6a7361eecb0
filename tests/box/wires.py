"""What is plugged into a virtual machine from outside while it runs: a finger on its button, an eye on its light, USB disks.

Light and button are lines of the machine's own GPIO chip (PL061), reached by QEMU's qtest protocol (docs of QEMU, "QTest Device
Emulation Testing Framework"), which works beside a processor that runs.
"""

import collections
import os
import socket
import subprocess
import threading
import time

from box import MIB, qemu

# src/board/led.rs: a pattern is a row of steps of an eighth of a second, repeated.
STEP_S = 0.125
PATTERNS = {
    "starting": "####....",
    "ready": "#",
    "unclaimed": "########........",
    "degraded": "#.#.............",
    "failed": "#.#.#...",
    "identify": "#.#.#.#.####....",
    "warning": "#.",
}
# On a busy machine a change comes late, and the next one then early: how long a light has to be on or off for one step, for
# two to four, for more. Patterns that are told apart differ in these.
SHORT_S, MEDIUM_S = 0.3, 0.75
# Steady is what did not change for longer than any pattern takes for a change.
STEADY_S = 4
# A row of changes is a pattern when it was seen so often in a row.
TIMES = 2
CHANGES_KEPT = 400



class Wired(qemu.Machine):
    """A machine with its light in sight, its button within reach, and room for USB disks."""

    def wires(self):
        return ["-device", "qemu-xhci,id=usb", "-qtest", f"unix:{self.control}/qtest,server=on,wait=off", "-qtest-log", "/dev/null"]

    def start(self, extra=()):
        super().start(extra)
        self.lines = Lines(self)
        return self


class Lines:
    """The two lines. `changes` are (when, is lit) as they came."""

    def __init__(self, machine):
        self.machine = machine
        facts = machine.facts
        self.led, self.button = facts["led"]["line"], facts["button"]["line"]
        assert facts["button"]["is_pressed_high"]
        self.changes = collections.deque(maxlen=CHANGES_KEPT)
        machine.wait("QEMU has a control socket", lambda: os.path.exists(f"{machine.control}/qtest") and os.path.exists(f"{machine.control}/qmp"), 30)
        parts = machine.order("qom-list", path="/machine/unattached")
        chip = next(part["name"] for part in parts if part["type"] == "child<pl061>")
        self.chip = f"/machine/unattached/{chip}"
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.connect(f"{machine.control}/qtest")
        self.say(f"irq_intercept_out {self.chip}")
        threading.Thread(target=self.listen, daemon=True).start()

    def say(self, line):
        self.stream.sendall(f"{line}\n".encode())

    def listen(self):
        """`IRQ raise 1`, `IRQ lower 1`: the chip drives its line 1. What else comes are answers, `OK`."""
        try:
            for line in self.stream.makefile():
                words = line.split()
                if words[:1] == ["FAIL"]:
                    print(f"qtest: {line}", flush=True)
                if words[:1] == ["IRQ"] and words[2] == str(self.led):
                    self.changes.append((time.monotonic(), words[1] == "raise"))
        except OSError:
            pass  # the machine ended

    def press(self):
        self.say(f"set_irq_in {self.chip} unnamed-gpio-in {self.button} 1")

    def let_go(self):
        self.say(f"set_irq_in {self.chip} unnamed-gpio-in {self.button} 0")

    def press_shortly(self):
        self.press()
        time.sleep(0.3)
        self.let_go()

    def shows(self, name, since=0.0):
        """Whether the light has shown a pattern after that moment, often enough in a row."""
        changes = [change for change in list(self.changes) if change[0] >= since]
        if name == "ready":
            return bool(self.changes) and self.changes[-1][1] and time.monotonic() - self.changes[-1][0] > STEADY_S
        row = runs(PATTERNS[name])
        seen = [(is_lit, kind(until - began)) for (began, is_lit), (until, _) in zip(changes, changes[1:])]
        wanted = row * TIMES
        return any(seen[at : at + len(wanted)] == wanted for at in range(len(seen) - len(wanted) + 1))

    def wait(self, name, within_s=180):
        """Waits until a pattern is shown from now on."""
        since = time.monotonic()
        try:
            self.machine.wait(f"the light shows {name}", lambda: self.shows(name, since), within_s)
        except qemu.Failed as error:
            recent = list(self.changes)[-40:]
            took = [f"{'#' if is_lit else '.'}{until - began:.2f}" for (began, is_lit), (until, _) in zip(recent, recent[1:])]
            raise qemu.Failed(f"the light showed {' '.join(took)}; {error}") from error


def kind(seconds):
    return "short" if seconds < SHORT_S else "medium" if seconds < MEDIUM_S else "long"


def runs(pattern):
    """(is lit, how long) of a pattern's parts."""
    found = []
    for step in pattern:
        if found and found[-1][0] == (step == "#"):
            found[-1][1] += 1
        else:
            found.append([step == "#", 1])
    return [(is_lit, kind(steps * STEP_S)) for is_lit, steps in found]


class UsbDisk:
    """A USB disk: a file, with the serial that the disk says it has."""

    def __init__(self, machine, file, serial, size=64 * MIB):
        self.machine, self.file, self.serial = machine, file, serial
        if not file.exists():
            file.touch()
            os.truncate(file, size)
        self.name = f"usb-{serial}"
        self.times = 0

    def plug(self):
        self.times += 1
        node = f"{self.name}-{self.times}"
        self.machine.order("blockdev-add", **{"node-name": node, "driver": "raw", "file": {"driver": "file", "filename": str(self.file)}})
        self.machine.order("device_add", driver="usb-storage", id=self.name, bus="usb.0", drive=node, serial=self.serial)

    def pull(self):
        """Without a word to the guest before."""
        self.machine.order("device_del", event="DEVICE_DELETED", id=self.name)
        self.machine.order("blockdev-del", **{"node-name": f"{self.name}-{self.times}"})

    def format(self, *options):
        subprocess.run(["mkfs.ext4", "-q", "-F", *options, str(self.file)], check=True, capture_output=True)
