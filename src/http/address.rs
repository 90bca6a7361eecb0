//! Which addresses a node may reach on somebody's word (security row S17). Pure.
//!
//! Who may ask a node to replicate, or to fetch an update, may have it send requests to wherever it can reach, also to what trusts it
//! for being near: the router, a metadata service, itself. So only addresses of the public internet are reached unless the owner listed
//! more. A list opens what it names, but for what is no one machine. Addresses that have others inside are judged by those as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use super::server::AddressPolicy;

/// The most ranges an owner lists.
pub const ALLOWED_MAX: usize = 64;

/// A range of addresses: `192.168.1.0/24`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first address, an IPv4 one mapped into IPv6.
    first: u128,
    /// Bits that all addresses of the range share, of 128.
    prefix: u32,
}

/// A text is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no range of addresses: write 192.168.1.0/24, fd00::/8 or one address")]
pub struct RangeError;

/// IPv4 that is not of the public internet (IANA, "IPv4 Special-Purpose Address Registry").
const FORBIDDEN_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // With the metadata services of clouds.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    // A metadata service that is at a public address.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
];

/// The public internet of IPv6; what is in it and is none of it.
const PUBLIC_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const FORBIDDEN_V6: [(Ipv6Addr, u32); 4] = [
    // Protocol assignments, with Teredo and ORCHID.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16),
];

impl Range {
    fn has(self, address: u128) -> bool {
        let free = 128 - self.prefix;
        // All bits are free in a range of everything.
        (address ^ self.first).checked_shr(free).unwrap_or(0) == 0
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Range, RangeError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| RangeError)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = match prefix {
            None => bits,
            Some(prefix) => prefix.parse().map_err(|_| RangeError)?,
        };
        match prefix <= bits {
            true => Ok(Range {
                first: number(address),
                prefix: prefix + 128 - bits,
            }),
            false => Err(RangeError),
        }
    }
}

/// The internet and what is listed; where what is sent can be read on its way, what is listed alone.
pub fn public_or_listed(allowed: Vec<Range>, is_encrypted: bool) -> AddressPolicy {
    match is_encrypted {
        true => Arc::new(move |address| is_allowed(&allowed, address)),
        false => Arc::new(move |address| is_listed(&allowed, address)),
    }
}

/// Machines of networks like the node's own, and what is listed: for where another node was seen. The node itself is not near.
pub fn near_or_listed(allowed: Vec<Range>) -> AddressPolicy {
    Arc::new(move |address| is_listed(&allowed, address) || is_near(address))
}

/// Whether the owner lists this address.
fn is_listed(allowed: &[Range], address: IpAddr) -> bool {
    let number = number(address);
    !is_no_machine(address) && allowed.iter().any(|range| range.has(number))
}

/// Whether a connection may be made to this address.
fn is_allowed(allowed: &[Range], address: IpAddr) -> bool {
    is_listed(allowed, address) || is_public(address)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !FORBIDDEN_V4.iter().any(|(first, prefix)| {
            within(
                number(IpAddr::V4(*first)),
                prefix + 96,
                number(IpAddr::V4(address)),
            )
        }),
        IpAddr::V6(address) => {
            let within =
                |(first, prefix): &(Ipv6Addr, u32)| within(u128::from(*first), *prefix, u128::from(address));
            // 6to4 has an IPv4 address inside. NAT64, mapped, compatible and translated ones are outside of what is public.
            let inside = (address.segments()[0] == 0x2002).then(|| {
                let [_, high, low, ..] = address.segments();
                Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
            });
            within(&PUBLIC_V6)
                && !FORBIDDEN_V6.iter().any(within)
                && inside.is_none_or(|inside| is_public(IpAddr::V4(inside)))
        }
    }
}

/// Private and link-local ones.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_private() || address.is_link_local() && !is_metadata(address),
        IpAddr::V6(address) => {
            address.is_unique_local() && address != METADATA_V6 || address.is_unicast_link_local()
        }
    }
}

