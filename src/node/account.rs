//! Accounts: people with a name, a role and a password; and signing in.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rusqlite::{OptionalExtension, Transaction, params};

use super::access::{Access, AccountRow, Role};
use super::clock::from_unix_s;
use super::error::{Error, Kind, Refusal};
use super::limit::Limiter;
use super::password::{Hasher, StoredPassword};
use super::secret::Password;
use super::security_log::{About, LogKind};
use super::session::{self, NewSession};
use crate::db;
use crate::id::AccountName;

/// Accounts of a node: all of them are in memory.
const ACCOUNTS_MAX: usize = 256;

/// An account as the list of accounts shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: AccountName,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created: SystemTime,
}

/// A change of one's own password.
#[derive(Debug)]
pub struct PasswordChange {
    /// The one so far.
    pub old: Password,
    /// The one from now on.
    pub new: Password,
    /// The cookie of the session that goes on; all others end.
    pub keep: Option<String>,
    /// Where it comes from.
    pub address: IpAddr,
}

/// The accounts of a node.
#[derive(Clone)]
pub struct Accounts {
    access: Arc<Access>,
    hasher: Arc<Hasher>,
    limiter: Arc<Mutex<Limiter>>,
}

impl Accounts {
    pub(super) fn new(access: Arc<Access>, hasher: Arc<Hasher>) -> Accounts {
        Accounts {
            access,
            hasher,
            limiter: Arc::default(),
        }
    }

    /// Every account, by name. Does not block.
    pub fn list(&self) -> Vec<Account> {
        let table = self.access.table();
        let mut accounts: Vec<Account> = table
            .accounts
            .values()
            .map(|row| Account {
                name: row.name.clone(),
                role: row.role,
                created: row.created,
            })
            .collect();
        accounts.sort_by(|a, b| a.name.cmp(&b.name));
        accounts
    }

    /// Adds an account; without a password nobody signs in with it until one is set. Durable on return.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the name is taken; [`Error::Invalid`] for a weak password or one account
    /// too many.
    pub async fn add(&self, name: AccountName, role: Role, password: Option<Password>) -> Result<(), Error> {
        let stored = self.store(password).await?;
        let access = Arc::clone(&self.access);
        db::crossing(move || {
            insert(&access, &name, role, stored.as_ref())?;
            let about = About {
                account: Some(&name),
                ..About::default()
            };
            access.log.write(LogKind::AccountAdded, &about);
            Ok(())
        })
        .await
    }

    /// Removes an account with its sessions and tokens. Durable on return.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::Refused`] for the last owner.
    pub async fn remove(&self, name: AccountName) -> Result<(), Error> {
        let access = Arc::clone(&self.access);
        db::crossing(move || remove(&access, &name)).await
    }

    /// Sets a password without knowing the old one, for an owner or someone at the console. Ends every
    /// session of the account. Durable on return.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::Invalid`] for a weak password.
    pub async fn set_password(&self, name: AccountName, new: Password) -> Result<(), Error> {
        self.replace_password(name, new, None).await
    }

    /// Changes one's own password. Ends every other session of the account. Durable on return.
    ///
    /// # Errors
    /// [`Error::Refused`] where the old one is wrong; [`Error::RateLimited`]; [`Error::Invalid`] for a weak
    /// new one.
    pub async fn change_password(&self, name: AccountName, change: PasswordChange) -> Result<(), Error> {
        self.prove(&name, change.old, change.address).await?;
        self.replace_password(name, change.new, change.keep).await
    }

    /// Signs in: a new session. The same work is done for a name that nobody has.
    ///
    /// # Errors
    /// [`Error::Refused`], which does not say what was wrong; [`Error::RateLimited`].
    pub async fn log_in(
        &self,
        name: AccountName,
        password: Password,
        address: IpAddr,
    ) -> Result<NewSession, Error> {
        let account = self.prove(&name, password, address).await?;
        let access = Arc::clone(&self.access);
        db::crossing(move || {
            let made = session::make(&access, account)?;
            let about = About {
                account: Some(&name),
                address: Some(address),
                ..About::default()
            };
            access.log.write(LogKind::LoggedIn, &about);
            Ok(made)
        })
        .await
    }

    /// How many passwords were hashed since the node was opened: what guessing costs it.
    pub fn passwords_hashed(&self) -> u64 {
        self.hasher.hashed()
    }

    /// What to store of a password that may be set.
    pub(super) async fn store(&self, password: Option<Password>) -> Result<Option<StoredPassword>, Error> {
        match password {
            Some(password) => {
                password.strong_enough()?;
                Ok(Some(self.hasher.store(password).await?))
            }
            None => Ok(None),
        }
    }

    async fn replace_password(
        &self,
        name: AccountName,
        new: Password,
        keep: Option<String>,
    ) -> Result<(), Error> {
        let stored = self.store(Some(new)).await?;
        let access = Arc::clone(&self.access);
        db::crossing(move || {
            let account = access.table().account_named(&name).map(|(id, _)| id);
            let account = account.ok_or_else(|| Error::missing(Kind::Account, &name))?;
            access.change(|tx| write_password(tx, account, stored.as_ref()))?;
            session::end_all(&access, account, &name, keep.as_deref())?;
            let about = About {
                account: Some(&name),
                ..About::default()
            };
            access.log.write(LogKind::PasswordSet, &about);
            Ok(())
        })
        .await
    }

