//! The configuration file: several exports for one guest.
//!
//! ```toml
//! local_locks = "all"      # as --local-locks; a guest agrees on it once for all of its exports
//!
//! [[export]]
//! name = "home"            # the directory that the guest sees
//! source = "dir:/srv/home" # as on the command line
//! readonly = true          # false when left out
//!
//! [[export]]
//! name = "root"
//! lowers = ["dir:/srv/tools", "dir:/srv/base"] # instead of a source: several, the topmost first
//! upper = "/srv/vm1"       # changes go there; without it the export is read-only
//! work = "/srv/vm1.work"   # as --work, --upper-xattr and --shared
//! upper_xattr = "user"
//! shared = true
//! ```
//!
//! Everything else is an option of the command line, so that a safety option has one place and
//! cannot be overridden by another.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use vfsd_overlay::Namespace;
use vfsd_server::Exports;

use crate::cli::Marks;
use crate::cli::choices::Locks;
use crate::exit::Failure;
use crate::settings::{ExportSettings, LocalLocks};
use crate::source::{Layers, Source, Upper};

/// A configuration is no larger.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    local_locks: Option<Locks>,
    #[serde(default)]
    export: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    source: Option<String>,
    lowers: Option<Vec<String>>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    upper_xattr: Option<Marks>,
    shared: Option<bool>,
    readonly: Option<bool>,
}

/// What a file says.
#[derive(Debug, PartialEq)]
pub(crate) struct Configuration {
    pub(crate) exports: Vec<ExportSettings>,
    pub(crate) local_locks: LocalLocks,
}

/// Reads a file. With `readonly` all exports are, and none may say otherwise.
///
/// # Errors
/// When the file cannot be read or understood, or contradicts `--readonly`.
pub(crate) fn read(path: &Path, readonly: bool) -> Result<Configuration, Failure> {
    let text = read_text(path).map_err(|error| {
        Failure::run(format!(
            "cannot read the configuration {}: {error}",
            path.display()
        ))
    })?;
    parse(&text, readonly)
        .map_err(|error| Failure::usage(format!("configuration {}: {error}", path.display())))
}

/// The text of a file, which may be anything that the command line named.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_BYTES.saturating_add(1))
        .read_to_string(&mut text)?;
    match u64::try_from(text.len()) {
        Ok(0..=MAX_BYTES) => Ok(text),
        _ => Err(io::Error::other(format!(
            "it is larger than {MAX_BYTES} bytes, which no configuration is"
        ))),
    }
}

fn parse(text: &str, readonly: bool) -> Result<Configuration, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    if file.export.is_empty() {
        return Err("it lists no export: add an [[export]] with name and source".to_owned());
    }
    let names = file.export.iter().map(|entry| entry.name.as_str());
    Exports::check_names(names).map_err(|error| error.to_string())?;
    let exports = file.export.into_iter();
    Ok(Configuration {
        exports: exports
            .map(|entry| entry.settings(readonly))
            .collect::<Result<_, _>>()?,
        local_locks: file.local_locks.map(Locks::into).unwrap_or_default(),
    })
}

impl Entry {
    fn settings(self, readonly: bool) -> Result<ExportSettings, String> {
        if readonly && self.readonly == Some(false) {
            return Err(format!(
                "export {:?} says readonly = false, the command line says --readonly: remove one \
                 of them",
                self.name
            ));
        }
        let readonly = readonly || self.readonly.unwrap_or(false);
        let source = self
            .storage()
            .map_err(|error| format!("export {:?}: {error}", self.name))?;
        Ok(ExportSettings {
            name: Some(self.name),
            readonly,
            source,
        })
    }

