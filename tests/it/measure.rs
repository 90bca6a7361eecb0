//! What a process used, as the kernel counts it: memory and processor time, neither of which other processes change much.

use std::time::Duration;

/// A line of `/proc/<pid>/status` that is a number of KiB: `VmRSS` (now), `VmHWM` (the most so far).
///
/// # Panics
/// When there is no such process or line.
pub(crate) fn memory_kib(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let found = status.lines().find(|found| found.starts_with(line));
    let kib = found.expect("the line").split_whitespace().nth(1);
    kib.and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Begins the measurement of the most memory anew (proc(5), `clear_refs`).
///
/// # Panics
/// When the kernel does not allow it.
pub(crate) fn reset_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the kernel allows it");
}

/// Processor time that all threads of a process used so far (proc(5), `stat`, fields 14 and 15).
///
/// # Panics
/// When there is no such process.
pub(crate) fn processor_time(pid: u32) -> Duration {
    /// Linux counts in hundredths of a second towards programs, whatever it does inside (`USER_HZ`).
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a stat");
    // The name of the program, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u32 = ticks.map(|ticks| ticks.parse::<u32>().expect("a number")).sum();
    TICK * ticks
}
