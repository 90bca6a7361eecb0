//! The sockets of discovery: each knows by which link a packet came, how far it came, and sends by the link it is told.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use std::task::Poll;
use std::time::Duration;

use nix::cmsg_space;
use nix::libc::{c_int, in_addr, in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg,
    sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::link::{HOPS, Link, Origin};

/// Packets read from one socket within [`WINDOW`]. A flood of more is left to the kernel, which drops it for next to
/// nothing: 10,000 packets a second must not cost a small board its processor.
const PACKETS: u32 = 32;
const WINDOW: Duration = Duration::from_millis(100);

/// What the kernel keeps of one socket's packets, in bytes.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Everything of multicast DNS.
    Mdns,
    /// Queries of the beacon, and the answers to them.
    Answer,
    /// Own queries of the beacon.
    Ask,
}

/// A socket.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) family: Family,
    pub(super) role: Role,
    socket: UdpSocket,
    left: u32,
    /// When [`PACKETS`] may be read again.
    window_ends: Duration,
}

impl Port {
    /// Binds a socket to every address of its family, beside others that do so on this machine. Port 0 picks one.
    ///
    /// # Errors
    /// As the system says, for example where it has no such family, or somebody has the port to themselves.
    pub(super) fn bind(family: Family, role: Role, port: u16) -> io::Result<Port> {
        let (domain, address): (_, SocketAddr) = match family {
            Family::V4 => (Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into()),
            Family::V6 => (Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()),
        };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        let hops = u32::from(HOPS);
        match family {
            Family::V4 => {
                socket.set_ttl_v4(hops)?;
                socket.set_multicast_ttl_v4(hops)?;
                socket.set_broadcast(true)?;
                setsockopt(&socket.as_fd(), sockopt::Ipv4PacketInfo, &true)?;
                setsockopt(&socket.as_fd(), sockopt::Ipv4RecvTtl, &true)?;
            }
            Family::V6 => {
                socket.set_only_v6(true)?;
                socket.set_unicast_hops_v6(hops)?;
                socket.set_multicast_hops_v6(hops)?;
                setsockopt(&socket.as_fd(), sockopt::Ipv6RecvPacketInfo, &true)?;
                setsockopt(&socket.as_fd(), sockopt::Ipv6RecvHopLimit, &true)?;
            }
        }
        if port != 0 {
            // A responder of the system, or another node, may listen there as well.
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        Ok(Port {
            family,
            role,
            socket: UdpSocket::from_std(socket.into())?,
            left: PACKETS,
            window_ends: Duration::ZERO,
        })
    }

    /// Takes part in a group on a link; once is enough, more does no harm.
    pub(super) fn join(&self, group: IpAddr, link: &Link) {
        let socket = socket2::SockRef::from(&self.socket);
        let joined = match group {
            IpAddr::V4(_) if link.v4.is_empty() => return,
            IpAddr::V6(_) if link.v6.is_empty() => return,
            IpAddr::V4(group) => {
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(link.index))
            }
            IpAddr::V6(group) => socket.join_multicast_v6(&group, link.index),
        };
        match joined {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                tracing::debug!(link = link.index, %group, %error, "this link has no multicast");
            }
            _ => {}
        }
    }

    /// Sends by a link. What the system has no room for is lost, as any packet may be.
    pub(super) fn send(&self, bytes: &[u8], to: SocketAddr, link: u32) {
        let sent = self
            .socket
            .try_io(Interest::WRITABLE, || self.send_now(bytes, to, link));
        if let Err(error) = sent {
            tracing::debug!(link, %to, %error, "a packet could not be sent");
        }
    }

    fn send_now(&self, bytes: &[u8], to: SocketAddr, link: u32) -> io::Result<()> {
        let (fd, parts) = (self.socket.as_raw_fd(), [IoSlice::new(bytes)]);
        match to {
            SocketAddr::V4(to) => {
                let by = in_pktinfo {
                    ipi_ifindex: c_int::try_from(link).map_err(io::Error::other)?,
                    ipi_spec_dst: in_addr { s_addr: 0 },
                    ipi_addr: in_addr { s_addr: 0 },
                };
                let by = [ControlMessage::Ipv4PacketInfo(&by)];
                sendmsg(fd, &parts, &by, MsgFlags::empty(), Some(&SockaddrIn::from(to)))?;
            }
            SocketAddr::V6(mut to) => {
                if to.ip().is_unicast_link_local() || to.ip().is_multicast() {
                    to.set_scope_id(link);
                }
                sendmsg(fd, &parts, &[], MsgFlags::empty(), Some(&SockaddrIn6::from(to)))?;
            }
        }
        Ok(())
    }

    /// The next packet that is there: its bytes, and where from. `None` where there is none, or enough were read for
    /// now. A packet that came by no link of `links` is skipped.
    pub(super) fn receive<'b>(
        &mut self,
        buffer: &'b mut [u8],
        links: &[Link],
        now: Duration,
    ) -> Option<Option<(&'b [u8], Origin)>> {
        if self.pause(now).is_some() {
            return None;
        }
        let arrived = self
            .socket
            .try_io(Interest::READABLE, || receive_now(&self.socket, buffer));
        let arrived = match arrived {
            Ok(arrived) => arrived,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => {
                // For example that an earlier packet reached nobody.
                tracing::debug!(%error, "a packet could not be received");
                self.left -= 1;
                return Some(None);
            }
        };
        self.left -= 1;
        let Some(link) = links.iter().find(|link| link.index == arrived.link) else {
            return Some(None);
        };
        let origin = Origin {
            source: arrived.source,
            link: arrived.link,
            hops: arrived.hops,
            is_neighbour: link.has_neighbour(arrived.source.ip()),
            is_to_link: arrived.is_to_link,
        };
        Some(Some((&buffer[..arrived.length], origin)))
    }

    /// Until when nothing is read, after too much was.
    pub(super) fn pause(&mut self, now: Duration) -> Option<Duration> {
        if now >= self.window_ends {
            self.window_ends = now + WINDOW;
            self.left = PACKETS;
        }
        (self.left == 0).then_some(self.window_ends)
    }
}