    /// The account whose password this is.
    async fn prove(&self, name: &AccountName, password: Password, address: IpAddr) -> Result<i64, Error> {
        let limited = self.limiter().attempt(address, self.access.clock.now());
        limited.map_err(|retry_after| Error::RateLimited { retry_after })?;
        let asked = name.clone();
        let found = self.access.db.read(move |c| read_password(c, &asked)).await?;
        let (account, stored) = found.unzip();
        let right = self.hasher.verify(password, stored.flatten()).await?;
        self.limiter().settle(address, right);
        if let (true, Some(account)) = (right, account) {
            return Ok(account);
        }
        let (access, name) = (Arc::clone(&self.access), name.clone());
        db::crossing(move || -> Result<i64, Error> {
            let about = About {
                account: Some(&name),
                address: Some(address),
                ..About::default()
            };
            access.log.write(LogKind::LoginFailed, &about);
            Err(Refusal::Credentials.into())
        })
        .await
    }

    fn limiter(&self) -> std::sync::MutexGuard<'_, Limiter> {
        self.limiter
            .lock()
            .expect("no thread panics while it holds the attempts")
    }
}

/// Adds an account to the database and the table; answers its row. Blocking.
pub(super) fn insert(
    access: &Access,
    name: &AccountName,
    role: Role,
    password: Option<&StoredPassword>,
) -> Result<i64, Error> {
    {
        let table = access.table();
        if table.account_named(name).is_some() {
            return Err(Error::conflict(Kind::Account, name, "there is one of this name"));
        }
        if table.accounts.len() >= ACCOUNTS_MAX {
            return Err(Error::Invalid {
                what: "account",
                reason: format!("a node has at most {ACCOUNTS_MAX}"),
            });
        }
    }
    let created_s = access.clock.unix_s();
    let id = access.change(|tx| {
        // Two that add the same name at once meet here: the table was looked at before the transaction.
        let taken = tx
            .query_row("SELECT 1 FROM account WHERE name = ?1", [name.as_str()], |_| {
                Ok(())
            })
            .optional()?;
        if taken.is_some() {
            return Err(Error::conflict(Kind::Account, name, "there is one of this name"));
        }
        tx.execute(
            "INSERT INTO account (name, role, created_s) VALUES (?1, ?2, ?3)",
            params![name.as_str(), role.name(), created_s],
        )?;
        let id = tx.last_insert_rowid();
        write_password(tx, id, password)?;
        Ok(id)
    })?;
    access.table().accounts.insert(
        id,
        AccountRow {
            name: name.clone(),
            role,
            created: from_unix_s(created_s),
        },
    );
    Ok(id)
}

fn remove(access: &Access, name: &AccountName) -> Result<(), Error> {
    let id = {
        let table = access.table();
        let (id, row) = table
            .account_named(name)
            .ok_or_else(|| Error::missing(Kind::Account, name))?;
        let owners = table
            .accounts
            .values()
            .filter(|row| row.role == Role::Owner)
            .count();
        if row.role == Role::Owner && owners == 1 {
            return Err(Refusal::LastOwner.into());
        }
        id
    };
    access.change(|tx| {
        // In the transaction again: two owners who remove each other at once must leave one.
        let others: u32 = tx.query_row(
            "SELECT count(*) FROM account WHERE role = 'owner' AND id <> ?1",
            [id],
            |row| row.get(0),
        )?;
        if others == 0 {
            return Err(Refusal::LastOwner.into());
        }
        tx.execute("DELETE FROM account WHERE id = ?1", [id])?;
        Ok(())
    })?;
    let revoked: Vec<_> = {
        let mut table = access.table();
        table.accounts.remove(&id);
        table.sessions.retain(|_, row| row.account != id);
        let tokens = table.tokens.extract_if(|_, row| row.account == id);
        tokens.map(|(_, row)| row.id).collect()
    };
    for id in revoked {
        access.events.tell(super::Event::TokenRevoked { id });
    }
    access.events.tell(super::Event::SessionsEnded {
        account: name.clone(),
    });
    let about = About {
        account: Some(name),
        ..About::default()
    };
    access.log.write(LogKind::AccountRemoved, &about);
    Ok(())
}

fn write_password(
    tx: &Transaction<'_>,
    account: i64,
    password: Option<&StoredPassword>,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE account SET password_salt = ?2, password_hash = ?3, password_memory_kib = ?4,
             password_passes = ?5 WHERE id = ?1",
        params![
            account,
            password.map(|p| p.salt),
            password.map(|p| p.hash),
            password.map(|p| p.memory_kib),
            password.map(|p| p.passes),
        ],
    )?;
    Ok(())
}

/// The account of that name, and its password where one is set.
fn read_password(
    connection: &rusqlite::Connection,
    name: &AccountName,
) -> Result<Option<(i64, Option<StoredPassword>)>, Error> {
    let found = connection.query_row(
        "SELECT id, password_salt, password_hash, password_memory_kib, password_passes
         FROM account WHERE name = ?1",
        [name.as_str()],
        |row| {
            let salt: Option<[u8; 16]> = row.get(1)?;
            let stored = match salt {
                Some(salt) => Some(StoredPassword {
                    salt,
                    hash: row.get(2)?,
                    memory_kib: row.get(3)?,
                    passes: row.get(4)?,
                }),
                None => None,
            };
            Ok((row.get(0)?, stored))
        },
    );
    Ok(found.optional()?)
}
