//! Claiming: whoever holds the code that the node shows on its console becomes its owner.
//!
//! The code is 16 characters of Crockford's base 32 (80 bits), made for this device at its first start and
//! kept in `identity/claim.json` until it is used. A browser sends it; the command line proves that it knows
//! it, so that nobody in between learns it. Whoever sets a box up may choose the code beforehand
//! ([`ClaimCode::chosen`]); it then takes the place of the node's own:
//!
//! ```text
//! exporter  32 bytes of the TLS session (RFC 5705), label "EXPORTER-refuge-claim-v1", no context
//! proof     HMAC-SHA256(key = the code's 16 characters, "refuge claim v1 client" exporter node-id)
//! answer    HMAC-SHA256(key = the code's 16 characters, "refuge claim v1 node"   exporter node-id)
//! ```
//!
//! On a box, a press of its button opens a window of two minutes in which no code is needed: whoever can touch the box
//! could as well read its console. The first who claims within it becomes the owner.
//!
//! A node without an owner always has a code: where the accounts are lost for good, with their copy, a new
//! code appears on the console, and whoever stands there is let in again.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ring::hmac;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::access::{Access, Role};
use super::account::{self, Accounts};
use super::error::{Error, Kind, Refusal};
use super::events::Event;
use super::limit::Limiter;
use super::password::StoredPassword;
use super::secret::Password;
use super::security_log::{About, LogKind};
use super::session::{self, NewSession};
use super::token::{self, NewToken, TokenRequest};
use crate::id::{AccountName, NodeId};
use crate::{db, durable};

/// The label of the TLS exporter that a proof is bound to.
pub const CLAIM_EXPORTER_LABEL: &[u8] = b"EXPORTER-refuge-claim-v1";

/// How long a node may be claimed without its code after its button was pressed.
pub const CLAIM_WINDOW: Duration = Duration::from_secs(120);

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CODE_CHARACTERS: usize = 16;

/// Different characters that a chosen code has at least. Of codes picked by chance one in forty million has fewer;
/// what somebody types to have typed something mostly does.
const DIFFERENT_CHARACTERS_MIN: usize = 6;

/// A claim code, without its dashes.
#[derive(Clone)]
pub struct ClaimCode(Zeroizing<String>);

/// Why a text is no claim code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimCodeError {
    /// It has another form.
    #[error("a claim code is 16 letters and digits, shown as XXXX-XXXX-XXXX-XXXX")]
    Form,
    /// It can be guessed.
    #[error(
        "a claim code is picked by chance: one with fewer than {DIFFERENT_CHARACTERS_MIN} different characters can be guessed"
    )]
    Weak,
}

/// Which side of a claim computes a MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimSide {
    /// Whoever claims.
    Client,
    /// The node.
    Node,
}

/// A claim by proof.
#[derive(Debug)]
pub struct ClaimProof {
    /// The TLS session's exporter, 32 bytes.
    pub exporter: [u8; 32],
    /// The client's MAC.
    pub proof: [u8; 32],
    /// The owner's account.
    pub account: AccountName,
    /// The owner's password, where one is set right away.
    pub password: Option<Password>,
    /// The token that is answered.
    pub token: TokenRequest,
}

/// A successful claim by proof.
#[derive(Debug)]
pub struct Proven {
    /// The node's MAC: that it knew the code as well.
    pub answer: [u8; 32],
    /// The first token.
    pub token: NewToken,
}

/// The claim of a node.
#[derive(Clone)]
pub struct Claim {
    inner: Arc<Inner>,
}

struct Inner {
    access: Arc<Access>,
    accounts: Accounts,
    node_id: NodeId,
    path: PathBuf,
    /// `None` once the node has an owner.
    code: Mutex<Option<ClaimCode>>,
    /// Until when no code is needed.
    window: Mutex<Option<Instant>>,
    limiter: Mutex<Limiter>,
}

#[derive(Serialize, Deserialize)]
struct CodeFile {
    code: String,
}

