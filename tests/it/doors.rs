//! A seeded sample of what the fuzz targets do at length: any bytes, and valid texts with a few bytes changed.

#[path = "../../fuzz/doors.rs"]
mod fuzz;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// What the doors expect, to start from: chance alone hardly gets past the first byte.
const VALID: &[&str] = &[
    "blake3;0000000000000000000000000000000000000000000000000000000000000000",
    "sha256-ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "ed25519;abababababababababababababababababababababababababababababababab",
    "documents/2024",
    "usb:sda1/refuge.raucb",
    "box:ed25519;abababababababababababababababababababababababababababababababab@https://10.0.0.7:8443",
    "https://example.org:8443/refuge.raucb?x=1",
    r#"{"format":1,"version":"0.2.0","compatible":"refuge-x","size_bytes":7,"blob":"blake3;0000000000000000000000000000000000000000000000000000000000000000","parts":[{"id":"blake3;0000000000000000000000000000000000000000000000000000000000000000","size_bytes":7}]}"#,
    "\0\0\0\0\0\x01\0\x01\0\0\0\0\x07_refuge\x04_tcp\x05local\0\0\x0c\0\x01\x01a\x05local\0\0\x01\0\x01\0\0\0\x78\0\x040000",
    "2024-02-29T23:59:59Z",
    r#"{"entries":[{"gid":0,"mode":420,"mtime":[0,0],"name":"a","parts":[],"size":0,"type":"file","uid":0}],"refuge":"tree","version":1}"#,
    r#"{"leaves":["blake3;0000000000000000000000000000000000000000000000000000000000000000"],"refuge":"tree","version":1}"#,
    r#"{"refuge":"commit","segments":[{"hole":4096},{"part":"blake3;0000000000000000000000000000000000000000000000000000000000000000","size":1}],"version":1,"xattrs":[]}"#,
];

#[test]
fn no_door_panics_or_lies() {
    for door in fuzz::ALL {
        // Seeded: a failure here is a failure everywhere.
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, b"the doors are tried in this way.");
        let config = Config {
            cases: door.cases,
            failure_persistence: None,
            ..Config::default()
        };
        let outcome = TestRunner::new_with_rng(config, rng).run(&input(), |data| {
            (door.open)(&data);
            Ok(())
        });
        assert_eq!(outcome, Ok(()), "{}", door.name);
    }
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    let changed = (
        prop::sample::select(VALID),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    );
    let changed = changed.prop_map(|(valid, changes)| {
        let mut bytes = valid.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..256), changed]
}
