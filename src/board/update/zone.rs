//! The box's time zone: how far its clocks are from UTC at a moment, by a file of the time zone database (RFC 9636).
//!
//! Pure. A file of version 2 or later says at which moments the offset changed, in 64 bits, and then, as a rule, how it changes from
//! the last of these on: `CET-1CEST,M3.5.0,M10.5.0/3`. Both are read; what is no such file is UTC.

const MAGIC: &[u8] = b"TZif";
const HEADER_BYTES: usize = 44;
const DAY_S: i64 = 24 * 3600;

/// The largest file that is read, in bytes: those of the database have four thousand at most.
pub(super) const ZONE_BYTES_MAX: u64 = 64 * 1024;

/// Seconds since the local midnight before a moment, in seconds since 1970.
pub(super) fn day_s(file: &[u8], unix_s: i64) -> u32 {
    let local_s = unix_s.saturating_add(offset_s(file, unix_s).unwrap_or(0));
    u32::try_from(local_s.rem_euclid(DAY_S)).unwrap_or(0)
}

/// Seconds that the zone's clocks are ahead of UTC at a moment; `None` where the file does not say.
fn offset_s(file: &[u8], unix_s: i64) -> Option<i64> {
    let (first, rest) = Header::read(file)?;
    let rest = rest.get(first.block_bytes(4)?..)?;
    let (header, block) = Header::read(rest)?;
    let (times, rest) = block.split_at_checked(header.times.checked_mul(8)?)?;
    let (kinds, rest) = rest.split_at_checked(header.times)?;
    let last = times
        .chunks_exact(8)
        .last()
        .and_then(|time| time.try_into().ok())
        .map(i64::from_be_bytes);
    if last.is_none_or(|last| unix_s >= last)
        && let Some(ruled) =
            footer(block.get(header.block_bytes(8)?..)?).and_then(|rule| rule.offset_s(unix_s))
    {
        return Some(ruled);
    }
    let begun = times.chunks_exact(8).take_while(|time| {
        let time = time[..].try_into().map(i64::from_be_bytes);
        time.is_ok_and(|time| time <= unix_s)
    });
    // Before the first change it is the first kind.
    let kind = begun
        .count()
        .checked_sub(1)
        .map_or(Some(0), |at| kinds.get(at).copied())?;
    let record = rest.get(usize::from(kind) * 6..)?.first_chunk()?;
    Some(i64::from(i32::from_be_bytes(*record)))
}

/// What the text behind the last block says.
fn footer(after: &[u8]) -> Option<Rule> {
    let text = after.strip_prefix(b"\n")?;
    let end = text.iter().position(|byte| *byte == b'\n')?;
    Rule::parse(std::str::from_utf8(&text[..end]).ok()?)
}

/// How much there is of what.
struct Header {
    utc_marks: usize,
    standard_marks: usize,
    leaps: usize,
    times: usize,
    kinds: usize,
    letters: usize,
}

impl Header {
    /// The header, and what comes after it.
    fn read(bytes: &[u8]) -> Option<(Header, &[u8])> {
        let (head, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let is_new = head.starts_with(MAGIC) && head[4] >= b'2';
        let count = |at: usize| {
            let four = head.get(20 + 4 * at..)?.first_chunk()?;
            usize::try_from(u32::from_be_bytes(*four)).ok()
        };
        let header = Header {
            utc_marks: count(0)?,
            standard_marks: count(1)?,
            leaps: count(2)?,
            times: count(3)?,
            kinds: count(4)?,
            letters: count(5)?,
        };
        is_new.then_some((header, rest))
    }

    /// The length of the block, whose times have so many bytes.
    fn block_bytes(&self, time_bytes: usize) -> Option<usize> {
        let parts = [
            self.times.checked_mul(time_bytes + 1)?,
            self.kinds.checked_mul(6)?,
            self.letters,
            self.leaps.checked_mul(time_bytes + 4)?,
            self.standard_marks,
            self.utc_marks,
        ];
        parts.into_iter().try_fold(0_usize, usize::checked_add)
    }
}

/// A rule as POSIX writes them.
#[derive(Debug)]
struct Rule {
    standard_s: i64,
    summer: Option<Summer>,
}

#[derive(Debug)]
struct Summer {
    offset_s: i64,
    from: Change,
    to: Change,
}

/// The day of a year, and the seconds after its midnight, in the clock that ends then.
#[derive(Debug)]
struct Change {
    day: Day,
    second: i64,
}

#[derive(Debug)]
enum Day {
    /// 1 to 365; 29 February is never counted.
    Julian(i64),
    /// 0 to 365.
    Zero(i64),
    /// A month, its week (5 is its last), a day of the week from Sunday on.
    Weekly(u8, i64, i64),
}

impl Rule {
    fn parse(text: &str) -> Option<Rule> {
        let (west_s, rest) = offset(name(text)?)?;
        let standard_s = -west_s;
        if rest.is_empty() {
            return Some(Rule {
                standard_s,
                summer: None,
            });
        }
        let rest = name(rest)?;
        let (summer_s, rest) = match rest.starts_with(',') {
            true => (standard_s + 3600, rest),
            false => offset(rest).map(|(west_s, rest)| (-west_s, rest))?,
        };
        let (from, to) = rest.strip_prefix(',')?.split_once(',')?;
        Some(Rule {
            standard_s,
            summer: Some(Summer {
                offset_s: summer_s,
                from: Change::parse(from)?,
                to: Change::parse(to)?,
            }),
        })
    }