/// Waits until one of the ports that may be read has a packet, and says which. May be cancelled.
pub(super) async fn any_readable(ports: &mut [Port], now: Duration) -> usize {
    poll_fn(|context| {
        for (index, port) in ports.iter_mut().enumerate() {
            if port.pause(now).is_none() && port.socket.poll_recv_ready(context).is_ready() {
                return Poll::Ready(index);
            }
        }
        Poll::Pending
    })
    .await
}

/// A packet as the system hands it over.
struct Arrived {
    length: usize,
    source: SocketAddr,
    link: u32,
    hops: u8,
    is_to_link: bool,
}

/// Receives a packet. One that is longer than the buffer is cut: what parses it finds out.
fn receive_now(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Arrived> {
    let mut space = cmsg_space!(in6_pktinfo, c_int);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    let source = received.address.as_ref().and_then(address);
    let mut arrived = Arrived {
        length: received.bytes,
        source: source.ok_or_else(|| io::Error::other("a packet from nowhere"))?,
        link: 0,
        hops: 0,
        is_to_link: false,
    };
    for message in received.cmsgs()? {
        match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                arrived.link = u32::try_from(info.ipi_ifindex).unwrap_or(0);
                // In the order of the network, whatever the machine's is.
                arrived.is_to_link = info.ipi_addr.s_addr.to_ne_bytes()[..3] == [224, 0, 0];
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                arrived.link = info.ipi6_ifindex;
                arrived.is_to_link = info.ipi6_addr.s6_addr[..2] == [0xff, 0x02];
            }
            ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
                arrived.hops = u8::try_from(ttl).unwrap_or(0);
            }
            _ => {}
        }
    }
    Ok(arrived)
}

fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}
