//! The file of a channel: which version there is for which kind of board, signed by whoever makes them.
//!
//! ```text
//! refuge-channel 1
//! ed25519;ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c 39b7183673b4d13e78ef2dbec01cd8c7402c6f820983e1638eedf4436c7178e39d3164724888d911dec15dd4130050d7c04f9eac0bedce7a208cacf95ce10f09
//! {"bundles":{"refuge-qemu-arm":{"blob":"blake3;af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262","size_bytes":36700160,"url":"refuge-0.2.0-qemu-arm.raucb","version":"0.2.0"}},"expires_s":1798761600,"serial":7}
//! ```
//!
//! | line | what |
//! |---|---|
//! | 1 | what it is, and its format |
//! | 2 | the key of whoever signed it, a space, and the signature: Ed25519 (RFC 8032), 128 hex digits, over line 1 with its end and all of line 3 |
//! | 3 | canonical JSON without an end of line: keys in ascending order, no white space, whole numbers. `expires_s` is in seconds since 1970. A `url` without a scheme is a path from the channel's own folder on |
//!
//! Pure. `serial` rises with each file, and a box believes none that is lower than one it has believed, nor a second one with the
//! same number; so nobody can show it an old one (rollback, replay). After `expires_s` it believes it no more; so nobody can go on
//! showing it the same one (freeze). One signature covers all: parts of two files are none. Security row S24. `scripts/channel`
//! makes it. Unknown fields are refused: whoever adds one raises the format, and goes on making the old file for old boxes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::id::{BlobId, BundleUrl, ChannelKey, Version};
use crate::node::{ChannelSeen, ChannelTrouble, Offer};

/// The largest file, in bytes: a board takes 200, and there are four.
pub(super) const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What it is, and the only format there has been.
const HEAD: &str = "refuge-channel 1\n";
const MAGIC: &str = "refuge-channel ";

const SIGNATURE_BYTES: usize = 64;

/// A channel that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChannelFile {
    said: Said,
    /// What must be kept before anything that it says is done.
    pub(super) seen: ChannelSeen,
}

/// What was signed. Fields in the order of their names, as canonical JSON has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    bundles: BTreeMap<String, Bundle>,
    expires_s: u64,
    serial: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    blob: BlobId,
    size_bytes: u64,
    url: String,
    version: Version,
}