    fn offset_s(&self, unix_s: i64) -> Option<i64> {
        let Some(summer) = &self.summer else {
            return Some(self.standard_s);
        };
        let year = time::OffsetDateTime::from_unix_timestamp(unix_s.checked_add(self.standard_s)?)
            .ok()?
            .year();
        let from = summer.from.unix_s(year)? - self.standard_s;
        let to = summer.to.unix_s(year)? - summer.offset_s;
        // South of the equator it is summer at new year.
        let is_summer = match from <= to {
            true => (from..to).contains(&unix_s),
            false => !(to..from).contains(&unix_s),
        };
        Some(if is_summer {
            summer.offset_s
        } else {
            self.standard_s
        })
    }
}

impl Change {
    fn parse(text: &str) -> Option<Change> {
        let (day, second) = match text.split_once('/') {
            Some((day, time)) => {
                let (second, rest) = offset(time)?;
                (day, rest.is_empty().then_some(second)?)
            }
            None => (text, 2 * 3600),
        };
        let number = |text: &str, least: i64, most: i64| -> Option<i64> {
            let number = text.parse().ok()?;
            (least..=most).contains(&number).then_some(number)
        };
        let day = match day.strip_prefix('M') {
            Some(weekly) => {
                let mut parts = weekly.splitn(3, '.');
                let month = u8::try_from(number(parts.next()?, 1, 12)?).ok()?;
                Day::Weekly(month, number(parts.next()?, 1, 5)?, number(parts.next()?, 0, 6)?)
            }
            None => match day.strip_prefix('J') {
                Some(julian) => Day::Julian(number(julian, 1, 365)?),
                None => Day::Zero(number(day, 0, 365)?),
            },
        };
        Some(Change { day, second })
    }

