//! Sessions: what a browser holds after someone signed in.
//!
//! An opaque secret of 256 bits in a cookie, kept as a hash. A new one is made at each login, so that none
//! can be planted; it ends after a week without use, after a month in any case, and when the password changes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::params;

use super::access::{Access, Principal, SessionRow, Table, Via};
use super::clock::from_unix_s;
use super::error::Error;
use super::events::Event;
use super::secret::{SecretHash, SecretText};
use crate::db;
use crate::id::AccountName;

/// A session ends after so long without a request.
pub const SESSION_IDLE: Duration = Duration::from_secs(IDLE_S.unsigned_abs());

/// A session ends so long after its login.
pub const SESSION_ABSOLUTE: Duration = Duration::from_secs(ABSOLUTE_S.unsigned_abs());

const IDLE_S: i64 = 7 * 24 * 3600;
const ABSOLUTE_S: i64 = 30 * 24 * 3600;

/// Sessions of one account; a further login ends the oldest.
const PER_ACCOUNT_MAX: usize = 32;

/// How old the last use may be in the database: each save is a write to the card.
pub(super) const USED_SAVED_EVERY_S: i64 = 3600;

/// A session that was just made.
#[derive(Debug)]
pub struct NewSession {
    /// What goes into the cookie.
    pub cookie: SecretText,
    /// Who holds it.
    pub principal: Principal,
    /// When it ends at the latest.
    pub expires: SystemTime,
}

/// The sessions of a node.
#[derive(Clone)]
pub struct Sessions {
    access: Arc<Access>,
}

impl Sessions {
    pub(super) fn new(access: Arc<Access>) -> Sessions {
        Sessions { access }
    }

    /// Who holds the session with this cookie; `None` where there is none, or it ended. Does not block.
    pub fn find(&self, cookie: &str) -> Option<Principal> {
        let hash = SecretHash::of_text("", cookie)?;
        let now_s = self.access.clock.unix_s();
        let mut table = self.access.table();
        let (found, session) = table.sessions.get_key_value(&hash)?;
        if !found.same(&hash) || is_over(session, now_s) {
            return None;
        }
        let account = session.account;
        if let Some(session) = table.sessions.get_mut(&hash) {
            session.unsaved |= now_s > session.used_s;
            session.used_s = session.used_s.max(now_s);
        }
        principal(&table, account)
    }

    /// Ends the session with this cookie; one that is not there is no error. Durable on return.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Internal`]: the session goes on.
    pub async fn end(&self, cookie: &str) -> Result<(), Error> {
        let Some(hash) = SecretHash::of_text("", cookie) else {
            return Ok(());
        };
        let access = Arc::clone(&self.access);
        db::crossing(move || delete(&access, |found, _| found.same(&hash))).await
    }
}

/// Makes a session of an account. Blocking.
pub(super) fn make(access: &Access, account: i64) -> Result<NewSession, Error> {
    let (cookie, hash) = SecretHash::make("")?;
    let now_s = access.clock.unix_s();
    let oldest = {
        let table = access.table();
        let own = table.sessions.iter().filter(|(_, row)| row.account == account);
        let mut own: Vec<_> = own.map(|(hash, row)| (row.created_s, *hash)).collect();
        own.sort_by_key(|(created_s, _)| *created_s);
        let surplus = (own.len() + 1).saturating_sub(PER_ACCOUNT_MAX);
        own.truncate(surplus);
        own
    };
    delete(access, |found, _| oldest.iter().any(|(_, hash)| hash == found))?;
    access.db.write_blocking(|tx| -> Result<(), Error> {
        tx.execute(
            "INSERT INTO session (hash, account, created_s, used_s) VALUES (?1, ?2, ?3, ?3)",
            params![hash.as_bytes(), account, now_s],
        )?;
        Ok(())
    })?;
    let mut table = access.table();
    table.sessions.insert(
        hash,
        SessionRow {
            account,
            created_s: now_s,
            used_s: now_s,
            unsaved: false,
        },
    );
    Ok(NewSession {
        cookie,
        principal: principal(&table, account).ok_or(Error::Busy)?,
        expires: from_unix_s(now_s) + SESSION_ABSOLUTE,
    })
}

/// Ends the sessions of an account but the one with the cookie `keep`. Blocking.
pub(super) fn end_all(
    access: &Access,
    account: i64,
    name: &AccountName,
    keep: Option<&str>,
) -> Result<(), Error> {
    let keep = keep.and_then(|cookie| SecretHash::of_text("", cookie));
    delete(access, |hash, row| row.account == account && keep != Some(*hash))?;
    access.events.tell(Event::SessionsEnded {
        account: name.clone(),
    });
    Ok(())
}

/// Saves when sessions were used and forgets those that are over. Blocking; writes nothing where nothing
/// changed for an hour.
pub(super) fn tend(access: &Access) -> Result<(), Error> {
    let now_s = access.clock.unix_s();
    delete(access, |_, row| is_over(row, now_s))?;
    let unsaved: Vec<(SecretHash, i64)> = {
        let table = access.table();
        let all = table.sessions.iter().filter(|(_, row)| row.unsaved);
        all.map(|(hash, row)| (*hash, row.used_s)).collect()
    };
    if unsaved.is_empty() {
        return Ok(());
    }
    access.db.write_blocking(|tx| -> Result<(), Error> {
        let mut update = tx.prepare("UPDATE session SET used_s = ?2 WHERE hash = ?1")?;
        for (hash, used_s) in &unsaved {
            update.execute(params![hash.as_bytes(), used_s])?;
        }
        Ok(())
    })?;
    let mut table = access.table();
    for (hash, saved_s) in unsaved {
        if let Some(row) = table.sessions.get_mut(&hash) {
            row.unsaved = row.used_s > saved_s;
        }
    }
    Ok(())
}

fn delete(access: &Access, which: impl Fn(&SecretHash, &SessionRow) -> bool) -> Result<(), Error> {
    let doomed: Vec<SecretHash> = {
        let table = access.table();
        let all = table.sessions.iter();
        all.filter(|(hash, row)| which(hash, row))
            .map(|(hash, _)| *hash)
            .collect()
    };
    if doomed.is_empty() {
        return Ok(());
    }
    access.db.write_blocking(|tx| -> Result<(), Error> {
        let mut delete = tx.prepare("DELETE FROM session WHERE hash = ?1")?;
        for hash in &doomed {
            delete.execute([hash.as_bytes()])?;
        }
        Ok(())
    })?;
    let mut table = access.table();
    for hash in &doomed {
        table.sessions.remove(hash);
    }
    Ok(())
}

fn is_over(session: &SessionRow, now_s: i64) -> bool {
    now_s.saturating_sub(session.used_s) >= IDLE_S || now_s.saturating_sub(session.created_s) >= ABSOLUTE_S
}

fn principal(table: &Table, account: i64) -> Option<Principal> {
    let row = table.accounts.get(&account)?;
    Some(Principal {
        account: row.name.clone(),
        role: row.role,
        scopes: row.role.scopes(),
        via: Via::Session,
    })
}
