//! Which disks there are: the kernel's tree of block devices (`/sys/block`), read.
//!
//! Nothing here opens a device. What a device says of itself, its title and its serial, is whatever its maker, or somebody
//! who wants to be taken for one, wrote there: it is cut and cleaned, and names nothing but that disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::id::{DiskName, DiskSerial};

/// Disks looked at; a box has a handful.
const DISKS_MAX: usize = 64;

/// Partitions of a disk that are looked at.
const PARTITIONS_MAX: usize = 128;

/// Folders above a device in which a bus keeps what it knows of it.
const ABOVE_MAX: usize = 12;

/// The longest attribute that is read, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 4096;

/// Sectors of `size` have that many bytes on every device (kernel documentation, ABI/stable/sysfs-block).
const SECTOR_BYTES: u64 = 512;

/// A disk as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::board) struct Device {
    pub(in crate::board) name: DiskName,
    /// Major and minor number, as `8:0`.
    pub(in crate::board) numbers: String,
    pub(in crate::board) size_bytes: u64,
    /// Who made it and what they call it.
    pub(in crate::board) title: String,
    pub(in crate::board) serial: DiskSerial,
    pub(in crate::board) partitions: Vec<Partition>,
    /// Whether the kernel built something on top of it: an array, a volume.
    pub(in crate::board) is_held: bool,
}

/// A part of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::board) struct Partition {
    pub(in crate::board) name: DiskName,
    pub(in crate::board) numbers: String,
}

/// The disks below `sys`, by name.
///
/// # Errors
/// Where the tree is none; a device that goes meanwhile is left out.
pub(in crate::board) fn list(sys: &Path) -> io::Result<Vec<Device>> {
    let mut devices: Vec<Device> = names_in(&sys.join("block"))?
        .into_iter()
        .filter_map(|name| device(sys, name))
        .take(DISKS_MAX)
        .collect();
    devices.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(devices)
}

/// What tells whether a disk came or went: every block device with its size and, from Linux 5.15 on, the number of its
/// insertion.
pub(in crate::board) fn present(sys: &Path) -> Vec<String> {
    let block = sys.join("block");
    let mut all: Vec<String> = names_in(&block)
        .unwrap_or_default()
        .into_iter()
        .map(|name| {
            let folder = block.join(name.as_str());
            let of = |attribute| read(&folder.join(attribute)).unwrap_or_default();
            format!("{name} {} {}", of("size"), of("diskseq"))
        })
        .collect();
    all.sort();
    all
}

/// Whether a device with these numbers is there.
pub(in crate::board) fn is_there(sys: &Path, numbers: &str) -> bool {
    sys.join("dev/block").join(numbers).exists()
}

/// Whether a name fits a shell pattern that knows `*` alone.
pub(in crate::board) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|left| {
            (0..=left.len()).any(|at| left.is_char_boundary(at) && fits(rest, &left[at..]))
        }),
    }
}

/// `None` for what is no disk: memory, loops, trays without a disk, what takes no writes.
fn device(sys: &Path, name: DiskName) -> Option<Device> {
    let folder = sys.join("block").join(name.as_str());
    if !folder.join("device").exists() || read(&folder.join("ro"))? != "0" || name.as_str().starts_with("sr")
    {
        return None;
    }
    let size_bytes = read(&folder.join("size"))?
        .parse::<u64>()
        .ok()?
        .checked_mul(SECTOR_BYTES)?;
    if size_bytes == 0 {
        return None;
    }
    let real = folder.canonicalize().ok()?;
    Some(Device {
        numbers: read(&folder.join("dev"))?,
        size_bytes,
        title: title(&folder),
        serial: serial(&real, size_bytes),
        partitions: partitions(&folder),
        is_held: fs::read_dir(folder.join("holders")).is_ok_and(|mut held| held.next().is_some()),
        name,
    })
}

fn title(folder: &Path) -> String {
    let parts = ["device/vendor", "device/model", "device/name"];
    let parts: Vec<String> = parts
        .iter()
        .filter_map(|attribute| read(&folder.join(attribute)))
        .filter(|part| !part.is_empty() && !part.starts_with("0x"))
        .collect();
    clean(&parts.join(" "))
}

/// What the device or the bus above it says; where none does, its size stands for it.
fn serial(real: &Path, size_bytes: u64) -> DiskSerial {
    let above = real.ancestors().take(ABOVE_MAX);
    let places = above.flat_map(|folder| [folder.join("serial"), folder.join("device/serial")]);
    let said = places
        .filter_map(|place| read(&place))
        .find_map(|serial| serial.parse().ok());
    said.unwrap_or_else(|| {
        let stand_in = format!("no-serial-{size_bytes}");
        stand_in.parse().expect("a number is plain characters")
    })
}

