//! Passwords as they are kept: argon2id, one at a time, the same work whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::error::Error;
use super::secret::Password;
use crate::db;

/// 19 MiB and two passes: the least that OWASP's password storage cheat sheet recommends for argon2id, and
/// about half a second on a small box.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Address space taken for a hash, in blocks of 1 KiB; what is not touched is no memory. The C library of most systems
/// keeps what was freed for the thread that freed it, a hash for each thread that ever made one, unless it is larger
/// than 32 MiB (mallopt(3), `M_MMAP_THRESHOLD`): that goes back to the system at once.
const RESERVED_BLOCKS: usize = 33 * 1024;

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// What is kept of a password, with the parameters it was made with.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct StoredPassword {
    pub(super) salt: [u8; SALT_BYTES],
    pub(super) hash: [u8; HASH_BYTES],
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
}

/// Computes hashes, never two at once: a second one would be another 19 MiB.
pub(super) struct Hasher {
    turn: Semaphore,
    hashed: AtomicU64,
}

impl Hasher {
    pub(super) fn new() -> Hasher {
        Hasher {
            turn: Semaphore::new(1),
            hashed: AtomicU64::new(0),
        }
    }

    /// How many hashes were computed.
    pub(super) fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    /// What to keep of a password that someone sets.
    pub(super) async fn store(&self, password: Password) -> Result<StoredPassword, Error> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt)?;
        let stored = StoredPassword {
            salt,
            hash: [0; HASH_BYTES],
            memory_kib: MEMORY_KIB,
            passes: PASSES,
        };
        let hash = self.hash(password, stored.clone()).await?;
        Ok(StoredPassword { hash, ..stored })
    }

    /// Whether the password is the one that was stored. Without one the same work is done for nothing, so
    /// that the time says nothing about whether there is such an account.
    pub(super) async fn verify(
        &self,
        password: Password,
        stored: Option<StoredPassword>,
    ) -> Result<bool, Error> {
        let known = stored.is_some();
        let stored = stored.unwrap_or(StoredPassword {
            salt: [0x5a; SALT_BYTES],
            hash: [0; HASH_BYTES],
            memory_kib: MEMORY_KIB,
            passes: PASSES,
        });
        let hash = self.hash(password, stored.clone()).await?;
        Ok(bool::from(hash.ct_eq(&stored.hash)) && known)
    }

    async fn hash(&self, password: Password, with: StoredPassword) -> Result<[u8; HASH_BYTES], Error> {
        let _turn = self.turn.acquire().await.map_err(|_| Error::Busy)?;
        self.hashed.fetch_add(1, Ordering::Relaxed);
        db::crossing(move || {
            let params = Params::new(with.memory_kib, with.passes, LANES, Some(HASH_BYTES))
                .map_err(|_| Error::Busy)?;
            let mut memory = Vec::new();
            let blocks = params.block_count();
            memory
                .try_reserve_exact(blocks.max(RESERVED_BLOCKS))
                .map_err(|_| Error::Busy)?;
            memory.resize(blocks, Block::default());
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let mut hash = [0; HASH_BYTES];
            let done = argon2.hash_password_into_with_memory(
                password.as_bytes(),
                &with.salt,
                &mut hash,
                &mut memory[..],
            );
            // With parameters and lengths of our own only memory can be missing.
            done.map(|()| hash).map_err(|_| Error::Busy)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn only_the_password_that_was_set_is_the_password() {
        let hasher = Hasher::new();
        let stored = hasher.store(password("correct horse")).await.unwrap();
        let verify =
            |text: &str, stored: Option<&StoredPassword>| hasher.verify(password(text), stored.cloned());
        assert!(verify("correct horse", Some(&stored)).await.unwrap());
        assert!(!verify("correct hors", Some(&stored)).await.unwrap());
        assert!(!verify("correct horse", None).await.unwrap());
        let again = hasher.store(password("correct horse")).await.unwrap();
        assert!(again != stored, "salted");
    }
}
