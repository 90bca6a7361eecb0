//! App tokens: what programs hold. Opaque, `rft_` and 256 random bits, kept as a hash, with scopes and an end.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rusqlite::params;

use super::access::{Access, Principal, Role, Scope, Scopes, TokenRow, Via};
use super::clock::{from_unix_s, unix_s};
use super::error::{Error, Kind};
use super::events::Event;
use super::secret::{SecretHash, SecretText};
use super::security_log::{About, LogKind};
use super::session::USED_SAVED_EVERY_S;
use crate::db;
use crate::id::{AccountName, BlobId, TokenId};

/// What every token begins with, so that a scanner for leaked secrets knows one when it sees it.
const PREFIX: &str = "rft_";

/// Tokens of a node: all of them are in memory, about 300 bytes each.
const TOKENS_MAX: usize = 1024;

/// The longest label, in bytes.
const LABEL_BYTES_MAX: usize = 100;

/// Puts of ingest-only tokens that are remembered, about 2 MiB.
const INGESTED_MAX: usize = 65_536;

/// What a token is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// What its owner calls it, up to 100 bytes.
    pub label: String,
    /// What it may do: within what the account's role allows.
    pub scopes: Scopes,
    /// When it ends by itself.
    pub expires: Option<SystemTime>,
}

/// A token that was just made.
#[derive(Debug)]
pub struct NewToken {
    /// Its handle.
    pub id: TokenId,
    /// The token itself, shown this once.
    pub secret: SecretText,
}

/// A token as the list of tokens shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its handle.
    pub id: TokenId,
    /// Whose it is.
    pub account: AccountName,
    /// What its owner calls it.
    pub label: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created: SystemTime,
    /// When it ends by itself.
    pub expires: Option<SystemTime>,
    /// When it was used last, to the hour after a restart.
    pub used: Option<SystemTime>,
}

/// The app tokens of a node.
#[derive(Clone)]
pub struct Tokens {
    access: Arc<Access>,
    ingested: Arc<Mutex<Ingested>>,
}

/// What ingest-only tokens put lately, by 64 bits of a hash of token and blob. In memory only: what is
/// forgotten is put again, which costs a transfer and nothing else.
#[derive(Default)]
struct Ingested {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Tokens {
    pub(super) fn new(access: Arc<Access>) -> Tokens {
        Tokens {
            access,
            ingested: Arc::default(),
        }
    }

    /// Makes a token of an account. Durable on return; goes on when the future is dropped.
    ///
    /// # Errors
    /// [`Error::Missing`] account; [`Error::Invalid`] for scopes beyond the account's role, none, a label
    /// that is too long, or one token too many.
    pub async fn add(&self, account: AccountName, request: TokenRequest) -> Result<NewToken, Error> {
        let access = Arc::clone(&self.access);
        db::crossing(move || make(&access, &account, &request)).await
    }

    /// Every token, or those of one account, oldest first. Does not block.
    pub fn list(&self, of: Option<&AccountName>) -> Vec<TokenInfo> {
        let table = self.access.table();
        let mut tokens: Vec<TokenInfo> = table
            .tokens
            .values()
            .filter_map(|row| {
                let account = table.accounts.get(&row.account)?;
                Some(TokenInfo {
                    id: row.id,
                    account: account.name.clone(),
                    label: row.label.clone(),
                    scopes: row.scopes,
                    created: from_unix_s(row.created_s),
                    expires: row.expires_s.map(from_unix_s),
                    used: row.used_s.map(from_unix_s),
                })
            })
            .filter(|token| of.is_none_or(|of| token.account == *of))
            .collect();
        tokens.sort_by_key(|token| (token.created, token.id));
        tokens
    }

    /// Revokes a token; with `of`, only one of that account. It opens nothing any more on return, and what is
    /// connected with it hears so ([`Event::TokenRevoked`]). Durable on return.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub async fn revoke(&self, id: TokenId, of: Option<AccountName>) -> Result<(), Error> {
        let access = Arc::clone(&self.access);
        db::crossing(move || revoke(&access, id, of.as_ref())).await
    }

    /// Who holds this token; `None` where there is none, or it ended. Does not block.
    pub fn find(&self, secret: &str) -> Option<Principal> {
        let hash = SecretHash::of_text(PREFIX, secret)?;
        let now_s = self.access.clock.unix_s();
        let mut table = self.access.table();
        let (found, token) = table.tokens.get_key_value(&hash)?;
        if !found.same(&hash) || token.expires_s.is_some_and(|end_s| end_s <= now_s) {
            return None;
        }
        let account = table.accounts.get(&token.account)?;
        let principal = Principal {
            account: account.name.clone(),
            role: account.role,
            // An account that lost its role takes its tokens' rights with it.
            scopes: token
                .scopes
                .iter()
                .filter(|scope| account.role.scopes().allow(*scope))
                .collect(),
            via: Via::Token(token.id),
        };
        if let Some(token) = table.tokens.get_mut(&hash) {
            let last_s = token.used_s.unwrap_or(0);
            token.unsaved |= now_s.saturating_sub(last_s) >= USED_SAVED_EVERY_S;
            token.used_s = Some(last_s.max(now_s));
        }
        Some(principal)
    }

