//! The `refuge` binary.
fn main() {}
