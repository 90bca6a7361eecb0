//! What accounts, sessions and tokens share: rights, and the table that is asked on every request.
//!
//! The database is the truth; the table is the same in memory, so that a request costs a hash and a look-up
//! instead of a disk. Every change goes to the database first and to the table within the same blocking call,
//! so that a future dropped in between leaves both changed or neither.

pub(super) mod recovery;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use rusqlite::{Connection, Transaction};

use super::clock::{Clock, from_unix_s};
use super::error::Error;
use super::events::Events;
use super::secret::SecretHash;
use super::security_log::SecurityLog;
use crate::db::{Database, Migrations};
use crate::id::{AccountName, TokenId};

/// The schema of `node.db`.
pub(super) const MIGRATIONS: Migrations = &[include_str!("migrations/0001_access.sql")];

/// What an account may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// May everything, manages the others.
    Owner,
    /// May use the stores, manages its own tokens.
    Member,
}

/// What a request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Manage accounts, stores, tokens of others, and collect garbage. Includes all others.
    Admin,
    /// Read blobs, refs and status.
    Read,
    /// Put, delete, move refs. Includes ingest.
    Write,
    /// Put, and ask about what the same token put; neither read nor delete.
    Ingest,
    /// Read the metrics.
    Metrics,
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

/// Who asks, proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose session or token it is.
    pub account: AccountName,
    /// What that account is.
    pub role: Role,
    /// What the request may do.
    pub scopes: Scopes,
    /// How it was proved.
    pub via: Via,
}

/// How a principal was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// By a session, from a browser: mutations need a same-origin check.
    Session,
    /// By an app token.
    Token(TokenId),
}

impl Scope {
    /// All of them, with the names they have in JSON and on the command line.
    pub const ALL: [(Scope, &'static str); 5] = [
        (Scope::Admin, "admin"),
        (Scope::Read, "read"),
        (Scope::Write, "write"),
        (Scope::Ingest, "ingest"),
        (Scope::Metrics, "metrics"),
    ];

    /// The name of the scope.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Admin => "admin",
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Ingest => "ingest",
            Scope::Metrics => "metrics",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Scope::Admin => 1,
            Scope::Read => 2,
            Scope::Write => 4,
            Scope::Ingest => 8,
            Scope::Metrics => 16,
        }
    }
}

impl Scopes {
    /// What is in the set, as it was given.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        let all = Scope::ALL.into_iter().map(|(scope, _)| scope);
        all.filter(move |scope| self.0 & scope.bit() != 0)
    }

    /// Whether the set allows what needs `scope`, by itself or by one that includes it.
    pub fn allow(self, scope: Scope) -> bool {
        let including = match scope {
            Scope::Admin => 0,
            Scope::Read | Scope::Write | Scope::Metrics => Scope::Admin.bit(),
            Scope::Ingest => Scope::Admin.bit() | Scope::Write.bit(),
        };
        self.0 & (scope.bit() | including) != 0
    }

    /// Whether every scope of the set is allowed by `other`.
    pub fn within(self, other: Scopes) -> bool {
        self.iter().all(|scope| other.allow(scope))
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn bits(self) -> u8 {
        self.0
    }

    fn from_stored(bits: i64) -> Scopes {
        let known = Scope::ALL.into_iter().map(|(scope, _)| scope);
        known.filter(|scope| bits & i64::from(scope.bit()) != 0).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Scopes(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl Role {
    /// Everything a session of such an account may do, and the most its tokens may.
    pub fn scopes(self) -> Scopes {
        match self {
            Role::Owner => Scope::ALL.into_iter().map(|(scope, _)| scope).collect(),
            Role::Member => [Scope::Read, Scope::Write, Scope::Ingest].into_iter().collect(),
        }
    }

    /// The name of the role, in JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Role::Owner => "owner",
            Role::Member => "member",
        }
    }

    pub(super) fn from_stored(name: &str) -> Role {
        // The table's CHECK allows no third; what is not the owner has the fewest rights.
        match name {
            "owner" => Role::Owner,
            _ => Role::Member,
        }
    }
}

impl Principal {
    /// Whether the request may do what needs `scope`.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.allow(scope)
    }
}

/// The shared state behind accounts, sessions and tokens.
pub(super) struct Access {
    pub(super) db: Database,
    pub(super) clock: Clock,
    pub(super) events: Events,
    pub(super) log: SecurityLog,
    table: Mutex<Table>,
}

/// The rows of the database that requests need.
#[derive(Default)]
pub(super) struct Table {
    pub(super) accounts: BTreeMap<i64, AccountRow>,
    pub(super) sessions: HashMap<SecretHash, SessionRow>,
    pub(super) tokens: HashMap<SecretHash, TokenRow>,
}

