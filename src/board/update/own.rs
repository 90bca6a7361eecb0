//! What a box takes: what is for its kind, and newer than what it has or could have. Pure.

use crate::id::Version;
use crate::node::UpdateTrouble;

/// What this box is, and what its owner said of this bundle.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) running: Version,
    pub(super) compatible: String,
    pub(super) may_be_older: bool,
    /// What its channel has, where one is set and was believed: whoever brings an older one, by whatever way, holds back what mends
    /// the box (security row S24).
    pub(super) channel: Option<Version>,
}

impl Own {
    /// Whether it takes a bundle that is this version for those boxes.
    ///
    /// # Errors
    /// [`UpdateTrouble::OtherBoard`], [`UpdateTrouble::Older`], [`UpdateTrouble::Withheld`].
    pub(super) fn takes(&self, compatible: &str, version: &Version) -> Result<(), UpdateTrouble> {
        if compatible != self.compatible {
            return Err(UpdateTrouble::OtherBoard {
                compatible: compatible.to_owned(),
                own: self.compatible.clone(),
            });
        }
        if self.may_be_older {
            return Ok(());
        }
        if *version <= self.running {
            return Err(UpdateTrouble::Older {
                version: version.clone(),
                running: self.running.clone(),
            });
        }
        match self.channel.as_ref().filter(|channel| version < channel) {
            Some(channel) => Err(UpdateTrouble::Withheld {
                version: version.clone(),
                channel: channel.clone(),
            }),
            None => Ok(()),
        }
    }
}