impl Claim {
    /// Opens the claim in the identity folder. Where the node has no owner its code is the one that was `chosen`, else
    /// the one it has, else a new one.
    pub(super) fn open(
        folder: &Path,
        node_id: NodeId,
        access: Arc<Access>,
        accounts: Accounts,
        chosen: Option<ClaimCode>,
    ) -> Result<Claim, Error> {
        let path = folder.join("claim.json");
        let has_owner = access
            .table()
            .accounts
            .values()
            .any(|row| row.role == Role::Owner);
        let code = if has_owner {
            // A crash between the owner's row and the removal of the code leaves one.
            durable::remove(&path)?;
            None
        } else {
            Some(open_code(&path, chosen)?)
        };
        Ok(Claim {
            inner: Arc::new(Inner {
                access,
                accounts,
                node_id,
                path,
                code: Mutex::new(code),
                window: Mutex::default(),
                limiter: Mutex::default(),
            }),
        })
    }

    /// Whether the node has an owner. Does not block.
    pub fn is_claimed(&self) -> bool {
        self.inner.code().is_none()
    }

    /// The code, for the console alone; `None` once the node is claimed.
    pub fn code(&self) -> Option<ClaimCode> {
        self.inner.code().clone()
    }

    /// From now on, for [`CLAIM_WINDOW`], nobody needs the code; `false` where the node has an owner. For whoever touched
    /// the box. Does not block.
    pub fn open_window(&self) -> bool {
        self.open_window_until(Instant::now() + CLAIM_WINDOW)
    }

    /// Whether the node can be claimed without its code at this moment. Does not block.
    pub fn is_window_open(&self) -> bool {
        !self.is_claimed() && self.inner.window().is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn open_window_until(&self, until: Instant) -> bool {
        let is_open = !self.is_claimed();
        if is_open {
            *self.inner.window() = Some(until);
        }
        is_open
    }

    /// Claims the node while its window is open: makes the owner and signs in.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the node has an owner; [`Error::Refused`] while the window is shut;
    /// [`Error::Invalid`] for a weak password.
    pub async fn by_button(
        &self,
        account: AccountName,
        password: Password,
        address: IpAddr,
    ) -> Result<NewSession, Error> {
        self.within_window()?;
        let stored = self.inner.accounts.store(Some(password)).await?;
        let claim = self.clone();
        db::crossing(move || {
            let owner = claim.make_owner(&account, stored.as_ref(), address)?;
            session::make(&claim.inner.access, owner)
        })
        .await
    }

    /// Claims the node while its window is open: makes the owner and a first token.
    ///
    /// # Errors
    /// As [`Claim::by_button`].
    pub async fn by_button_for_token(
        &self,
        account: AccountName,
        password: Option<Password>,
        token: TokenRequest,
        address: IpAddr,
    ) -> Result<NewToken, Error> {
        self.within_window()?;
        let stored = self.inner.accounts.store(password).await?;
        let claim = self.clone();
        db::crossing(move || {
            claim.make_owner(&account, stored.as_ref(), address)?;
            token::make(&claim.inner.access, &account, &token)
        })
        .await
    }

    fn within_window(&self) -> Result<(), Error> {
        match (self.is_claimed(), self.is_window_open()) {
            (true, _) => Err(self.claimed()),
            (false, true) => Ok(()),
            (false, false) => Err(Refusal::ClaimWindow.into()),
        }
    }

    /// Claims the node with the code itself: makes the owner and signs in.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the node has an owner; [`Error::Refused`] for a wrong code;
    /// [`Error::RateLimited`]; [`Error::Invalid`] for a weak password.
    pub async fn by_code(
        &self,
        code: &str,
        account: AccountName,
        password: Password,
        address: IpAddr,
    ) -> Result<NewSession, Error> {
        let given: Option<ClaimCode> = code.parse().ok();
        self.check(address, |code| given.is_some_and(|given| given.same(code)))
            .await?;
        let stored = self.inner.accounts.store(Some(password)).await?;
        let claim = self.clone();
        db::crossing(move || {
            let owner = claim.make_owner(&account, stored.as_ref(), address)?;
            session::make(&claim.inner.access, owner)
        })
        .await
    }

    /// Claims the node with a proof of the code: makes the owner and a first token.
    ///
    /// # Errors
    /// As [`Claim::by_code`].
    pub async fn by_proof(&self, claim: ClaimProof, address: IpAddr) -> Result<Proven, Error> {
        let node_id = self.inner.node_id;
        let code = self
            .check(address, |code| {
                let right = claim_mac(code, ClaimSide::Client, &claim.exporter, &node_id);
                right.ct_eq(&claim.proof).into()
            })
            .await?;
        let answer = claim_mac(&code, ClaimSide::Node, &claim.exporter, &node_id);
        let stored = self.inner.accounts.store(claim.password).await?;
        let this = self.clone();
        db::crossing(move || {
            this.make_owner(&claim.account, stored.as_ref(), address)?;
            let token = token::make(&this.inner.access, &claim.account, &claim.token)?;
            Ok(Proven { answer, token })
        })
        .await
    }

    /// The code, where `knows` says that the other side knows it.
    async fn check(
        &self,
        address: IpAddr,
        knows: impl FnOnce(&ClaimCode) -> bool,
    ) -> Result<ClaimCode, Error> {
        let code = self.code().ok_or_else(|| self.claimed())?;
        let limited = self
            .inner
            .limiter()
            .attempt(address, self.inner.access.clock.now());
        limited.map_err(|retry_after| Error::RateLimited { retry_after })?;
        let right = knows(&code);
        self.inner.limiter().settle(address, right);
        if right {
            return Ok(code);
        }
        let access = Arc::clone(&self.inner.access);
        db::crossing(move || -> Result<ClaimCode, Error> {
            let about = About {
                address: Some(address),
                ..About::default()
            };
            access.log.write(LogKind::ClaimFailed, &about);
            Err(Refusal::ClaimCode.into())
        })
        .await
    }

    fn make_owner(
        &self,
        name: &AccountName,
        password: Option<&StoredPassword>,
        address: IpAddr,
    ) -> Result<i64, Error> {
        // Taken out first: of two who claim at once, one becomes the owner.
        let code = self.inner.code().take().ok_or_else(|| self.claimed())?;
        let access = &self.inner.access;
        let owner = match account::insert(access, name, Role::Owner, password) {
            Ok(owner) => owner,
            Err(error) => {
                *self.inner.code() = Some(code);
                return Err(error);
            }
        };
        if let Err(error) = durable::remove(&self.inner.path) {
            // The owner is what counts; the next start removes the file.
            tracing::warn!(%error, "the used claim code could not be removed");
        }
        let about = About {
            account: Some(name),
            address: Some(address),
            ..About::default()
        };
        access.log.write(LogKind::Claimed, &about);
        access.events.tell(Event::Claimed);
        Ok(owner)
    }

    fn claimed(&self) -> Error {
        Error::conflict(
            Kind::Claim,
            self.inner.node_id,
            "the node has an owner: sign in, or ask the owner for an account",
        )
    }
}

impl Inner {
    fn code(&self) -> MutexGuard<'_, Option<ClaimCode>> {
        self.code
            .lock()
            .expect("no thread panics while it holds the code")
    }

