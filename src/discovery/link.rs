//! The links of this machine: interfaces that reach neighbours, and which addresses are on them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;

/// Interfaces that are used; the kernel lets a socket into 20 groups (`igmp_max_memberships`).
const LINKS_MAX: usize = 16;

/// Addresses of one family on one interface that are told to others.
const ADDRESSES_MAX: usize = 4;

/// The TTL and hop limit that everything is sent with. What arrives with less has crossed a router, or was sent by
/// something that does not keep to the protocol.
pub(super) const HOPS: u8 = 255;

/// An interface that reaches neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// As the system counts interfaces.
    pub(super) index: u32,
    /// Addresses and the masks of their networks.
    pub(super) v4: Vec<(Ipv4Addr, Ipv4Addr)>,
    pub(super) v6: Vec<(Ipv6Addr, Ipv6Addr)>,
}

/// Where a packet came from, as far as the system vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// Who sent it, or says so.
    pub(super) source: SocketAddr,
    /// The interface it came in by.
    pub(super) link: u32,
    /// Its TTL or hop limit on arrival.
    pub(super) hops: u8,
    /// Whether the source is an address of that interface's own network.
    pub(super) is_neighbour: bool,
    /// Whether it was sent to a group that no router passes on (224.0.0.0/24, ff02::/16).
    pub(super) is_to_link: bool,
}

impl Origin {
    /// Whether it was sent by a machine on the same link.
    pub(super) fn is_on_link(&self) -> bool {
        self.hops == HOPS && self.is_neighbour
    }

    /// Whether it may be a question of a neighbour: some ask with another hop limit (Windows, with 1), to the group of
    /// the link, which is the same proof. Good for what is answered to that group alone.
    pub(super) fn may_ask(&self) -> bool {
        self.is_on_link() || (self.is_neighbour && self.is_to_link)
    }
}

impl Link {
    /// What others may be told of.
    pub(super) fn v4_addresses(&self) -> Vec<Ipv4Addr> {
        self.v4
            .iter()
            .take(ADDRESSES_MAX)
            .map(|(address, _)| *address)
            .collect()
    }

    /// What others may be told of.
    pub(super) fn v6_addresses(&self) -> Vec<Ipv6Addr> {
        self.v6
            .iter()
            .take(ADDRESSES_MAX)
            .map(|(address, _)| *address)
            .collect()
    }

    /// Whether an address belongs to the networks of this link.
    pub(super) fn has_neighbour(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.iter().any(|(own, mask)| own & mask == address & mask),
            IpAddr::V6(address) => {
                address.is_unicast_link_local()
                    || self.v6.iter().any(|(own, mask)| own & mask == address & mask)
            }
        }
    }

    /// Whether it is of any use: something is sent from an address.
    fn has_address(&self) -> bool {
        !self.v4.is_empty() || !self.v6.is_empty()
    }
}

/// The links there are at this moment, and the same in the same order while nothing changes: those that are up,
/// take multicast and are not loopback. With `only`, those that have this address.
pub(super) fn links(only: Option<IpAddr>) -> io::Result<Vec<Link>> {
    let mut links: BTreeMap<u32, Link> = BTreeMap::new();
    for address in getifaddrs()? {
        if !reaches_neighbours(address.flags) {
            continue;
        }
        // One that is gone already has no index any more.
        let Ok(index) = if_nametoindex(address.interface_name.as_str()) else {
            continue;
        };
        let link = links.entry(index).or_insert_with(|| Link {
            index,
            v4: Vec::new(),
            v6: Vec::new(),
        });
        note(link, &address);
    }
    let mut links: Vec<Link> = links.into_values().collect();
    links.retain(|link| link.has_address() && only.is_none_or(|only| link.has(only)));
    links.truncate(LINKS_MAX);
    Ok(links)
}

impl Link {
    fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.iter().any(|(own, _)| *own == address),
            IpAddr::V6(address) => self.v6.iter().any(|(own, _)| *own == address),
        }
    }
}

fn reaches_neighbours(flags: InterfaceFlags) -> bool {
    flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING | InterfaceFlags::IFF_MULTICAST)
        && !flags.intersects(InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_POINTOPOINT)
}

fn note(link: &mut Link, found: &InterfaceAddress) {
    let (Some(address), Some(mask)) = (found.address, found.netmask) else {
        return;
    };
    match (ip(&address), ip(&mask)) {
        (Some(IpAddr::V4(address)), Some(IpAddr::V4(mask))) => link.v4.push((address, mask)),
        (Some(IpAddr::V6(address)), Some(IpAddr::V6(mask))) => link.v6.push((address, mask)),
        _ => {}
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_told_from_the_rest_of_the_world() {
        let link = Link {
            index: 1,
            v4: vec![("192.0.2.10".parse().unwrap(), "255.255.255.0".parse().unwrap())],
            v6: vec![(
                "2001:db8::10".parse().unwrap(),
                "ffff:ffff:ffff:ffff::".parse().unwrap(),
            )],
        };
        let near = |text: &str| link.has_neighbour(text.parse().unwrap());
        assert!(near("192.0.2.200") && near("2001:db8::1") && near("fe80::1"));
        assert!(!near("192.0.3.1") && !near("2001:db8:1::1") && !near("127.0.0.1") && !near("::1"));
    }

    #[test]
    fn loopback_is_no_link() {
        let all = links(None).unwrap();
        assert!(all.iter().all(|link| link.has_address()));
        assert_eq!(links(Some(Ipv4Addr::LOCALHOST.into())).unwrap(), []);
        assert_eq!(links(None).unwrap(), all);
    }
}