    /// What is served: a source, or several over one another.
    fn storage(&self) -> Result<Source, String> {
        let parse =
            |word: &String| Source::parse(OsStr::new(word)).map_err(|error| error.to_string());
        let of_upper = self.work.is_some() || self.upper_xattr.is_some() || self.shared.is_some();
        if of_upper && self.upper.is_none() {
            return Err("work, upper_xattr and shared go with an upper: add it".to_owned());
        }
        let lowers = match (&self.source, &self.lowers) {
            (Some(source), None) if self.upper.is_none() => return parse(source),
            (Some(source), None) => vec![parse(source)?],
            (None, Some(lowers)) if !lowers.is_empty() => {
                lowers.iter().map(parse).collect::<Result<_, _>>()?
            }
            _ => return Err("it needs either a source, or lowers with at least one".to_owned()),
        };
        Ok(Source::new(Layers {
            lowers,
            upper: self.upper.clone().map(|dir| Upper {
                dir,
                work: self.work.clone(),
                namespace: self.upper_xattr.map(Namespace::from),
                shared: self.shared.unwrap_or(false),
            }),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exports(text: &str, readonly: bool) -> Result<Vec<ExportSettings>, String> {
        parse(text, readonly).map(|read| read.exports)
    }

    #[test]
    fn a_file_without_an_end_is_no_configuration() {
        let refused = super::read(Path::new("/dev/zero"), false).err();
        assert!(
            matches!(&refused, Some(Failure::Run(told)) if told.contains("larger than")),
            "{refused:?}"
        );
    }

    #[test]
    fn exports_are_read_in_order() {
        let text = "
            [[export]]
            name = 'home'
            source = 'dir:/srv/home'
            readonly = true
            [[export]]
            name = 'scratch'
            source = 'memory:'
        ";
        let expected = vec![
            ExportSettings {
                name: Some("home".into()),
                source: Source::parse(OsStr::new("/srv/home")).unwrap(),
                readonly: true,
            },
            ExportSettings {
                name: Some("scratch".into()),
                source: Source::parse(OsStr::new("memory:")).unwrap(),
                readonly: false,
            },
        ];
        assert_eq!(exports(text, false), Ok(expected));
    }

    #[test]
    fn locks_can_be_kept_in_the_guest_for_all_exports() {
        let export = "[[export]]\nname='a'\nsource='memory:'\n";
        let read = |line: &str| parse(&format!("{line}\n{export}"), false);
        for (line, flock, posix) in [
            ("", false, false),
            ("local_locks = 'all'", true, true),
            ("local_locks = 'flock'", true, false),
            ("local_locks = 'posix'", false, true),
        ] {
            let expected = LocalLocks { flock, posix };
            assert_eq!(read(line).unwrap().local_locks, expected, "{line}");
        }
        assert!(
            read("local_locks = 'none'")
                .unwrap_err()
                .contains("local_locks")
        );
        let within = parse(&format!("{export}local_locks = 'all'\n"), false);
        assert!(within.unwrap_err().contains("local_locks"));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = parse(
            "[[export]]\nname='a'\nsource='memory:'\nread_only=true\n",
            false,
        );
        assert!(error.unwrap_err().contains("read_only"));
        assert!(
            parse("sandbox = 'none'\n", false)
                .unwrap_err()
                .contains("sandbox")
        );
    }

    #[test]
    fn a_missing_key_is_refused_by_name() {
        assert!(
            parse("[[export]]\nname='a'\n", false)
                .unwrap_err()
                .contains("source")
        );
    }

    #[test]
    fn layers_are_read_the_topmost_first() {
        let text = "
            [[export]]
            name = 'root'
            lowers = ['dir:/srv/tools', '/srv/base']
            upper = '/srv/vm1'
            upper_xattr = 'user'
            [[export]]
            name = 'tools'
            lowers = ['/srv/tools', '/srv/base']
        ";
        let shown: Vec<_> = exports(text, false)
            .unwrap()
            .iter()
            .map(|export| export.source.to_string())
            .collect();
        let lowers = "dir:/srv/tools over dir:/srv/base";
        assert_eq!(
            shown,
            [format!("upper /srv/vm1 over {lowers}"), lowers.to_owned()]
        );
    }

    #[test]
    fn layers_that_contradict_themselves_are_refused() {
        for (keys, complaint) in [
            ("source='/a'\nlowers=['/b']", "either"),
            ("lowers=[]", "at least one"),
            ("source='/a'\nwork='/w'", "upper"),
            ("source='/a'\nupper='/u'\nupper_xattr='root'", "upper_xattr"),
        ] {
            let error = parse(&format!("[[export]]\nname='a'\n{keys}\n"), false).unwrap_err();
            assert!(error.contains(complaint), "{keys}: {error}");
        }
    }

    #[test]
    fn a_file_without_exports_is_refused() {
        assert!(parse("", false).unwrap_err().contains("no export"));
    }

    #[test]
    fn a_source_of_another_version_is_refused_with_its_export() {
        let error = parse("[[export]]\nname='img'\nsource='plugin:'\n", false).unwrap_err();
        assert!(
            error.contains("\"img\"") && error.contains("plugin:"),
            "{error}"
        );
    }

    #[test]
    fn readonly_on_the_command_line_holds_for_all_and_cannot_be_contradicted() {
        let silent = "[[export]]\nname='a'\nsource='memory:'\n";
        assert!(
            exports(silent, true)
                .unwrap()
                .iter()
                .all(|export| export.readonly)
        );
        let contradicting = format!("{silent}readonly = false\n");
        assert!(
            parse(&contradicting, true)
                .unwrap_err()
                .contains("--readonly")
        );
    }

    #[test]
    fn a_file_of_any_bytes_is_read_or_refused_in_words() {
        const WORDS: [&str; 14] = [
            "[[export]]\n",
            "name = 'a'\n",
            "source = 'memory:'\n",
            "source = 'dir:/srv'\n",
            "lowers = ['/srv/tools', 'oci:/x:y']\n",
            "upper = '/u'\n",
            "work = '/w'\n",
            "upper_xattr = 'user'\n",
            "shared = true\n",
            "readonly = false\n",
            "local_locks = 'all'\n",
            "[export.more]\n",
            "source = 's3://bucket/prefix?a=b'\n",
            "x = {a = [1, 2.5, 1979-05-27], 'b' = \"\\u0000\"}\n",
        ];
        // xorshift64.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |end: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap() % end
        };
        let mut read = 0;
        for _ in 0..20_000 {
            let mut text = match below(2) {
                0 => WORDS[..3].concat(),
                _ => String::new(),
            };
            for _ in 0..below(8) {
                text.push_str(WORDS[below(WORDS.len())]);
            }
            for _ in 0..below(3) {
                let at = below(text.len() + 1);
                if !text.is_char_boundary(at) {
                    continue;
                }
                match below(3) {
                    0 => text.truncate(at),
                    1 => text.insert(at, char::from(u8::try_from(below(256)).unwrap())),
                    _ => text.insert_str(at, WORDS[below(WORDS.len())]),
                }
            }
            match parse(&text, below(2) == 0) {
                Ok(configuration) => {
                    read += 1;
                    assert!(!configuration.exports.is_empty(), "{text}");
                }
                Err(error) => assert!(!error.is_empty(), "{text}"),
            }
        }
        assert!(read > 50, "only {read} could be read");
    }
}
