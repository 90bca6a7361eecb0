//! What someone may want to know afterwards: who tried to get in, what was given and taken. Never a secret.

use std::net::IpAddr;
use std::time::SystemTime;

use rusqlite::{Transaction, params};

use super::clock::{Clock, from_unix_s};
use super::error::Error;
use crate::db::Database;
use crate::id::AccountName;

/// Entries kept; older ones make place.
pub const LOG_ENTRIES_MAX: u32 = 1000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogKind {
    /// The node was claimed.
    Claimed,
    /// A wrong claim code or proof.
    ClaimFailed,
    /// Someone signed in.
    LoggedIn,
    /// A wrong name or password.
    LoginFailed,
    /// An account was added.
    AccountAdded,
    /// An account was removed.
    AccountRemoved,
    /// A password was set.
    PasswordSet,
    /// A token was added.
    TokenAdded,
    /// A token was revoked.
    TokenRevoked,
    /// The database was damaged and set aside.
    DatabaseSetAside,
    /// A new version of the box's system runs.
    Updated,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When.
    pub at: SystemTime,
    /// What, by its name.
    pub kind: String,
    /// Whose account; what was typed where a login failed, if it could be a name at all.
    pub account: Option<String>,
    /// From where.
    pub address: Option<String>,
    /// What it was about, for example the label of a token.
    pub subject: Option<String>,
}

/// The security log of a node.
#[derive(Clone)]
pub struct SecurityLog {
    db: Database,
    clock: Clock,
}

/// What an entry says besides its kind.
#[derive(Debug, Default)]
pub(super) struct About<'a> {
    pub(super) account: Option<&'a AccountName>,
    pub(super) address: Option<IpAddr>,
    pub(super) subject: Option<&'a str>,
}

impl LogKind {
    fn name(self) -> &'static str {
        match self {
            LogKind::Claimed => "claimed",
            LogKind::ClaimFailed => "claim_failed",
            LogKind::LoggedIn => "logged_in",
            LogKind::LoginFailed => "login_failed",
            LogKind::AccountAdded => "account_added",
            LogKind::AccountRemoved => "account_removed",
            LogKind::PasswordSet => "password_set",
            LogKind::TokenAdded => "token_added",
            LogKind::TokenRevoked => "token_revoked",
            LogKind::DatabaseSetAside => "database_set_aside",
            LogKind::Updated => "updated",
        }
    }
}

impl SecurityLog {
    pub(super) fn new(db: Database, clock: Clock) -> SecurityLog {
        SecurityLog { db, clock }
    }

    /// The newest entries, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub async fn list(&self, limit: u32) -> Result<Vec<LogEntry>, Error> {
        self.db
            .read(move |connection| {
                let mut select = connection.prepare(
                    "SELECT at_s, kind, account, address, subject FROM security_log
                     ORDER BY id DESC LIMIT ?1",
                )?;
                let entries = select.query_map([limit.min(LOG_ENTRIES_MAX)], |row| {
                    Ok(LogEntry {
                        at: from_unix_s(row.get(0)?),
                        kind: row.get(1)?,
                        account: row.get(2)?,
                        address: row.get(3)?,
                        subject: row.get(4)?,
                    })
                })?;
                Ok(entries.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Writes an entry about `subject`. Durable on return.
    ///
    /// # Errors
    /// [`Error::Internal`], [`Error::NoSpace`], [`Error::ReadOnly`]: where the log matters more than what it is about.
    pub(super) async fn record(&self, kind: LogKind, subject: String) -> Result<(), Error> {
        let at_s = self.clock.unix_s();
        let insert = move |tx: &Transaction<'_>| {
            let about = About {
                subject: Some(&subject),
                ..About::default()
            };
            insert(tx, at_s, kind, &about)
        };
        self.db.write(insert).await
    }

    /// Writes an entry. Blocking. A log that cannot be written does not stop what it is about.
    pub(super) fn write(&self, kind: LogKind, about: &About<'_>) {
        let at_s = self.clock.unix_s();
        let written = self.db.write_blocking(|tx| insert(tx, at_s, kind, about));
        if let Err(error) = written {
            tracing::warn!(%error, kind = kind.name(), "the security log could not be written");
        }
    }
}

fn insert(tx: &Transaction<'_>, at_s: i64, kind: LogKind, about: &About<'_>) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO security_log (at_s, kind, account, address, subject) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            at_s,
            kind.name(),
            about.account.map(AccountName::as_str),
            about.address.map(|address| address.to_string()),
            about.subject,
        ],
    )?;
    tx.execute(
        "DELETE FROM security_log WHERE id <= (SELECT max(id) FROM security_log) - ?1",
        [LOG_ENTRIES_MAX],
    )?;
    Ok(())
}
