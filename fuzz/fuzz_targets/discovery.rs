//! See `discovery` in `doors.rs`.
#![no_main]

#[path = "../doors.rs"]
#[allow(dead_code, reason = "a target opens one door of all")]
mod doors;

libfuzzer_sys::fuzz_target!(|data: &[u8]| doors::discovery(data));
