//! What is mounted where: `/proc/self/mountinfo`, read (proc_pid_mountinfo(5)).

use std::path::{Path, PathBuf};

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::board) struct Mount {
    /// Major and minor number of its device, as `8:1`.
    pub(in crate::board) device: String,
    /// Where it is mounted.
    pub(in crate::board) path: PathBuf,
    /// Whether it takes no writes.
    pub(in crate::board) is_read_only: bool,
}

/// Reads the file's text; a line that is none is passed over.
pub(in crate::board) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

/// The mount at exactly this path: the last one hides those before.
pub(in crate::board) fn at<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.path == path)
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &str) -> Option<Mount> {
    let (own, of_system) = line.split_once(" - ")?;
    let mut fields = own.split(' ');
    let device = fields.nth(2)?;
    let path = fields.nth(1)?;
    let options = fields.next()?;
    // The file system's own options say when it went read-only by itself.
    let super_options = of_system.split(' ').nth(2)?;
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount {
        device: device.to_owned(),
        path: PathBuf::from(unescape(path)),
        is_read_only: is_read_only(options) || is_read_only(super_options),
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (code, character)| {
            path.replace(code, character)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_optional_fields_and_odd_names() {
        let text = "22 1 179:2 / / ro,relatime - ext4 /dev/root ro\n\
                    36 22 179:4 / /data rw,noatime shared:1 - ext4 /dev/mmcblk0p4 rw,errors=remount-ro\n\
                    40 22 8:0 / /run/a\\040b rw shared:2 master:3 - ext4 /dev/sda ro\n\
                    nonsense\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[1].device, "179:4");
        assert!(!mounts[1].is_read_only && mounts[0].is_read_only);
        let odd = at(&mounts, Path::new("/run/a b")).unwrap();
        assert!(
            odd.device == "8:0" && odd.is_read_only,
            "the kernel turned it read-only"
        );
        assert_eq!(at(&mounts, Path::new("/run")), None);
    }
}
