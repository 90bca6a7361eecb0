//! Names on the local network: `refuge-xxxxxx.local`, safe to show and to compare.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::NodeId;

/// A name on the local network, lower case: one label of letters, digits and hyphens, and `.local` (RFC 6762,
/// section 3). What another machine says of itself is only taken where it is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct HostName(Box<str>);

/// The text is no name on the local network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name on the local network has letters, digits and hyphens, and ends with .local")]
pub struct HostNameError;

const DOMAIN: &str = ".local";

/// The longest label there is (RFC 1035, section 2.3.4), in bytes.
const LABEL_BYTES_MAX: usize = 63;

impl HostName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = LABEL_BYTES_MAX + DOMAIN.len();

    /// The name of a node: its own, or, where somebody else on the network has that, the one after it with
    /// `attempt` (2 and up).
    pub fn of_node(node: &NodeId, attempt: Option<u32>) -> HostName {
        let short = node.short();
        HostName(match attempt {
            None => format!("refuge-{short}{DOMAIN}").into(),
            Some(attempt) => format!("refuge-{short}-{attempt}{DOMAIN}").into(),
        })
    }

    /// The name with `.local`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without `.local`.
    pub fn label(&self) -> &str {
        self.0.strip_suffix(DOMAIN).unwrap_or(&self.0)
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<HostName, HostNameError> {
        let text = text.to_ascii_lowercase();
        let label = text.strip_suffix(DOMAIN).ok_or(HostNameError)?;
        let is_plain = label
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let is_label = (1..=LABEL_BYTES_MAX).contains(&label.len())
            && is_plain
            && !label.starts_with('-')
            && !label.ends_with('-');
        is_label
            .then(|| HostName(text.into_boxed_str()))
            .ok_or(HostNameError)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_nothing_else_is_one() {
        let name: HostName = "Refuge-ABC234.local".parse().unwrap();
        assert_eq!(
            (name.as_str(), name.label()),
            ("refuge-abc234.local", "refuge-abc234")
        );
        let long = "a".repeat(64) + ".local";
        for bad in [
            "",
            ".local",
            "refuge",
            "-a.local",
            "a-.local",
            "a.b.local",
            "a b.local",
            "a\u{1b}.local",
            "<b>.local",
            &long,
        ] {
            assert_eq!(bad.parse::<HostName>(), Err(HostNameError), "{bad}");
        }
    }

    #[test]
    fn a_node_has_a_name_and_others_after_it() {
        let node = NodeId::from_bytes([7; 32]);
        let own = HostName::of_node(&node, None);
        assert_eq!(own.as_str().parse(), Ok(own.clone()));
        assert_eq!(
            HostName::of_node(&node, Some(2)).label(),
            format!("{}-2", own.label())
        );
    }
}
