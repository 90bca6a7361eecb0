//! Versions of the system on a box, which have an order: an update goes up in it.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::name::text_newtype;

/// A version: three numbers and maybe what makes it less than those, as `1.2.3` and `1.2.3-rc.1` (Semantic Versioning 2.0.0, without
/// build metadata). At most 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(String);

/// The text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a version is three numbers, for example 1.2.3, or 1.2.3-rc.1")]
pub struct VersionError;

const BYTES_MAX: usize = 64;

impl Version {
    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The numbers, and what stands after them.
    fn parts(&self) -> (&str, Option<&str>) {
        match self.0.split_once('-') {
            Some((numbers, pre)) => (numbers, Some(pre)),
            None => (&self.0, None),
        }
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Version, VersionError> {
        let version = Version(text.to_owned());
        let (numbers, pre) = version.parts();
        let is_right = text.len() <= BYTES_MAX
            && numbers.split('.').count() == 3
            && numbers.split('.').all(is_number)
            && pre.is_none_or(|pre| pre.split('.').all(is_identifier));
        if is_right { Ok(version) } else { Err(VersionError) }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        let ((numbers, pre), (other_numbers, other_pre)) = (self.parts(), other.parts());
        compare_all(numbers, other_numbers).then_with(|| match (pre, other_pre) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(pre), Some(other)) => compare_all(pre, other),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Part by part; more parts are more.
fn compare_all(one: &str, other: &str) -> Ordering {
    let (mut ones, mut others) = (one.split('.'), other.split('.'));
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(one), Some(other)) => match compare(one, other) {
                Ordering::Equal => {}
                different => return different,
            },
        }
    }
}

/// Numbers by what they are worth, before words by their letters (Semantic Versioning 2.0.0, 11.4).
fn compare(one: &str, other: &str) -> Ordering {
    match (is_number(one), is_number(other)) {
        // Without leading zeros the longer one is larger.
        (true, true) => one.len().cmp(&other.len()).then_with(|| one.cmp(other)),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => one.cmp(other),
    }
}

fn is_number(part: &str) -> bool {
    let has_leading_zero = part.len() > 1 && part.starts_with('0');
    !part.is_empty() && !has_leading_zero && part.bytes().all(|b| b.is_ascii_digit())
}

fn is_identifier(part: &str) -> bool {
    let is_plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_digits = part.bytes().all(|b| b.is_ascii_digit());
    !part.is_empty() && is_plain && (!is_digits || is_number(part))
}

text_newtype!(Version);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_in_the_order_of_the_specification() {
        let rising = [
            "0.1.0",
            "0.9.9",
            "0.10.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "10.0.0",
            "99999999999999999999.0.0",
        ];
        for pair in rising.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("1.2.3").cmp(&version("1.2.3")), Ordering::Equal);
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for bad in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.x",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3-a..b",
            "1.2.3+build",
            " 1.2.3",
            "1.2.3\n",
            "-1.2.3",
            &format!("1.2.3-{}", "a".repeat(BYTES_MAX)),
        ] {
            assert_eq!(bad.parse::<Version>(), Err(VersionError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_the_order_is_one(one in "[0-9a-z.-]{0,12}", other in "[0-9.]{1,12}(-[0-9a-z.]{1,6})?") {
            if let (Ok(one), Ok(other)) = (one.parse::<Version>(), other.parse::<Version>()) {
                prop_assert_eq!(one.cmp(&other), other.cmp(&one).reverse());
            }
        }
    }
}