/// Services of clouds that trust whoever asks for being near.
fn is_metadata(address: Ipv4Addr) -> bool {
    [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(169, 254, 170, 2)].contains(&address)
}

const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Unspecified, broadcast and multicast: no list opens those.
fn is_no_machine(address: IpAddr) -> bool {
    let is_broadcast = address.to_canonical() == IpAddr::V4(Ipv4Addr::BROADCAST);
    let address = address.to_canonical();
    address.is_unspecified() || address.is_multicast() || is_broadcast
}

fn within(first: u128, prefix: u32, address: u128) -> bool {
    Range { first, prefix }.has(address)
}

/// An address as a number of 128 bits; IPv4 and IPv4 mapped into IPv6 are one.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<Range> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_public_internet_is_reached() {
        for public in [
            "1.1.1.1",
            "9.9.9.9",
            "100.63.255.255",
            "172.32.0.1",
            "192.167.0.1",
            "2606:4700::1111",
            "2a01::1",
            "2002:101:101::1",
        ] {
            assert!(is_allowed(&[], ip(public)), "{public}");
        }
        for forbidden in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.0.1",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.251",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "100.100.100.200",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2001:20::1",
            "2002:7f00:1::1",
            "2002:a00:1::1",
            "2002:a9fe:a9fe::",
            "3fff::1",
            "3ffe::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "ff02::fb",
        ] {
            assert!(!is_allowed(&[], ip(forbidden)), "{forbidden}");
        }
    }

    #[test]
    fn near_is_the_local_network_and_not_the_node_itself() {
        let near = near_or_listed(ranges(&["127.0.0.1"]));
        for address in [
            "10.0.0.7",
            "192.168.1.2",
            "169.254.3.4",
            "fe80::1",
            "fd12::1",
            "127.0.0.1",
        ] {
            assert!(near(ip(address)), "{address}");
        }
        for address in [
            "1.1.1.1",
            "2a01::1",
            "127.0.0.2",
            "::1",
            "169.254.169.254",
            "fd00:ec2::254",
            "224.0.0.251",
            "::ffff:127.0.0.2",
            "0.0.0.0",
        ] {
            assert!(!near(ip(address)), "{address}");
        }
    }

    #[test]
    fn a_list_opens_what_it_names_and_no_more() {
        let allowed = ranges(&["192.168.1.0/24", "127.0.0.1", "fd00::/8"]);
        for listed in [
            "192.168.1.7",
            "::ffff:192.168.1.7",
            "127.0.0.1",
            "::ffff:127.0.0.1",
            "fd12::1",
        ] {
            assert!(
                is_listed(&allowed, ip(listed)) && is_allowed(&allowed, ip(listed)),
                "{listed}"
            );
        }
        for other in [
            "192.168.2.7",
            "127.0.0.2",
            "::1",
            "fc00::1",
            "64:ff9b::c0a8:107",
            "2002:c0a8:107::1",
        ] {
            assert!(!is_allowed(&allowed, ip(other)), "{other}");
        }
        assert!(!is_listed(&allowed, ip("1.1.1.1")) && is_allowed(&allowed, ip("1.1.1.1")));
        let all = ranges(&["0.0.0.0/0", "::/0"]);
        for never in [
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "::ffff:224.0.0.1",
            "::ffff:0.0.0.0",
        ] {
            assert!(!is_allowed(&all, ip(never)), "{never}");
        }
        assert!(is_allowed(&all, ip("10.0.0.1")) && is_allowed(&all, ip("fe80::1")));
        for wrong in [
            "",
            "a",
            "1.2.3.4/33",
            "::/129",
            "1.2.3/8",
            "1.2.3.4/",
            "1.2.3.4/-1",
            "/8",
        ] {
            assert_eq!(wrong.parse::<Range>(), Err(RangeError), "{wrong}");
        }
    }
}
