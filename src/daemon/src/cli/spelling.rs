//! What newcomers type: spellings that can mean one thing only are taken, others are answered with the
//! right one.

use std::ffi::OsString;

use crate::exit::Failure;

/// Options whose value is optional, and so stands behind an equals sign; and their values.
const OPTIONAL_VALUES: [(&str, &[&str]); 4] = [
    ("--posix-acl", &["never", "auto", "always"]),
    ("--security-label", &["never", "auto", "always"]),
    ("--local-locks", &["all", "flock", "posix"]),
    (
        "--inode-file-handles",
        &["auto", "never", "prefer", "mandatory"],
    ),
];

/// Joins an option with the value behind it where nothing else can be meant: a directory of that
/// name is written as `./always`. virtiofsd's own command line stays as strict as virtiofsd.
pub(super) fn joined(words: Vec<OsString>) -> Vec<OsString> {
    if words.get(1).is_some_and(|verb| verb == "virtiofsd") {
        return words;
    }
    let mut all = Vec::with_capacity(words.len());
    let mut words = words.into_iter().peekable();
    while let Some(mut word) = words.next() {
        let values = OPTIONAL_VALUES
            .iter()
            .find_map(|(option, values)| (word == *option).then_some(*values));
        let value =
            values.and_then(|values| words.next_if(|next| values.iter().any(|own| next == own)));
        if let Some(value) = value {
            word.push("=");
            word.push(value);
        }
        all.push(word);
    }
    all
}

/// Looks for a beginning that is no verb of ours and says which was meant.
///
/// # Errors
/// When it is one of those.
pub(super) fn check_verb(words: &[OsString]) -> Result<(), Failure> {
    let Some(verb) = words.get(1).and_then(|word| word.to_str()) else {
        return Ok(());
    };
    match verb {
        "umount" | "unmount" => Err(Failure::usage(
            "vfsd has no umount: stop `vfsd mount` with Ctrl-C or SIGTERM, or use `umount \
             MOUNTPOINT`",
        )),
        "--help" | "-h" | "--version" | "-V" => Ok(()),
        _ if verb.starts_with('-') => Err(Failure::usage(format!(
            "vfsd needs a verb before {verb}: `vfsd serve --socket-path SOCKET DIRECTORY`, or \
             `vfsd virtiofsd` for virtiofsd's command line"
        ))),
        _ => Ok(()),
    }
}

/// Refuses an option of virtiofsd where the source is an argument.
///
/// # Errors
/// Always.
pub(super) fn refuse_shared_dir(path: &str) -> Result<String, String> {
    Err(format!(
        "the directory is an argument here: `vfsd serve --socket-path SOCKET {path}` (`vfsd \
         virtiofsd` has virtiofsd's options)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_joined_with_its_option_and_a_source_is_not() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for (given, taken) in [
            ("--posix-acl always /srv", "--posix-acl=always /srv"),
            ("--posix-acl /srv", "--posix-acl /srv"),
            ("--posix-acl ./always", "--posix-acl ./always"),
            ("--tag always", "--tag always"),
            ("--security-label", "--security-label"),
        ] {
            assert_eq!(joined(words(given)), words(taken));
        }
    }

    #[test]
    fn a_beginning_without_a_verb_is_answered_with_one() {
        let check = |line: &str| {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            check_verb(&words).err().map(|failure| match failure {
                Failure::Usage(advice) => advice,
                other => panic!("{other:?}"),
            })
        };
        assert!(
            check("vfsd --socket-path s /srv").is_some_and(|advice| advice.contains("vfsd serve"))
        );
        assert!(check("vfsd umount /mnt").is_some_and(|advice| advice.contains("SIGTERM")));
        for line in [
            "vfsd",
            "vfsd --help",
            "vfsd -V",
            "vfsd serve --fd 3",
            "vfsd nonsense",
        ] {
            assert_eq!(check(line), None, "{line}");
        }
    }
}
