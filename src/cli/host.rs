//! The name of this machine, as snapshots and tokens show it.

/// The kernel's host name; `localhost` where it can't be read.
pub(super) fn name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}
