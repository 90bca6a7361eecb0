"""The crates of Cargo.lock as BitBake fetches them, in the form of `bitbake -c update_crates`.

    scripts/crates.py            writes yocto-layer/meta-refuge/recipes-refuge/refuge/refuge-crates.inc
    scripts/crates.py --check    says whether it is what Cargo.lock asks for, and fails where it is not
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "yocto-layer/meta-refuge/recipes-refuge/refuge/refuge-crates.inc"


def rendered(lock):
    """The list for a Cargo.lock; what is in the repository itself has no source and is no crate to fetch."""
    crates = [package for package in tomllib.loads(lock)["package"] if "source" in package]
    others = [crate["name"] for crate in crates if "crates.io" not in crate["source"]]
    if others:
        sys.exit(f"error: not from crates.io, so BitBake's fetcher for crates cannot have them: {', '.join(others)}")
    lines = ["# Made by scripts/crates.py from Cargo.lock.", "", 'SRC_URI += " \\']
    lines += [f"    crate://crates.io/{crate['name']}/{crate['version']} \\" for crate in crates]
    lines += ['"', ""]
    lines += [f'SRC_URI[{crate["name"]}-{crate["version"]}.sha256sum] = "{crate["checksum"]}"' for crate in crates]
    return "\n".join(lines) + "\n"


def main(words):
    wanted = rendered((ROOT / "Cargo.lock").read_text())
    if words == []:
        LIST.write_text(wanted)
    elif words == ["--check"]:
        if not LIST.exists() or LIST.read_text() != wanted:
            sys.exit(f"error: {LIST.relative_to(ROOT)} is not what Cargo.lock asks for: run scripts/crates.py")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