    /// Remembers that an ingest-only token put a blob, so that it may ask about it.
    pub fn ingested(&self, token: TokenId, id: &BlobId) {
        let mut ingested = self
            .ingested
            .lock()
            .expect("no thread panics while it holds what was put");
        let key = ingest_key(token, id);
        if !ingested.known.insert(key) {
            return;
        }
        ingested.order.push_back(key);
        if ingested.order.len() > INGESTED_MAX
            && let Some(oldest) = ingested.order.pop_front()
        {
            ingested.known.remove(&oldest);
        }
    }

    /// Whether an ingest-only token put this blob since the node started, within the last 65,536 of all.
    pub fn has_ingested(&self, token: TokenId, id: &BlobId) -> bool {
        let ingested = self
            .ingested
            .lock()
            .expect("no thread panics while it holds what was put");
        ingested.known.contains(&ingest_key(token, id))
    }
}

/// Makes a token. Blocking.
pub(super) fn make(
    access: &Access,
    account: &AccountName,
    request: &TokenRequest,
) -> Result<NewToken, Error> {
    let owner = {
        let table = access.table();
        let (owner, row) = table
            .account_named(account)
            .ok_or_else(|| Error::missing(Kind::Account, account))?;
        check(request, row.role)?;
        if table.tokens.len() >= TOKENS_MAX {
            return Err(invalid(
                "token",
                format!("a node has at most {TOKENS_MAX}: revoke some"),
            ));
        }
        owner
    };
    let (secret, hash) = SecretHash::make(PREFIX)?;
    let mut id = [0; 8];
    getrandom::fill(&mut id)?;
    let row = TokenRow {
        id: TokenId::from_bytes(id),
        account: owner,
        label: request.label.clone(),
        scopes: request.scopes,
        created_s: access.clock.unix_s(),
        expires_s: request.expires.map(unix_s),
        used_s: None,
        unsaved: false,
    };
    access.change(|tx| {
        tx.execute(
            "INSERT INTO token (id, hash, account, label, scopes, created_s, expires_s)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                id,
                hash.as_bytes(),
                owner,
                row.label,
                row.scopes.bits(),
                row.created_s,
                row.expires_s,
            ],
        )?;
        Ok(())
    })?;
    let about = About {
        account: Some(account),
        subject: Some(&row.label),
        ..About::default()
    };
    access.log.write(LogKind::TokenAdded, &about);
    let id = row.id;
    access.table().tokens.insert(hash, row);
    Ok(NewToken { id, secret })
}

/// Saves when tokens were used. Blocking; writes nothing where nothing was used for an hour.
pub(super) fn tend(access: &Access) -> Result<(), Error> {
    let unsaved: Vec<(SecretHash, TokenId, Option<i64>)> = {
        let table = access.table();
        let all = table.tokens.iter().filter(|(_, row)| row.unsaved);
        all.map(|(hash, row)| (*hash, row.id, row.used_s)).collect()
    };
    if unsaved.is_empty() {
        return Ok(());
    }
    access.db.write_blocking(|tx| -> Result<(), Error> {
        let mut update = tx.prepare("UPDATE token SET used_s = ?2 WHERE id = ?1")?;
        for (_, id, used_s) in &unsaved {
            update.execute(params![id.as_bytes(), used_s])?;
        }
        Ok(())
    })?;
    let mut table = access.table();
    for (hash, ..) in &unsaved {
        if let Some(row) = table.tokens.get_mut(hash) {
            row.unsaved = false;
        }
    }
    Ok(())
}

fn revoke(access: &Access, id: TokenId, of: Option<&AccountName>) -> Result<(), Error> {
    let (hash, label, account) = {
        let table = access.table();
        let found = table.tokens.iter().find(|(_, row)| row.id == id);
        let found = found.and_then(|(hash, row)| {
            let account = table.accounts.get(&row.account)?.name.clone();
            let allowed = of.is_none_or(|of| *of == account);
            allowed.then(|| (*hash, row.label.clone(), account))
        });
        found.ok_or_else(|| Error::missing(Kind::Token, id))?
    };
    access.change(|tx| {
        tx.execute("DELETE FROM token WHERE id = ?1", [id.as_bytes()])?;
        Ok(())
    })?;
    access.table().tokens.remove(&hash);
    access.events.tell(Event::TokenRevoked { id });
    let about = About {
        account: Some(&account),
        subject: Some(&label),
        ..About::default()
    };
    access.log.write(LogKind::TokenRevoked, &about);
    Ok(())
}

fn check(request: &TokenRequest, role: Role) -> Result<(), Error> {
    if request.scopes.is_empty() {
        let names = Scope::ALL.map(|(_, name)| name).join(", ");
        return Err(invalid("scopes", format!("at least one of {names}")));
    }
    if !request.scopes.within(role.scopes()) {
        return Err(invalid(
            "scopes",
            format!("an account that is {} cannot give these", role.name()),
        ));
    }
    if request.label.len() > LABEL_BYTES_MAX || request.label.chars().any(char::is_control) {
        return Err(invalid(
            "label",
            format!("at most {LABEL_BYTES_MAX} bytes, without control characters"),
        ));
    }
    Ok(())
}

fn invalid(what: &'static str, reason: String) -> Error {
    Error::Invalid { what, reason }
}

fn ingest_key(token: TokenId, id: &BlobId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(token.as_bytes()).update(id.as_bytes());
    let mut key = [0; 8];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(key)
}
