//! A bundle from a disk of others: only files at its top, and nothing is written to it. Needs root; skipped with a word elsewhere.

use std::fs;
use std::os::unix::fs::symlink;

use refuge::node::{Done, Order, UpdateTrouble};

use super::{TestBox, bundle, noise};
use crate::disks::Usb;

/// A disk with a bundle, and with what only looks like one.
fn fill(usb: &Usb, file: &[u8], has_links: bool) {
    usb.mounted(|at| {
        fs::write(at.join("refuge-x-0.2.0.raucb"), file).unwrap();
        fs::write(at.join("notes.txt"), b"notes").unwrap();
        fs::create_dir(at.join("folder")).unwrap();
        fs::write(at.join("folder/deep.raucb"), file).unwrap();
        if has_links {
            symlink("/etc/shadow", at.join("link.raucb")).unwrap();
        }
    });
}

fn installs_and_writes_nothing(format: impl FnOnce(&Usb), has_links: bool) {
    let Some(usb) = Usb::new_or_skip() else { return };
    let file = bundle("0.2.0", &noise(2_000_000, 1));
    format(&usb);
    fill(&usb, &file, has_links);
    let before = usb.bytes();
    let one = TestBox::new("0.1.0");
    usb.plug(&one.at(""), "sdb", 1);
    let Done::Bundles(found) = one.ask(Order::Check).unwrap() else {
        panic!("bundles are listed");
    };
    let texts: Vec<String> = found.iter().map(|found| found.source.to_string()).collect();
    assert_eq!(texts, ["usb:sdb/refuge-x-0.2.0.raucb"]);
    assert_eq!(found[0].size_bytes, file.len() as u64);
    for other in ["usb:link.raucb", "usb:deep.raucb", "usb:sdc/refuge-x-0.2.0.raucb"] {
        assert!(one.begin(&other.parse().unwrap()).is_err(), "{other}");
    }
    assert_eq!(
        one.install(&"usb:refuge-x-0.2.0.raucb".parse().unwrap()).unwrap(),
        file
    );
    assert!(usb.bytes() == before, "something was written to the disk");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(one.at("stick").to_str().unwrap()),
        "it stays mounted"
    );
}

#[test]
fn a_bundle_on_a_stick_as_shops_sell_it_is_installed() {
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    if !known.lines().any(|line| line.trim() == "vfat") {
        // tests/box/update.py reads one in the box, whose kernel does.
        return eprintln!("skipped: this kernel knows no FAT");
    }
    installs_and_writes_nothing(|usb| usb.format_fat("STICK"), false);
}

#[test]
fn s14_a_disk_with_links_is_read_and_its_links_are_not() {
    installs_and_writes_nothing(|usb| usb.format("photos"), true);
}

#[test]
fn a_disk_that_is_no_file_system_and_one_that_is_gone_have_no_bundles() {
    let Some(usb) = Usb::new_or_skip() else { return };
    let one = TestBox::new("0.1.0");
    usb.plug(&one.at(""), "sdb", 1);
    assert_eq!(one.ask(Order::Check).unwrap(), Done::Bundles(Vec::new()));
    let refused = one.install(&"usb:a.raucb".parse().unwrap()).unwrap_err();
    assert!(matches!(refused, UpdateTrouble::Away { .. }), "{refused}");
}