impl ChannelFile {
    /// Reads a file that must be signed by `pinned`, no older than what was `seen`, and not expired at `now`.
    ///
    /// # Errors
    /// Why it is not believed; nothing that it says may be done then.
    pub(super) fn read(
        bytes: &[u8],
        pinned: ChannelKey,
        seen: Option<&ChannelSeen>,
        now: SystemTime,
    ) -> Result<ChannelFile, ChannelTrouble> {
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(ChannelTrouble::TooLarge {
                limit: FILE_BYTES_MAX,
            });
        }
        let signed = signed(bytes, pinned)?;
        let said = parse(signed)?;
        let file = ChannelFile {
            seen: ChannelSeen {
                key: pinned,
                serial: said.serial,
                digest: BlobId::of(signed.as_bytes()),
            },
            said,
        };
        file.is_newest(seen.filter(|seen| seen.key == pinned))?;
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        match since.as_secs() < file.said.expires_s {
            true => Ok(file),
            false => Err(ChannelTrouble::Expired),
        }
    }

    fn is_newest(&self, seen: Option<&ChannelSeen>) -> Result<(), ChannelTrouble> {
        let serial = self.said.serial;
        match seen {
            Some(seen) if serial < seen.serial => Err(ChannelTrouble::Older {
                serial,
                seen: seen.serial,
            }),
            Some(seen) if serial == seen.serial && self.seen.digest != seen.digest => {
                Err(ChannelTrouble::Twin { serial })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What it has for boards that are `compatible`, where the file is at `url`.
    ///
    /// # Errors
    /// [`ChannelTrouble::OtherBoard`]; [`ChannelTrouble::Format`] for a URL that is none.
    pub(super) fn offer(&self, compatible: &str, url: &BundleUrl) -> Result<Offer, ChannelTrouble> {
        let bundle = self.said.bundles.get(compatible);
        let bundle = bundle.ok_or_else(|| ChannelTrouble::OtherBoard {
            own: compatible.to_owned(),
        })?;
        Ok(Offer {
            version: bundle.version.clone(),
            url: beside(url, &bundle.url).ok_or_else(|| format("the URL of its bundle is none"))?,
            size_bytes: bundle.size_bytes,
            blob: bundle.blob,
        })
    }
}

fn format(reason: &str) -> ChannelTrouble {
    ChannelTrouble::Format {
        reason: reason.to_owned(),
    }
}

/// What the pinned key has signed of a file: its third line.
fn signed(bytes: &[u8], pinned: ChannelKey) -> Result<&str, ChannelTrouble> {
    let text = std::str::from_utf8(bytes).map_err(|_| format("it is no text"))?;
    let rest = text
        .strip_prefix(HEAD)
        .ok_or_else(|| match text.starts_with(MAGIC) {
            true => format("its format is newer: update the box by hand"),
            false => format("it does not begin as one"),
        })?;
    let (line, signed) = rest.split_once('\n').ok_or_else(|| format("it ends early"))?;
    let (key, hex) = line
        .split_once(' ')
        .ok_or_else(|| format("its second line is no signature"))?;
    if key != pinned.to_string() {
        return Err(match key.parse::<ChannelKey>() {
            Ok(found) => ChannelTrouble::OtherKey { found, pinned },
            Err(_) => format("its second line names no key"),
        });
    }
    let mut signature = [0; SIGNATURE_BYTES];
    let is_hex =
        hex.len() == 2 * SIGNATURE_BYTES && HEXLOWER.decode_mut(hex.as_bytes(), &mut signature).is_ok();
    match is_hex && pinned.has_signed(&[HEAD, signed].concat().into_bytes(), &signature) {
        true => Ok(signed),
        false => Err(ChannelTrouble::Signature),
    }
}

/// What was signed is canonical, or it would mean other things to other readers.
fn parse(signed: &str) -> Result<Said, ChannelTrouble> {
    let said: Said = serde_json::from_str(signed).map_err(|error| format(&error.to_string()))?;
    match serde_json::to_string(&said) {
        Ok(canonical) if canonical == signed => Ok(said),
        Ok(_) | Err(_) => Err(format("its JSON is not canonical")),
    }
}

/// What `reference` means in the file at `url`: itself where it is a URL, else a path from the file's folder on that never leads out
/// of it.
fn beside(url: &BundleUrl, reference: &str) -> Option<BundleUrl> {
    if reference.contains("://") {
        return reference.parse().ok();
    }
    let is_plain = |part: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._~+-".contains(&b);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(fits)
    };
    let is_inside = reference.split('/').all(is_plain);
    is_inside.then(|| url.join(reference))?
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    use crate::node::Clock;

    /// As drawn in the module's documentation.
    const EXAMPLE: &str = concat!(
        "refuge-channel 1\n",
        "ed25519;ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c ",
        "39b7183673b4d13e78ef2dbec01cd8c7402c6f820983e1638eedf4436c7178e3",
        "9d3164724888d911dec15dd4130050d7c04f9eac0bedce7a208cacf95ce10f09\n",
        r#"{"bundles":{"refuge-qemu-arm":{"blob":"blake3;af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262","#,
        r#""size_bytes":36700160,"url":"refuge-0.2.0-qemu-arm.raucb","version":"0.2.0"}},"expires_s":1798761600,"serial":7}"#,
    );
    const BOARD: &str = "refuge-qemu-arm";

    fn signing(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    /// Whose signature the channels of tests have.
    pub(in crate::board::update) fn pinned() -> ChannelKey {
        key_of(&signing(7))
    }

    fn key_of(signing: &SigningKey) -> ChannelKey {
        let hex = HEXLOWER.encode(signing.verifying_key().as_bytes());
        format!("ed25519;{hex}").parse().unwrap()
    }

    fn sign(signing: &SigningKey, said: &str) -> String {
        let signature = signing.sign(format!("{HEAD}{said}").as_bytes());
        format!(
            "{HEAD}{} {}\n{said}",
            key_of(signing),
            HEXLOWER.encode(&signature.to_bytes())
        )
    }

    fn said(serial: u64, version: &str, url: &str) -> String {
        let blob = BlobId::of(version.as_bytes());
        format!(
            r#"{{"bundles":{{"{BOARD}":{{"blob":"{blob}","size_bytes":9,"url":"{url}","version":"{version}"}}}},"expires_s":1798761600,"serial":{serial}}}"#
        )
    }

    fn good(serial: u64, version: &str) -> String {
        sign(&signing(7), &said(serial, version, "b.raucb"))
    }

    /// A channel that has this bundle, beside it as `b.raucb`; it expires when [`BEFORE_S`] is over.
    pub(in crate::board::update) fn offering(serial: u64, version: &str, bundle: &[u8]) -> String {
        let (blob, size_bytes) = (BlobId::of(bundle), bundle.len());
        let said = format!(
            r#"{{"bundles":{{"{BOARD}":{{"blob":"{blob}","size_bytes":{size_bytes},"url":"b.raucb","version":"{version}"}}}},"expires_s":1798761600,"serial":{serial}}}"#
        );
        sign(&signing(7), &said)
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    pub(in crate::board::update) const BEFORE_S: u64 = 1_798_761_599;

    fn read(text: &str, seen: Option<&ChannelSeen>) -> Result<ChannelFile, ChannelTrouble> {
        ChannelFile::read(text.as_bytes(), pinned(), seen, at(BEFORE_S))
    }

    fn url() -> BundleUrl {
        "https://updates.example.org/refuge/channel".parse().unwrap()
    }

    fn is_format(trouble: &ChannelTrouble) -> bool {
        matches!(trouble, ChannelTrouble::Format { .. })
    }

    #[test]
    fn the_example_is_read_and_is_what_signing_makes() {
        let file = read(EXAMPLE, None).unwrap();
        let offer = file.offer(BOARD, &url()).unwrap();
        assert_eq!(offer.version.as_str(), "0.2.0");
        assert_eq!((offer.size_bytes, offer.blob), (36_700_160, BlobId::of(b"")));
        assert_eq!(
            offer.url.as_str(),
            "https://updates.example.org/refuge/refuge-0.2.0-qemu-arm.raucb"
        );
        assert_eq!((file.seen.serial, file.seen.key), (7, pinned()));
        let said = EXAMPLE.splitn(3, '\n').nth(2).unwrap();
        assert_eq!(sign(&signing(7), said), EXAMPLE);
    }

    #[test]
    fn s24_a_changed_file_and_one_of_another_key_are_refused() {
        let text = good(7, "0.2.0");
        let changed = text.replace("\"0.2.0\"", "\"0.3.0\"");
        assert_eq!(read(&changed, None), Err(ChannelTrouble::Signature));
        let longer = text.replace("\"serial\":7", "\"serial\":8");
        assert_eq!(read(&longer, None), Err(ChannelTrouble::Signature));
        assert_eq!(read(&format!("{text}\n"), None), Err(ChannelTrouble::Signature));
        let other = sign(&signing(8), &said(7, "0.2.0", "b.raucb"));
        let found = key_of(&signing(8));
        assert_eq!(
            read(&other, None),
            Err(ChannelTrouble::OtherKey {
                found,
                pinned: pinned()
            })
        );
        // Signed by another, with the name of ours.
        let posing = other.replace(&key_of(&signing(8)).to_string(), &pinned().to_string());
        assert_eq!(read(&posing, None), Err(ChannelTrouble::Signature));
        // Signed for something else.
        let signature = signing(7).sign(said(7, "0.2.0", "b.raucb").as_bytes());
        let bare = format!(
            "{HEAD}{} {}\n{}",
            pinned(),
            HEXLOWER.encode(&signature.to_bytes()),
            said(7, "0.2.0", "b.raucb")
        );
        assert_eq!(read(&bare, None), Err(ChannelTrouble::Signature));
    }

    #[test]
    fn s24_parts_of_two_files_are_none() {
        let (one, two) = (good(7, "0.2.0"), good(8, "0.3.0"));
        let (one, two): (Vec<_>, Vec<_>) = (one.split('\n').collect(), two.split('\n').collect());
        let mixed = [one[0], one[1], two[2]].join("\n");
        assert_eq!(read(&mixed, None), Err(ChannelTrouble::Signature));
    }

    #[test]
    fn s24_a_file_that_is_older_than_one_that_was_seen_is_refused() {
        let newest = read(&good(7, "0.2.0"), None).unwrap().seen;
        assert_eq!(
            read(&good(6, "0.3.0"), Some(&newest)),
            Err(ChannelTrouble::Older { serial: 6, seen: 7 })
        );
        assert_eq!(
            read(&good(7, "0.3.0"), Some(&newest)),
            Err(ChannelTrouble::Twin { serial: 7 })
        );
        assert_eq!(read(&good(7, "0.2.0"), Some(&newest)).unwrap().seen, newest);
        assert_eq!(read(&good(8, "0.2.0"), Some(&newest)).unwrap().seen.serial, 8);
        // Whoever pins another key begins anew.
        let of_other = ChannelSeen {
            key: key_of(&signing(8)),
            ..newest
        };
        assert!(read(&good(1, "0.2.0"), Some(&of_other)).is_ok());
    }

    #[test]
    fn s24_what_has_expired_is_refused_also_by_a_clock_without_a_battery() {
        let text = good(7, "0.2.0");
        let read_at = |now| ChannelFile::read(text.as_bytes(), pinned(), None, now);
        assert!(read_at(at(BEFORE_S)).is_ok());
        assert_eq!(read_at(at(BEFORE_S + 1)), Err(ChannelTrouble::Expired));
        let in_1970 = Clock::from_fn(|| UNIX_EPOCH).not_before(at(BEFORE_S + 1));
        assert_eq!(read_at(in_1970.now()), Err(ChannelTrouble::Expired));
    }

    #[test]
    fn s24_another_format_other_text_and_too_much_of_it_are_refused() {
        let text = good(7, "0.2.0");
        for other in [
            text.replace("channel 1", "channel 2"),
            text.replace("channel 1", "channel 1 "),
            text.replace('\n', "\r\n"),
            text.replace("refuge-channel", "refuge-state"),
            text.replace("ed25519;", "rsa;"),
            text.lines().next().unwrap().to_owned(),
            text.lines().take(2).collect::<Vec<_>>().join("\n"),
            "<!DOCTYPE html>".to_owned(),
            String::new(),
        ] {
            let trouble = read(&other, None).unwrap_err();
            assert!(is_format(&trouble), "{other}: {trouble}");
        }
        let huge = sign(&signing(7), &" ".repeat(70_000));
        assert_eq!(
            read(&huge, None),
            Err(ChannelTrouble::TooLarge {
                limit: FILE_BYTES_MAX
            })
        );
    }

    #[test]
    fn what_is_signed_and_has_two_meanings_is_refused() {
        let plain = said(7, "0.2.0", "b.raucb");
        for odd in [
            plain.replace("\"serial\":7", "\"serial\": 7"),
            plain.replace("\"serial\":7", "\"serial\":7,\"serial\":8"),
            plain.replace("\"serial\":7", "\"serial\":7,\"more\":1"),
            plain.replace("\"serial\":7", "\"serial\":7.0"),
            plain.replace("\"serial\":7", "\"serial\":-7"),
            plain.replace("b.raucb", "b\\u002eraucb"),
            plain.replace("{\"bundles\"", "{\"serial\":7,\"bundles\""),
            plain.replace("0.2.0\"", "0.2\""),
            "{}".to_owned(),
        ] {
            let trouble = read(&sign(&signing(7), &odd), None).unwrap_err();
            assert!(is_format(&trouble), "{odd}: {trouble}");
        }
    }

    #[test]
    fn s24_a_channel_without_this_board_offers_nothing() {
        let file = read(&good(7, "0.2.0"), None).unwrap();
        assert_eq!(
            file.offer("refuge-beaglebone", &url()),
            Err(ChannelTrouble::OtherBoard {
                own: "refuge-beaglebone".to_owned()
            })
        );
    }

    #[test]
    fn a_bundle_is_beside_its_channel_or_where_a_url_says() {
        let joined = |reference: &str| beside(&url(), reference).map(|url| url.as_str().to_owned());
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(
            joined("b.raucb"),
            is("https://updates.example.org/refuge/b.raucb")
        );
        assert_eq!(
            joined("1.0/b.raucb"),
            is("https://updates.example.org/refuge/1.0/b.raucb")
        );
        assert_eq!(
            joined("https://c.example/b.raucb"),
            is("https://c.example/b.raucb")
        );
        for bad in [
            "",
            "../b",
            "a/../b",
            "/b",
            "//c/b",
            "./b",
            "b?x",
            "b#x",
            "b%2e",
            "ftp://c/b",
            "b\\c",
        ] {
            assert_eq!(joined(bad), None, "{bad}");
        }
        let file = read(&sign(&signing(7), &said(7, "0.2.0", "../b.raucb")), None).unwrap();
        assert!(is_format(&file.offer(BOARD, &url()).unwrap_err()));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), at_byte in 0usize..700, bit in 0u8..8, reference in "[ -~☂]{0,30}") {
            let _ = ChannelFile::read(&bytes, pinned(), None, at(BEFORE_S));
            let _ = beside(&url(), &reference);
            // No file that differs from a signed one is believed.
            let mut changed = EXAMPLE.as_bytes().to_vec();
            if let Some(byte) = changed.get_mut(at_byte) {
                *byte ^= 1 << bit;
                prop_assert!(ChannelFile::read(&changed, pinned(), None, at(BEFORE_S)).is_err());
            }
        }
    }
}