fn partitions(folder: &Path) -> Vec<Partition> {
    let mut found: Vec<Partition> = names_in(folder)
        .unwrap_or_default()
        .into_iter()
        .filter(|name| folder.join(name.as_str()).join("partition").exists())
        .filter_map(|name| {
            let numbers = read(&folder.join(name.as_str()).join("dev"))?;
            Some(Partition { name, numbers })
        })
        .take(PARTITIONS_MAX)
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn names_in(folder: &Path) -> io::Result<Vec<DiskName>> {
    let names = fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(names.collect())
}

/// An attribute, trimmed.
fn read(path: &PathBuf) -> Option<String> {
    let mut bytes = fs::read(path).ok()?;
    bytes.truncate(ATTRIBUTE_BYTES_MAX);
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn clean(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control()).take(100);
    plain.collect::<String>().trim().to_owned()
}

#[cfg(test)]
pub(in crate::board) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A tree as Linux 6.1 shows it: attributes as files, `block` and `dev/block` as links to devices.
    pub(in crate::board) struct Tree(pub(in crate::board) tempfile::TempDir);

    impl Tree {
        pub(in crate::board) fn new() -> Tree {
            let tree = Tree(tempfile::tempdir().unwrap());
            for folder in ["block", "dev/block"] {
                fs::create_dir_all(tree.0.path().join(folder)).unwrap();
            }
            tree
        }

        /// Adds a block device at a path below `devices`, with attributes relative to it.
        pub(in crate::board) fn add(&self, at: &str, numbers: &str, attributes: &[(&str, &str)]) {
            let root = self.0.path();
            let folder = root.join("devices").join(at);
            fs::create_dir_all(&folder).unwrap();
            let own = [("dev", numbers), ("ro", "0\n")];
            for (name, value) in own.iter().chain(attributes) {
                let path = folder.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, value).unwrap();
            }
            let name = folder.file_name().unwrap();
            if !folder.join("partition").exists() {
                symlink(&folder, root.join("block").join(name)).unwrap();
            }
            symlink(&folder, root.join("dev/block").join(numbers)).unwrap();
        }

        pub(in crate::board) fn remove(&self, name: &str, numbers: &str) {
            fs::remove_file(self.0.path().join("block").join(name)).unwrap();
            fs::remove_file(self.0.path().join("dev/block").join(numbers)).unwrap();
        }
    }

    const USB: &str = "platform/soc/usb1/1-1/1-1.2/1-1.2:1.0/host0/target0:0:0/0:0:0:0/block/sda";

    /// A Raspberry Pi with a USB disk of two partitions.
    fn raspberry_pi() -> Tree {
        let tree = Tree::new();
        let card = "platform/soc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0";
        tree.add(
            card,
            "179:0",
            &[
                ("size", "62333952\n"),
                ("device/name", "SC32G\n"),
                ("device/serial", "0x8a5b3c1d\n"),
            ],
        );
        tree.add(&format!("{card}/mmcblk0p2"), "179:2", &[("partition", "2\n")]);
        tree.add(
            USB,
            "8:0",
            &[
                ("size", "1953525168\n"),
                ("device/vendor", "WD      \n"),
                ("device/model", "Elements 25A2   \n"),
                ("../../../../../../serial", "575834314135\n"),
            ],
        );
        for (name, numbers) in [("sda1", "8:1"), ("sda2", "8:2")] {
            tree.add(&format!("{USB}/{name}"), numbers, &[("partition", "1\n")]);
        }
        tree.add("virtual/block/loop0", "7:0", &[("size", "100\n")]);
        tree.add("virtual/block/ram0", "1:0", &[("size", "8192\n")]);
        tree
    }

    #[test]
    fn disks_are_listed_with_what_people_know_them_by() {
        let tree = raspberry_pi();
        let devices = list(tree.0.path()).unwrap();
        let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["mmcblk0", "sda"]);
        let usb = &devices[1];
        assert_eq!(usb.title, "WD Elements 25A2");
        assert_eq!(usb.serial.as_str(), "575834314135");
        assert_eq!((usb.size_bytes, usb.numbers.as_str()), (1_000_204_886_016, "8:0"));
        let partitions: Vec<&str> = usb.partitions.iter().map(|part| part.numbers.as_str()).collect();
        assert_eq!(partitions, ["8:1", "8:2"]);
        assert!(!usb.is_held);
        assert_eq!(devices[0].serial.as_str(), "0x8a5b3c1d");
    }

    #[test]
    fn a_disk_that_is_pulled_is_gone_and_another_in_its_place_is_another() {
        let tree = raspberry_pi();
        let before = present(tree.0.path());
        assert!(is_there(tree.0.path(), "8:0"));
        tree.remove("sda", "8:0");
        assert!(!is_there(tree.0.path(), "8:0"));
        assert_ne!(present(tree.0.path()), before);
        let other = "platform/soc/usb1/1-1/1-1.3/block/sda";
        tree.add(
            other,
            "8:0",
            &[
                ("size", "1953525168\n"),
                ("diskseq", "9\n"),
                ("device/model", "x"),
            ],
        );
        assert_ne!(present(tree.0.path()), before);
    }

    #[test]
    fn what_a_hostile_disk_says_of_itself_is_cleaned_and_stands_for_nothing_else() {
        let tree = Tree::new();
        tree.add(
            "usb/sdb",
            "8:16",
            &[
                ("size", "2048\n"),
                ("device/model", "\u{1b}[2Jevil\n"),
                ("device/serial", "$(reboot)\nsecond line"),
                ("holders/dm-0", ""),
            ],
        );
        tree.add("usb/sdc", "8:32", &[("size", "0\n"), ("device/model", "tray")]);
        tree.add(
            "usb/sdd",
            "8:48",
            &[("size", "99999999999999999999\n"), ("device/model", "big")],
        );
        let devices = list(tree.0.path()).unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].title, "[2Jevil");
        assert_eq!(devices[0].serial.as_str(), "no-serial-1048576");
        assert!(devices[0].is_held);
    }

    #[test]
    fn patterns_fit_as_a_shell_says() {
        for (pattern, name) in [
            ("sda", "sda"),
            ("mmcblk*", "mmcblk0"),
            ("vd*", "vda"),
            ("*", ""),
            ("a*c*e", "abcde"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("sda", "sdb"),
            ("mmcblk0", "mmcblk0p1"),
            ("vd*", "sda"),
            ("", "a"),
            ("a*c", "abcd"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
