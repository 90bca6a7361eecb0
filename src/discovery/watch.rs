//! Notice of interfaces and addresses that come and go, by rtnetlink(7).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;

/// Interfaces, IPv4 addresses and IPv6 addresses (rtnetlink.h, `RTMGRP_*`).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// A subscription to changes.
#[derive(Debug)]
pub(super) struct Watch {
    socket: AsyncFd<OwnedFd>,
}

impl Watch {
    /// # Errors
    /// Where the system lets nobody listen, for example in a sandbox.
    pub(super) fn new() -> io::Result<Watch> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            flags,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        #[expect(
            deprecated,
            reason = "what takes its place needs unsafe code; an OwnedFd stays open for as long as it is registered"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Watch { socket })
    }

    /// Returns after something changed; what it was has to be looked up. May be cancelled.
    pub(super) async fn changed(&self) {
        let Ok(mut ready) = self.socket.readable().await else {
            return std::future::pending().await;
        };
        let mut notice = [0; 4096];
        loop {
            match recv(self.socket.get_ref().as_raw_fd(), &mut notice, MsgFlags::empty()) {
                // More came than the kernel kept: that something changed is all that counts.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(_) => return ready.clear_ready(),
            }
        }
    }
}
