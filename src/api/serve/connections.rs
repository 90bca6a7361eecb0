//! Who holds the connections: a bound on all of them, and on those of one address.
//!
//! When a bound is reached, the oldest connection over which nobody has proved who they are makes room. So a
//! crowd of slow strangers only pushes itself out, and an owner gets in beside them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::api::connection::Connection;

/// Connections at once: each may cost some 200 KiB under load, of the footprint contract's 96 MiB.
const CONNECTIONS_MAX: usize = 256;

/// Connections at once from one address: several browsers and a backup with many workers.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 32;

/// From loopback come tools that test and measure.
const CONNECTIONS_PER_LOOPBACK_MAX: usize = 64;

/// All connections of the process.
#[derive(Clone)]
pub(super) struct Connections {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    /// Ascending, so the first is the oldest.
    entries: BTreeMap<u64, Entry>,
    next: u64,
}

struct Entry {
    address: IpAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    evict: CancellationToken,
    /// Empty while the TLS handshake lasts.
    connection: OnceLock<Arc<Connection>>,
}

/// The right to one connection; given back when dropped.
pub(super) struct Slot {
    connections: Connections,
    key: u64,
    state: Arc<State>,
}

impl Connections {
    pub(super) fn new() -> Connections {
        Connections {
            table: Arc::default(),
        }
    }

    /// A slot for a connection from `address`, taken from a stranger if need be.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Slot> {
        let address = address.to_canonical();
        let mut table = self.table();
        let of_address = table
            .entries
            .values()
            .filter(|entry| entry.address == address)
            .count();
        if of_address >= per_address(address) {
            table.make_room(|entry| entry.address == address)?;
        } else if table.entries.len() >= CONNECTIONS_MAX {
            table.make_room(|_| true)?;
        }
        let key = table.next;
        table.next += 1;
        let state = Arc::<State>::default();
        table.entries.insert(
            key,
            Entry {
                address,
                state: Arc::clone(&state),
            },
        );
        Some(Slot {
            connections: self.clone(),
            key,
            state,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table
            .lock()
            .expect("no thread panics while it holds the table")
    }
}

impl Table {
    /// Ends the oldest connection of a stranger among those `fits` selects; `None` where there is none.
    fn make_room(&mut self, fits: impl Fn(&Entry) -> bool) -> Option<()> {
        let (key, _) = self
            .entries
            .iter()
            .find(|(_, entry)| fits(entry) && entry.state.is_stranger())?;
        let key = *key;
        let entry = self.entries.remove(&key)?;
        entry.state.evict.cancel();
        Some(())
    }
}

impl State {
    fn is_stranger(&self) -> bool {
        self.connection
            .get()
            .is_none_or(|connection| !connection.is_authenticated())
    }
}

impl Slot {
    /// Cancelled when the connection has to make room.
    pub(super) fn evicted(&self) -> CancellationToken {
        self.state.evict.clone()
    }

    /// From now on `connection` says whether it is a stranger's.
    pub(super) fn established(&self, connection: Arc<Connection>) {
        // A second call would be for the same connection.
        let _ = self.state.connection.set(connection);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.table().entries.remove(&self.key);
    }
}

fn per_address(address: IpAddr) -> usize {
    if address.is_loopback() {
        CONNECTIONS_PER_LOOPBACK_MAX
    } else {
        CONNECTIONS_PER_ADDRESS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::connection::Scheme;

    fn known(address: IpAddr) -> Arc<Connection> {
        let (peer, local) = ((address, 1).into(), "192.0.2.1:8443".parse().unwrap());
        let connection = Connection::new(peer, local, Scheme::Plain, CancellationToken::new());
        connection.mark_authenticated();
        connection
    }

    #[test]
    fn strangers_push_each_other_out_and_never_someone_known() {
        let connections = Connections::new();
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let owner = connections.admit(address).unwrap();
        owner.established(known(address));
        let strangers: Vec<_> = (1..CONNECTIONS_PER_ADDRESS_MAX)
            .map(|_| connections.admit(address).unwrap())
            .collect();
        let newcomer = connections.admit(address).unwrap();
        assert!(!owner.evicted().is_cancelled());
        assert!(strangers[0].evicted().is_cancelled());
        assert!(!strangers[1].evicted().is_cancelled() && !newcomer.evicted().is_cancelled());
    }

    #[test]
    fn one_address_full_of_known_connections_gets_no_more_and_frees_by_dropping() {
        let connections = Connections::new();
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let mut slots: Vec<_> = (0..CONNECTIONS_PER_ADDRESS_MAX)
            .map(|_| {
                let slot = connections.admit(address).unwrap();
                slot.established(known(address));
                slot
            })
            .collect();
        assert!(connections.admit(address).is_none());
        assert!(connections.admit("192.0.2.8".parse().unwrap()).is_some());
        slots.pop();
        assert!(connections.admit(address).is_some());
    }
}
