"""Two boxes on a bridge of this machine, as `scripts/run --lan 2 --tap` boots them: the machine itself finds both, each finds
the other, and Ctrl-C leaves nothing behind. In a network namespace of its own, which needs root and /dev/net/tun.

Usage: lan.py BOARD IMAGE WORK REFUGE
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from box import IDENTITY, ROOT, note_identities, said

# Two emulated starts, one beside the other, on a busy machine.
READY_WITHIN_S = 600
FOUND_WITHIN_S = 120
NAMESPACE = "REFUGE_NAMESPACE"


def enter_namespace():
    if os.environ.get(NAMESPACE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    if os.getuid() != 0 or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        said("SKIPPED: scripts/run --tap: it needs root and /dev/net/tun")
        sys.exit()
    os.environ[NAMESPACE] = "own"
    os.execvp("unshare", ["unshare", "--net", "--", sys.executable, *sys.argv])


def read_until(process, mark):
    """What it says up to a line with `mark`; QEMU and machine.py have their own time limits."""
    text = ""
    for line in process.stdout:
        text += line
        if mark in line:
            return text
    raise AssertionError(f"scripts/run ended before {mark}:\n{text}")


def found(refuge, environment):
    """Node ids, and how each was found."""
    output = subprocess.run([refuge, "discover", "--json"], env=environment, check=True, capture_output=True, text=True).stdout
    return {peer["id"]: set(peer["found_by"]) for peer in map(json.loads, output.splitlines())}


def main():
    enter_namespace()
    board, image, work, refuge = sys.argv[1:5]
    environment = dict(os.environ, XDG_CONFIG_HOME=f"{work}/config", XDG_CACHE_HOME=f"{work}/cache")
    orders = ["run", "--board", board, "--image", image, "--folder", f"{work}/boxes", "--client", refuge, "--lan", "2", "--tap"]
    program = [sys.executable, str(ROOT / "scripts/machine.py"), *orders]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            text = read_until(process, "Ctrl-C shuts it down")
            nodes = re.findall(r"node id +(\S+)", text)
            claims = re.findall(r"(\S+) claim (https://\S+) (\S+)", text)
            assert len(set(nodes)) == 2 and len(claims) == 2, text
            note_identities({name: re.findall(rf"^ +{name} +(\S.*)$", text, re.MULTILINE) for name in IDENTITY})
            # Each page lists the other to its owner.
            for _, url, code in claims:
                subprocess.run([refuge, "claim", url, code], env=environment, check=True, timeout=120)
            began = time.monotonic()
            both = {node: {"mdns", "udp"} for node in nodes}
            while (seen := found(refuge, environment)) != both:
                assert time.monotonic() - began < FOUND_WITHIN_S, f"this machine finds {seen}, not {both}"
            said(f"refuge discover lists both boxes {time.monotonic() - began:.1f} s after they answered")
            process.send_signal(signal.SIGINT)
            text = process.stdout.read()
            assert text.count("The box is off.") == 2, text
            assert process.wait(30) == 0
        finally:
            if process.poll() is None:
                process.terminate()
    links = subprocess.run(["ip", "-brief", "link"], check=True, capture_output=True, text=True).stdout
    assert "refuge" not in links, f"left behind: {links}"
    said("ok scripts/run --lan 2 --tap")


if __name__ == "__main__":
    main()
