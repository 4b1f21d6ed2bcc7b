//! What is measured.

/// An operation of a guest: one request, or a few that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// LOOKUP of a file that is there.
    LookupHit,
    /// LOOKUP of a name that is not.
    LookupMiss,
    /// GETATTR of a file.
    Getattr,
    /// OPEN of a file to read, and RELEASE.
    OpenRelease,
    /// CREATE, RELEASE, UNLINK and the FORGET that follows.
    CreateUnlink,
    /// MKDIR, RMDIR and the FORGET that follows.
    MkdirRmdir,
    /// RENAME within a folder.
    Rename,
    /// READDIRPLUS of a large folder into buffers of 32 KiB; an operation is an entry.
    Readdirplus,
    /// GETXATTR of a short attribute.
    Getxattr,
    /// READ of so many bytes that the host has in its cache.
    Read(u32),
    /// WRITE of so many bytes over what the host has in its cache.
    Write(u32),
}

/// The transfers of READ and WRITE.
const TRANSFERS: [u32; 3] = [4 << 10, 128 << 10, 1 << 20];

impl Operation {
    /// Every operation, in the order of the table.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![
            Self::LookupHit,
            Self::LookupMiss,
            Self::Getattr,
            Self::OpenRelease,
            Self::CreateUnlink,
            Self::MkdirRmdir,
            Self::Rename,
            Self::Readdirplus,
            Self::Getxattr,
        ];
        all.extend(TRANSFERS.map(Self::Read));
        all.extend(TRANSFERS.map(Self::Write));
        all
    }

    /// The name of its rows.
    pub(crate) fn name(self) -> String {
        let transfer = |what: &str, bytes: u32| match bytes >> 10 {
            1024 => format!("{what} 1 MiB"),
            kibibytes => format!("{what} {kibibytes} KiB"),
        };
        match self {
            Self::LookupHit => "LOOKUP hit".into(),
            Self::LookupMiss => "LOOKUP miss".into(),
            Self::Getattr => "GETATTR".into(),
            Self::OpenRelease => "OPEN+RELEASE".into(),
            Self::CreateUnlink => "CREATE+UNLINK".into(),
            Self::MkdirRmdir => "MKDIR+RMDIR".into(),
            Self::Rename => "RENAME".into(),
            Self::Readdirplus => "READDIRPLUS entry".into(),
            Self::Getxattr => "GETXATTR".into(),
            Self::Read(bytes) => transfer("READ", bytes),
            Self::Write(bytes) => transfer("WRITE", bytes),
        }
    }

    /// Requests of one operation. Processor time is told for one of them; of READDIRPLUS, whose
    /// replies hold as many entries as the daemon likes, for one entry.
    pub(crate) fn requests(self) -> u32 {
        match self {
            Self::OpenRelease => 2,
            Self::MkdirRmdir => 3,
            Self::CreateUnlink => 4,
            _ => 1,
        }
    }

    /// The most slots of one queue.
    pub(crate) const MOST_SLOTS: usize = 64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_operations_share_a_name() {
        let mut names: Vec<String> = Operation::all().into_iter().map(Operation::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.contains(&"READ 1 MiB".into()), "{names:?}");
        assert!(names.contains(&"WRITE 128 KiB".into()), "{names:?}");
    }
}