    /// When that is in a year, as if its clocks were UTC.
    fn unix_s(&self, year: i32) -> Option<i64> {
        let first = time::Date::from_ordinal_date(year, 1).ok()?;
        let first_day = first.midnight().assume_utc().unix_timestamp() / DAY_S;
        let day = match self.day {
            Day::Zero(day) => first_day + day,
            Day::Julian(day) => first_day + day - 1 + i64::from(day >= 60 && time::util::is_leap_year(year)),
            Day::Weekly(month, week, weekday) => {
                let month = time::Month::try_from(month).ok()?;
                let begin = time::Date::from_calendar_date(year, month, 1).ok()?;
                let ahead = (weekday - i64::from(begin.weekday().number_days_from_sunday())).rem_euclid(7);
                let days = i64::from(month.length(year));
                let in_month = ahead + 7 * (week - 1);
                let in_month = if in_month < days { in_month } else { in_month - 7 };
                first_day + i64::from(begin.ordinal()) - 1 + in_month
            }
        };
        Some(day * DAY_S + self.second)
    }
}

/// What comes after the name of a clock: letters, or anything in angle brackets.
fn name(text: &str) -> Option<&str> {
    let end = match text.strip_prefix('<') {
        Some(quoted) => quoted.find('>')? + 2,
        None => text
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(text.len()),
    };
    (end >= 3).then(|| text.get(end..))?
}

/// Hours, and maybe minutes and seconds, in seconds; and what comes after them.
fn offset(text: &str) -> Option<(i64, &str)> {
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != ':')
        .unwrap_or(unsigned.len());
    let (digits, rest) = unsigned.split_at(end);
    let mut parts = digits.splitn(3, ':');
    let mut seconds = 0;
    for (scale, most) in [(3600, 167), (60, 59), (1, 59)] {
        match parts.next() {
            Some(part) => {
                let number: i64 = part.parse().ok().filter(|number| (0..=most).contains(number))?;
                seconds += number * scale;
            }
            None if scale == 3600 => return None,
            None => {}
        }
    }
    Some((sign * seconds, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file with these changes, each to one of the kinds, and a rule.
    fn file(changes: &[(i64, u8)], kinds: &[i32], rule: &str) -> Vec<u8> {
        let block = |is_wide: bool| {
            let mut bytes = [MAGIC, b"2", &[0; 15]].concat();
            let counts = [0, 0, 0, changes.len(), kinds.len(), 4];
            for count in counts {
                bytes.extend(u32::try_from(count).unwrap().to_be_bytes());
            }
            for (time, _) in changes {
                match is_wide {
                    true => bytes.extend(time.to_be_bytes()),
                    false => bytes.extend(0_i32.to_be_bytes()),
                }
            }
            bytes.extend(changes.iter().map(|(_, kind)| kind));
            for kind in kinds {
                bytes.extend(kind.to_be_bytes());
                bytes.extend([0, 0]);
            }
            bytes.extend(b"ABC\0");
            bytes
        };
        [block(false), block(true), format!("\n{rule}\n").into_bytes()].concat()
    }

    fn ruled(rule: &str, unix_s: i64) -> Option<i64> {
        offset_s(&file(&[], &[0], rule), unix_s).map(|offset_s| offset_s / 60)
    }

    // 2027: 28 March 01:00 UTC, 31 October 01:00 UTC.
    const SPRING_S: i64 = 1_806_195_600;
    const AUTUMN_S: i64 = 1_824_944_400;

    #[test]
    fn a_rule_says_when_the_clocks_change() {
        let berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
        for (at, minutes) in [
            (SPRING_S - 1, 60),
            (SPRING_S, 120),
            (AUTUMN_S - 1, 120),
            (AUTUMN_S, 60),
        ] {
            assert_eq!(ruled(berlin, at), Some(minutes), "{at}");
        }
        // Summer is at new year: 3 April 2027 16:00 UTC, 2 October 16:00 UTC.
        let sydney = "AEST-10AEDT,M10.1.0,M4.1.0/3";
        for (at, minutes) in [
            (1_806_768_000 - 1, 660),
            (1_806_768_000, 600),
            (1_822_492_800 - 1, 600),
            (1_822_492_800, 660),
        ] {
            assert_eq!(ruled(sydney, at), Some(minutes), "{at}");
        }
        for (rule, minutes) in [
            ("UTC0", 0),
            ("IST-5:30", 330),
            ("<+0545>-5:45", 345),
            ("<-03>3", -180),
            ("EST5EDT4,0/0,J365/25", -240),
        ] {
            assert_eq!(ruled(rule, SPRING_S), Some(minutes), "{rule}");
        }
    }

    #[test]
    fn changes_that_are_written_down_come_before_the_rule() {
        let zone = file(&[(1000, 1), (2000, 0), (3000, 2)], &[0, 3600, 7200], "<+03>-3");
        for (at, offset) in [
            (-5, 0),
            (1000, 3600),
            (1999, 3600),
            (2000, 0),
            (2999, 0),
            (3000, 10_800),
        ] {
            assert_eq!(offset_s(&zone, at), Some(offset), "{at}");
        }
        let without = file(&[(1000, 1)], &[0, 3600], "");
        assert_eq!(offset_s(&without, 5000), Some(3600));
        assert_eq!(day_s(&without, 23 * 3600 + 1800), 1800);
    }

    #[test]
    fn what_is_no_zone_is_utc() {
        let whole = file(&[(1000, 1)], &[0, 3600], "CET-1");
        for cut in 0..whole.len() {
            let _ = offset_s(&whole[..cut], 5000);
        }
        for none in [&b""[..], b"TZif", b"Europe/Berlin", &whole[..60]] {
            assert_eq!(day_s(none, 86_400 + 7), 7);
        }
    }

    #[test]
    fn the_zones_of_this_machine_are_read() {
        for (zone, minutes) in [
            ("Europe/Berlin", 120),
            ("America/New_York", -240),
            ("Asia/Kathmandu", 345),
        ] {
            let Ok(file) = std::fs::read(format!("/usr/share/zoneinfo/{zone}")) else {
                return;
            };
            assert_eq!(offset_s(&file, SPRING_S), Some(minutes * 60), "{zone}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), rule in "[A-Z<>+0-9:,./JM-]{0,40}", at in any::<i64>()) {
            let _ = day_s(&[&b"TZif2"[..], &bytes].concat(), at);
            let _ = day_s(&file(&[], &[0], &rule), at);
            let _ = Rule::parse(&rule).map(|rule| rule.offset_s(at));
        }
    }
}