    fn window(&self) -> MutexGuard<'_, Option<Instant>> {
        self.window
            .lock()
            .expect("no thread panics while it holds an instant")
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter
            .lock()
            .expect("no thread panics while it holds the attempts")
    }
}

/// The MAC of one side of a claim, 32 bytes.
pub fn claim_mac(code: &ClaimCode, side: ClaimSide, exporter: &[u8; 32], node_id: &NodeId) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, code.0.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(match side {
        ClaimSide::Client => b"refuge claim v1 client",
        ClaimSide::Node => b"refuge claim v1 node",
    });
    context.update(exporter);
    context.update(node_id.as_bytes());
    let mut mac = [0; 32];
    mac.copy_from_slice(context.sign().as_ref());
    mac
}

impl ClaimCode {
    fn make() -> Result<ClaimCode, Error> {
        let mut random = Zeroizing::new([0; CODE_CHARACTERS]);
        getrandom::fill(&mut *random)?;
        let characters = random
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
        Ok(ClaimCode(Zeroizing::new(characters.collect())))
    }

    /// A code that was chosen for a node before its first start; the form is that of [`FromStr`].
    ///
    /// # Errors
    /// [`ClaimCodeError`]; a code that was not picked by chance is [`ClaimCodeError::Weak`], as far as that can be seen.
    pub fn chosen(text: &str) -> Result<ClaimCode, ClaimCodeError> {
        let code: ClaimCode = text.parse()?;
        let different: BTreeSet<u8> = code.0.bytes().collect();
        if different.len() < DIFFERENT_CHARACTERS_MIN {
            return Err(ClaimCodeError::Weak);
        }
        Ok(code)
    }

