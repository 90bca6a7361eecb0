//! A bundle that is a file on a disk which is plugged in, read by the helper: the disk is mounted for that moment, and for nothing else.

use tokio::io::AsyncReadExt;

use super::Failure;
use crate::board::privileged::{Answer, Client, Command, Content};
use crate::id::{BundleName, DiskName};
use crate::node::{Arriving, Available, Source};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A file that the helper holds open.
pub(super) struct Stick {
    helper: Client,
    disk: DiskName,
    name: BundleName,
    content: Content,
}

impl Stick {
    /// Has the file opened; where no disk is named, there must be one disk alone with such a file.
    pub(super) async fn open(
        helper: &Client,
        disk: Option<&DiskName>,
        name: &BundleName,
    ) -> Result<Stick, Failure> {
        let disk = match disk {
            Some(disk) => disk.clone(),
            None => the_one(helper, name).await?,
        };
        let content = helper.read(&disk, name, 0).await;
        Ok(Stick {
            content: content.map_err(|trouble| Failure::Final(trouble.into()))?,
            helper: helper.clone(),
            disk,
            name: name.clone(),
        })
    }

    /// How long the file is.
    pub(super) fn size_bytes(&self) -> u64 {
        self.content.size_bytes
    }

    /// When it was changed last.
    pub(super) fn mark(&self) -> String {
        self.content.changed_s.to_string()
    }

    /// Brings what is not there yet.
    pub(super) async fn bring(
        self,
        arriving: &mut Arriving,
        hear: &mut (impl FnMut(u64) + Send),
    ) -> Result<(), Failure> {
        let mut content = match arriving.received() {
            0 => self.content,
            received => {
                let content = self.helper.read(&self.disk, &self.name, received).await;
                content.map_err(|trouble| Failure::Passing(trouble.to_string()))?
            }
        };
        let mut piece = vec![0; PIECE_BYTES];
        while arriving.received() < arriving.size_bytes() {
            let read = content.bytes.read(&mut piece).await;
            match read.map_err(|error| Failure::Passing(error.to_string()))? {
                0 => return Err(Failure::Passing("the disk gives no more of it".to_owned())),
                read => arriving.write(&piece[..read]).await?,
            }
            hear(arriving.received());
        }
        Ok(())
    }
}

async fn the_one(helper: &Client, name: &BundleName) -> Result<DiskName, Failure> {
    let asked = helper.ask(&Command::Bundles).await;
    let Answer::Bundles { bundles } = asked.map_err(|trouble| Failure::Final(trouble.into()))? else {
        return Err(Failure::elsewhere(
            &format!("usb:{name}"),
            "the helper lists none".to_owned(),
        ));
    };
    let mut disks = bundles.into_iter().filter(|found| found.name == *name);
    match (disks.next(), disks.next()) {
        (Some(found), None) => Ok(found.disk),
        (None, _) => Err(Failure::elsewhere(
            &format!("usb:{name}"),
            "no disk that is plugged in has it at its top: `refuge update check` lists what there is"
                .to_owned(),
        )),
        (Some(one), Some(other)) => Err(Failure::elsewhere(
            &format!("usb:{name}"),
            format!(
                "more than one disk has it: say usb:{}/{name} or usb:{}/{name}",
                one.disk, other.disk
            ),
        )),
    }
}

/// The bundles on disks; none where nobody can say.
pub(super) async fn look(helper: &Client) -> Vec<Available> {
    let bundles = match helper.ask(&Command::Bundles).await {
        Ok(Answer::Bundles { bundles }) => bundles,
        Ok(
            Answer::Disks { .. }
            | Answer::Mounted { .. }
            | Answer::Content { .. }
            | Answer::Done
            | Answer::Trouble { .. },
        ) => Vec::new(),
        Err(trouble) => {
            tracing::debug!(%trouble, "nobody says what is on disks");
            Vec::new()
        }
    };
    bundles
        .into_iter()
        .map(|found| Available {
            place: format!("{} on {}", found.title, found.disk),
            size_bytes: found.size_bytes,
            version: None,
            source: Source::Disk {
                disk: Some(found.disk),
                name: found.name,
            },
        })
        .collect()
}
