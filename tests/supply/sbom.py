"""Reads the SBOM of a binary: whole, the same each time, of Cargo.lock, and refused where the binary is another's.

Usage: sbom.py BINARY WORK
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def sbom(*words, fails=False):
    said = subprocess.run([ROOT / "scripts/sbom", *words], capture_output=True, text=True)
    assert (said.returncode != 0) == fails, said.stderr
    return said.stderr if fails else said.stdout


def main():
    binary, work = sys.argv[1], Path(sys.argv[2])
    text = sbom("--binary", binary, "--licences")
    assert text == sbom("--binary", binary, "--licences"), "two calls, two documents"
    said = json.loads(text)
    assert said["bomFormat"] == "CycloneDX" and said["metadata"]["component"]["name"] == "refuge"
    locked = {(package["name"], package["version"]): package for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    names = {component["name"] for component in said["components"]}
    for component in said["components"]:
        package = locked[component["name"], component["version"]]
        assert component["hashes"] == [{"alg": "SHA-256", "content": package["checksum"]}], component
        assert component["licenses"][0]["expression"], component
    # What is in every binary, and what only tests or builds have.
    assert {"rustls", "ring", "rusqlite", "blake3", "tokio"} <= names, names
    assert not {"proptest", "insta", "tempfile", "cc", "aws-lc-sys", "openssl-sys"} & names, names
    known = {said["metadata"]["component"]["bom-ref"], *(component["bom-ref"] for component in said["components"])}
    assert len(known) == len(said["components"]) + 1
    for edge in said["dependencies"]:
        assert edge["ref"] in known and set(edge["dependsOn"]) <= known, edge

    packages = work / "packages.txt"
    packages.write_text("libc6 2.36-9+deb12u14 armhf\nutil-linux 1:2.38.1-5 armhf\n")
    image = json.loads(sbom("--binary", binary, "--packages", packages, "--board", "qemu-arm"))
    urls = {component["purl"] for component in image["components"]}
    assert "pkg:deb/debian/util-linux@1%3A2.38.1-5?arch=armhf&distro=bookworm" in urls, urls
    assert image["metadata"]["component"]["name"] == "refuge-qemu-arm" and any(url.startswith("pkg:cargo/refuge@") for url in urls)

    assert "has no list of its crates" in sbom("--binary", "/bin/true", fails=True)
    assert "no little-endian ELF file" in sbom("--binary", str(packages), fails=True)
    print(f"ok SBOM: {len(names)} crates")


if __name__ == "__main__":
    main()