#[derive(Debug, Clone)]
pub(super) struct AccountRow {
    pub(super) name: AccountName,
    pub(super) role: Role,
    pub(super) created: SystemTime,
}

#[derive(Debug, Clone)]
pub(super) struct SessionRow {
    pub(super) account: i64,
    pub(super) created_s: i64,
    pub(super) used_s: i64,
    /// Whether the database does not know `used_s` yet.
    pub(super) unsaved: bool,
}

#[derive(Debug, Clone)]
pub(super) struct TokenRow {
    pub(super) id: TokenId,
    pub(super) account: i64,
    pub(super) label: String,
    pub(super) scopes: Scopes,
    pub(super) created_s: i64,
    pub(super) expires_s: Option<i64>,
    pub(super) used_s: Option<i64>,
    pub(super) unsaved: bool,
}

impl Access {
    /// Reads the table from the database. Blocking.
    pub(super) fn open(db: Database, clock: Clock, events: Events) -> Result<Access, Error> {
        let table = db.write_blocking(|tx| load(tx))?;
        Ok(Access {
            log: SecurityLog::new(db.clone(), clock.clone()),
            db,
            clock,
            events,
            table: Mutex::new(table),
        })
    }

    /// Changes accounts or tokens: a transaction, and a copy of the database once it is committed. Blocking;
    /// durable on return.
    ///
    /// # Errors
    /// What `work` answers; as [`Database::write_blocking`].
    pub(super) fn change<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let done = self.db.write_blocking(work)?;
        self.keep();
        Ok(done)
    }

    /// Copies the database. That it cannot is no reason to refuse the change, which is durable by itself.
    fn keep(&self) {
        if let Err(error) = self.db.keep_generation() {
            tracing::warn!(%error, "the database of accounts could not be copied");
        }
    }

    fn end_all_sessions(&self) -> Result<(), Error> {
        self.db
            .write_blocking(|tx| -> Result<(), Error> { Ok(tx.execute_batch("DELETE FROM session")?) })?;
        self.table().sessions.clear();
        Ok(())
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table
            .lock()
            .expect("no thread panics while it holds the table of accounts")
    }
}

impl Table {
    pub(super) fn account_named(&self, name: &AccountName) -> Option<(i64, &AccountRow)> {
        let mut all = self.accounts.iter();
        all.find(|(_, row)| row.name == *name).map(|(id, row)| (*id, row))
    }
}

fn load(connection: &Connection) -> Result<Table, Error> {
    let mut table = Table::default();
    let mut accounts = connection.prepare("SELECT id, name, role, created_s FROM account")?;
    let mut rows = accounts.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        // A name that no longer parses cannot be asked for; the row stays for whoever looks into the file.
        let Ok(name) = name.parse() else { continue };
        let role: String = row.get(2)?;
        let account = AccountRow {
            name,
            role: Role::from_stored(&role),
            created: from_unix_s(row.get(3)?),
        };
        table.accounts.insert(row.get(0)?, account);
    }
    let mut sessions = connection.prepare("SELECT hash, account, created_s, used_s FROM session")?;
    let mut rows = sessions.query([])?;
    while let Some(row) = rows.next()? {
        let session = SessionRow {
            account: row.get(1)?,
            created_s: row.get(2)?,
            used_s: row.get(3)?,
            unsaved: false,
        };
        table
            .sessions
            .insert(SecretHash::from_stored(row.get(0)?), session);
    }
    let mut tokens = connection
        .prepare("SELECT hash, id, account, label, scopes, created_s, expires_s, used_s FROM token")?;
    let mut rows = tokens.query([])?;
    while let Some(row) = rows.next()? {
        let token = TokenRow {
            id: TokenId::from_bytes(row.get(1)?),
            account: row.get(2)?,
            label: row.get(3)?,
            scopes: Scopes::from_stored(row.get(4)?),
            created_s: row.get(5)?,
            expires_s: row.get(6)?,
            used_s: row.get(7)?,
            unsaved: false,
        };
        table.tokens.insert(SecretHash::from_stored(row.get(0)?), token);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_include_only_what_they_say() {
        let only = |scope| Scopes::from_iter([scope]);
        assert!(only(Scope::Admin).allow(Scope::Read));
        assert!(only(Scope::Write).allow(Scope::Ingest));
        for refused in [Scope::Admin, Scope::Read, Scope::Write, Scope::Metrics] {
            assert!(!only(Scope::Ingest).allow(refused), "{refused:?}");
        }
        assert!(!only(Scope::Write).allow(Scope::Read));
        assert!(!only(Scope::Metrics).allow(Scope::Read));
        assert!(!Role::Member.scopes().allow(Scope::Admin));
        assert!(!only(Scope::Metrics).within(Role::Member.scopes()));
        assert_eq!(Scopes::from_stored(0xff).iter().count(), Scope::ALL.len());
    }
}
