"""Parses every recipe and append of meta-refuge with BitBake's own parser, without any other layer: their syntax, that what they
require is there, and that what they inherit is a class of ours or one that is known to be OpenEmbedded's. Whether it builds is for
`tests/layers/run --layers`.

Usage: recipes.py WORK      with a Python that has BitBake's library `bb`
"""

import os
import re
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LAYER = ROOT / "yocto-layer/meta-refuge"
# Classes of openembedded-core and meta-rauc that ours use; each is there in the commits that yocto-layer/kas names.
KNOWN = "allarch bundle cargo core-image deploy features_check kernel-arch nopackages sbom-cve-check systemd useradd".split()
MACHINES = {"qemuarm": "qemu-arm", "raspberrypi4-64": "raspberrypi", "beaglebone-yocto": "beaglebone"}
OVERRIDES = {"qemuarm": "qemuall", "raspberrypi4-64": "rpi", "beaglebone-yocto": "ti"}
# A function whose end is missing is dropped without a word: all that a recipe opens must be there after parsing.
OPENED = re.compile(r"^(?:python |fakeroot )*([\w:-]+) *\(\) *\{$", re.MULTILINE)


def load_bb():
    """BitBake's library, with the services that parsing does not use left out."""
    stub = types.ModuleType("hashserv")
    stub.client = types.ModuleType("hashserv.client")
    stub.ADDR_TYPE_UNIX, stub.ADDR_TYPE_TCP, stub.ADDR_TYPE_WS = range(3)
    sys.modules["hashserv"], sys.modules["hashserv.client"] = stub, stub.client
    import bb
    import bb.build
    import bb.cache
    import bb.codeparser
    import bb.data
    import bb.data_smart
    import bb.event
    import bb.fetch2
    import bb.parse
    import bb.utils

    return bb


def datastore(bb, machine, work):
    data = bb.data.init()
    data.setVar("BBPATH", f"{LAYER}:{work}")
    data.setVar("TOPDIR", str(work))
    data.setVar("TMPDIR", str(work))
    data.setVar("PERSISTENT_DIR", str(work))
    data.setVar("DISTRO", "refuge-os")
    data.setVar("MACHINE", machine)
    data.setVar("REFUGE_LAYER", str(LAYER))
    data.setVar("REFUGE_ROOT", str(ROOT))
    data.setVar("REFUGE_BOARD", MACHINES[machine])
    data.setVar("OVERRIDES", f"{MACHINES[machine]}:{OVERRIDES[machine]}:{machine}:refuge-os")
    data.setVar("DISTRO_FEATURES", "rauc systemd")
    data.setVar("UNPACKDIR", "${TOPDIR}/sources")
    data.setVar("__bbclasstype", "recipe")
    bb.utils.set_context({"os": os, "bb": bb, "time": __import__("time")})
    return data


def parse(bb, file, machine, work):
    """The recipe's variables and functions, as BitBake has them."""
    data = datastore(bb, machine, work)
    recipe = file
    if file.suffix == ".bbappend":
        # The recipe of others that it is read after is not here; ours say nothing that needs more of it than its name.
        recipe = work / "recipes" / file.name.replace("_%", "_1.0").replace(".bbappend", ".bb")
        recipe.parent.mkdir(exist_ok=True)
        recipe.write_text('SRC_URI = ""\n')
        data.setVar("__BBAPPEND", str(file))
    name, version, _ = bb.parse.vars_from_file(str(recipe), data)
    data.setVar("PN", name)
    data.setVar("PV", version or "1.0")
    bb.parse.init_parser(data)
    return bb.parse.handle(str(recipe), data)[""]


def main():
    work = Path(sys.argv[1])
    (work / "classes").mkdir()
    for name in KNOWN:
        (work / f"classes/{name}.bbclass").write_text("")
    # What every recipe inherits.
    (work / "classes/base.bbclass").write_text("addtask fetch\naddtask patch\naddtask configure\naddtask compile\naddtask install\naddtask build\n")
    bb = load_bb()
    files = sorted(file for pattern in ("recipes-*/*/*.bb*", "dynamic-layers/*/recipes-*/*/*.bb*") for file in LAYER.glob(pattern))
    assert len(files) > 10, "the layer's recipes were not found"
    for machine in MACHINES:
        for file in files:
            if "dynamic-layers" in str(file) and ("raspberrypi" in str(file)) != (machine == "raspberrypi4-64"):
                continue
            data = parse(bb, file, machine, work)
            for name in OPENED.findall(file.read_text()):
                whole = re.sub(r":(append|prepend)$", "", name)
                assert data.getVar(whole, False), f"{file.name}: {name} has no end"
            if file.name.startswith("refuge_"):
                units = f"{data.getVar('SYSTEMD_SERVICE:refuge')} {data.getVar('SYSTEMD_SERVICE:refuge-wifi')}".split()
                installed = [unit.name for unit in (ROOT / "systemd").glob("*.*") if unit.is_file() and "[Install]" in unit.read_text()]
                assert sorted(units) == sorted(installed) and "refuge.service" in units, units
            # Whatever needs the board's data gets it.
            for name in ("SRC_URI", "RRECOMMENDS:refuge-system", "RRECOMMENDS", "IMAGE_ROOTFS_SIZE", "REFUGE_BOOT_STATE_ENTRY"):
                data.getVar(name)
        print(f"ok {machine}: recipes")


if __name__ == "__main__":
    main()