    /// The code as people read it: `XXXX-XXXX-XXXX-XXXX`.
    pub fn reveal(&self) -> String {
        let groups = [0, 4, 8, 12].map(|at| &self.0[at..at + 4]);
        groups.join("-")
    }

    fn same(&self, other: &ClaimCode) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl FromStr for ClaimCode {
    type Err = ClaimCodeError;

    /// Takes what people type: any case, dashes and spaces, I and L for 1, O for 0.
    fn from_str(text: &str) -> Result<Self, ClaimCodeError> {
        let mut code = Zeroizing::new(String::with_capacity(CODE_CHARACTERS));
        for character in text.chars().filter(|c| !matches!(c, '-' | ' ')) {
            let character = match character.to_ascii_uppercase() {
                'I' | 'L' => '1',
                'O' => '0',
                other => other,
            };
            if !character.is_ascii()
                || !ALPHABET.contains(&(character as u8))
                || code.len() == CODE_CHARACTERS
            {
                return Err(ClaimCodeError::Form);
            }
            code.push(character);
        }
        if code.len() != CODE_CHARACTERS {
            return Err(ClaimCodeError::Form);
        }
        Ok(ClaimCode(code))
    }
}

impl PartialEq for ClaimCode {
    fn eq(&self, other: &ClaimCode) -> bool {
        self.same(other)
    }
}

impl Eq for ClaimCode {}

impl fmt::Debug for ClaimCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimCode(…)")
    }
}

fn open_code(path: &Path, chosen: Option<ClaimCode>) -> Result<ClaimCode, Error> {
    let kept = match durable::read(path) {
        Ok(state) => state.and_then(|state| serde_json::from_slice::<CodeFile>(&state.payload).ok()),
        Err(durable::Error::Damaged { path }) => {
            tracing::warn!(path = %path.display(), "the claim code was damaged: a new one is shown");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let kept: Option<ClaimCode> = kept.and_then(|file| Zeroizing::new(file.code).parse().ok());
    let code = match (kept, chosen) {
        (Some(kept), None) => return Ok(kept),
        (Some(kept), Some(chosen)) if kept == chosen => return Ok(kept),
        (_, Some(chosen)) => chosen,
        (None, None) => ClaimCode::make()?,
    };
    let file = CodeFile {
        code: code.0.to_string(),
    };
    let payload = Zeroizing::new(serde_json::to_vec(&file).expect("a code is plain text"));
    // Twice, so that there is a previous generation from the start.
    durable::replace(path, &payload)?;
    durable::replace(path, &payload)?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_as_it_is_typed_and_its_macs_are_bound_to_everything() {
        let code = ClaimCode::make().unwrap();
        let typed = code.reveal().to_lowercase().replace('-', " ").replace('0', "o");
        assert!(typed.parse::<ClaimCode>().unwrap().same(&code));
        assert!(!format!("{code:?}").contains(&code.reveal()[..4]));
        for bad in [
            "",
            "0000",
            "0000-0000-0000-000U",
            "0000-0000-0000-0000-0",
            "é000-0000-0000-000",
        ] {
            assert!(bad.parse::<ClaimCode>().is_err(), "{bad}");
        }
        assert_eq!(ClaimCode::chosen("0000"), Err(ClaimCodeError::Form));
        for weak in [
            "0000-0000-0000-0000",
            "ABCD-ABCD-ABCD-ABCD",
            "1234-5123-4512-3451",
            "OOOO-0000-IIII-llll",
        ] {
            assert_eq!(ClaimCode::chosen(weak), Err(ClaimCodeError::Weak), "{weak}");
        }
        assert_eq!(ClaimCode::chosen(&code.reveal()).unwrap(), code);
        let node = NodeId::from_bytes([1; 32]);
        let mac = |side, exporter: u8, node: u8| {
            claim_mac(&code, side, &[exporter; 32], &NodeId::from_bytes([node; 32]))
        };
        let right = claim_mac(&code, ClaimSide::Client, &[7; 32], &node);
        assert_eq!(right, mac(ClaimSide::Client, 7, 1));
        for wrong in [
            mac(ClaimSide::Node, 7, 1),
            mac(ClaimSide::Client, 8, 1),
            mac(ClaimSide::Client, 7, 2),
        ] {
            assert_ne!(right, wrong);
        }
    }
}
