//! Landlock: files outside the shares stay out of reach even to one who has left the sandbox.

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError,
};

use super::{Inside, Needs};
use crate::exit::Failure;

/// The oldest version in which files can be moved between directories.
const OLDEST: ABI = ABI::V2;

/// The newest version whose rights are known here.
const NEWEST: ABI = ABI::V5;

/// Restricts this thread, and those it starts later, to the shares.
///
/// A kernel that has no Landlock, or not enough of it, leaves them unrestricted. So do file
/// handles: an inode opened by handle can be without a known path to the share, and Landlock then
/// refuses it.
///
/// # Errors
/// When a kernel that has it does not do it.
pub(super) fn restrict(needs: Needs, inside: &Inside) -> Result<(), Failure> {
    if needs.file_handles {
        tracing::debug!("no Landlock: it refuses files that are opened by handle");
        return Ok(());
    }
    let outdated = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(OLDEST))
        .and_then(Ruleset::create)
        .is_err();
    if outdated {
        tracing::debug!("no Landlock: this kernel does not have enough of it");
        return Ok(());
    }
    restrict_to(needs, inside).map_err(|error| {
        Failure::run(format!(
            "cannot restrict the daemon to its shares with Landlock: {error}"
        ))
    })
}

fn restrict_to(needs: Needs, inside: &Inside) -> Result<(), RulesetError> {
    let rights = AccessFs::from_all(NEWEST);
    let mut rules = Ruleset::default().handle_access(rights)?.create()?;
    for root in &inside.roots {
        rules = rules.add_rule(PathBeneath::new(&root.descriptor, rights))?;
    }
    if needs.network {
        let read = AccessFs::from_read(NEWEST);
        for path in super::resolver::FILES {
            // What this host does not have needs no rule.
            if let Ok(file) = PathFd::new(path) {
                let rights = match std::path::Path::new(path).is_dir() {
                    true => read,
                    false => read & AccessFs::from_file(NEWEST),
                };
                rules = rules.add_rule(PathBeneath::new(file, rights))?;
            }
        }
    }
    rules.restrict_self().map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::ErrorKind;

    use super::*;
    use crate::source::Root;

    fn supported() -> bool {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(OLDEST))
            .and_then(Ruleset::create)
            .is_ok()
    }

    #[test]
    fn a_restricted_thread_reaches_the_shares_and_nothing_else() {
        if !supported() {
            eprintln!("skipped: this kernel has no Landlock, or not enough of it");
            return;
        }
        let share = tempfile::tempdir().unwrap();
        let (inner, outer) = (
            share.path().join("f"),
            tempfile::NamedTempFile::new().unwrap(),
        );
        std::fs::write(&inner, "").unwrap();
        let inside = Inside {
            roots: vec![Root {
                descriptor: File::open(share.path()).unwrap().into(),
                path: share.path().to_owned(),
            }],
            proc_self_fd: File::open("/proc/self/fd").unwrap().into(),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                restrict(
                    Needs {
                        files: true,
                        ..Needs::default()
                    },
                    &inside,
                )
                .unwrap();
                assert!(File::open(&inner).is_ok());
                assert!(std::fs::rename(&inner, share.path().join("g")).is_ok());
                let refused = File::open(outer.path()).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
            });
        });
        assert!(
            File::open(outer.path()).is_ok(),
            "other threads are as before"
        );
    }

    #[test]
    fn file_handles_leave_a_thread_unrestricted() {
        let inside = Inside {
            roots: Vec::new(),
            proc_self_fd: File::open("/proc/self/fd").unwrap().into(),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let needs = Needs {
                    files: true,
                    file_handles: true,
                    ..Needs::default()
                };
                restrict(needs, &inside).unwrap();
                assert!(File::open("/proc/self/fd").is_ok());
            });
        });
    }
}
