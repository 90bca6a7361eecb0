//! Times as answers spell them.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

const FOR_PEOPLE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]");

/// RFC 3339 to the second, in UTC; the beginning of 1970 for what no calendar has.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0)
        .unwrap_or(time)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "1970-01-01T00:00:00Z".to_owned())
}

/// Date and time to the minute, in UTC.
pub(super) fn for_people(time: SystemTime) -> String {
    seconds_for_people(OffsetDateTime::from(time).unix_timestamp())
}

/// Date and time to the minute, in UTC, of seconds since 1970; a dash for what no calendar has.
pub(super) fn seconds_for_people(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(FOR_PEOPLE).ok())
        .unwrap_or_else(|| "–".to_owned())
}

/// A number of bytes as people read it.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let exponent = (bytes.ilog2() / 10).min(5);
    // Tenths, in whole numbers; 128 bits hold ten times any size.
    let tenths = (u128::from(bytes) * 10) >> (10 * exponent);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[exponent as usize - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn sizes_and_times_as_people_read_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 40, "1.0 TiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(rfc3339(time), "2023-11-14T22:13:20Z");
        assert_eq!(for_people(time), "2023-11-14 22:13");
    }
}
