"""What a machine writes to its disk, in order and with its flushes: recorded by QEMU's blklogwrites, replayed up to any moment.

The log has the format of Linux's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): a header of one sector,
then for each write a sector with its place, length and flags, followed by its data.
"""

import random
import struct

import box

SECTOR = 512
MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4


class Recorded(box.qemu.Machine):
    """A machine whose disk writes go to a log as well, anew at each start."""

    @property
    def writes(self):
        return self.folder / "writes.log"

    def storage(self):
        self.writes.write_bytes(b"")
        return [
            "-blockdev", f"node-name=f0,driver=file,filename={self.disk}",
            "-blockdev", f"node-name=l0,driver=file,filename={self.writes}",
            "-blockdev", f"node-name=d0,driver=blklogwrites,file=f0,log=l0,log-sector-size={SECTOR}",
        ]  # fmt: skip

    def moment(self):
        """A point in the log that all of what the machine was answered by now lies before."""
        return self.writes.stat().st_size


class Write:
    """One entry: `at` and `size` on the disk, `data_at` and `ends` in the log; all in bytes."""

    def __init__(self, at, size, flags, data_at):
        self.at, self.size, self.flags, self.data_at = at, size, flags, data_at
        self.ends = data_at + (0 if flags & DISCARD else size)


def read_log(path):
    """Every entry that was written in full. The count in the header is not kept up to date; the log ends where no entry is."""
    writes = []
    end = path.stat().st_size
    with open(path, "rb") as log:
        magic, version, _, sector = struct.unpack("<QQQI", log.read(28))
        assert (magic, version, sector) == (MAGIC, 1, SECTOR), "no log of writes"
        at = SECTOR
        while at + SECTOR <= end:
            log.seek(at)
            place, count, flags, _ = struct.unpack("<QQQQ", log.read(32))
            write = Write(place * SECTOR, count * SECTOR, flags, at + SECTOR)
            # A flush has no sectors; what has neither is where nothing was written yet.
            if (count == 0 and not flags & FLUSH) or write.ends > end:
                break
            writes.append(write)
            at = write.ends
    return writes


class Replay:
    """A copy of a disk's part as it was when the log began, moved on through the log."""

    def __init__(self, log, writes, file, from_byte, to_byte):
        self.log, self.writes, self.file = open(log, "rb"), writes, file
        self.span = (from_byte, to_byte)
        self.next = 0

    def pieces(self, write, most):
        """(place in the file, data) of what a write has in the span, cut where a disk of that sector size may tear it."""
        if write.flags & DISCARD or write.size == 0:
            return
        self.log.seek(write.data_at)
        data = self.log.read(write.size)
        at = write.at
        while at < write.at + write.size:
            size = min(most - at % most, write.at + write.size - at)
            if self.span[0] <= at < self.span[1]:
                yield at - self.span[0], data[at - write.at :][:size]
            at += size

    def move_to(self, count):
        """All of the first `count` entries is on the disk."""
        with open(self.file, "r+b") as target:
            for write in self.writes[self.next : count]:
                for at, data in self.pieces(write, 1 << 20):
                    target.seek(at)
                    target.write(data)
        self.next = max(self.next, count)

    def tear(self, file, chance, until, most):
        """A copy of the file gets a random part of what comes between here and entry `until`; how many pieces were lost."""
        lost = 0
        with open(file, "r+b") as target:
            for write in self.writes[self.next : until]:
                for at, data in self.pieces(write, most):
                    if chance.random() < 0.5:
                        lost += 1
                        continue
                    target.seek(at)
                    target.write(data)
        return lost


def stray(writes):
    """Places that were written to in the boot partition or a slot."""
    return [write.at for write in writes if write.at < box.DATA[0] * box.MIB and write.at + write.size > box.BOOT[0] * box.MIB]


def flushes(writes):
    """How many entries lie before the end of each flush."""
    return [number + 1 for number, write in enumerate(writes) if write.flags & FLUSH]


def chance_of(seed):
    return random.Random(seed)
