//! What is served, as the command line names it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A storage to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A directory, or a single file, of this host.
    Path(PathBuf),
    /// An empty tree in memory, gone when the daemon ends.
    Memory,
}

/// Why a word names nothing that can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceError {
    /// A kind of source that this version does not have.
    NotInThisVersion(&'static str),
    /// Nothing behind the prefix.
    NoPath,
    /// `memory:` with something behind it.
    MemoryTakesNothing(String),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInThisVersion(kind) => write!(
                f,
                "{kind} sources are not in this version: serve a directory (PATH or dir:PATH) or \
                 memory: (a directory of that name is dir:./{kind}...)"
            ),
            Self::NoPath => f.write_str("no directory named: use PATH or dir:PATH"),
            Self::MemoryTakesNothing(rest) => {
                write!(f, "memory: takes nothing behind it, remove {rest:?}")
            }
        }
    }
}

impl std::error::Error for SourceError {}

/// Kinds of sources that the command line reserves. A path that begins like one of them is given
/// as `dir:PATH`.
const RESERVED: [&str; 6] = [
    "oci:",
    "docker://",
    "docker-archive:",
    "s3://",
    "volume:",
    "plugin:",
];

impl Source {
    /// Reads `PATH`, `dir:PATH` or `memory:`.
    ///
    /// # Errors
    /// When the word names another kind of source, or no path.
    pub(crate) fn parse(word: &OsStr) -> Result<Self, SourceError> {
        let bytes = word.as_bytes();
        if let Some(rest) = bytes.strip_prefix(b"memory:") {
            return if rest.is_empty() {
                Ok(Self::Memory)
            } else {
                Err(SourceError::MemoryTakesNothing(
                    String::from_utf8_lossy(rest).into_owned(),
                ))
            };
        }
        if let Some(kind) = RESERVED
            .into_iter()
            .find(|kind| bytes.starts_with(kind.as_bytes()))
        {
            return Err(SourceError::NotInThisVersion(kind));
        }
        let path = bytes.strip_prefix(b"dir:").unwrap_or(bytes);
        if path.is_empty() {
            return Err(SourceError::NoPath);
        }
        Ok(Self::Path(PathBuf::from(OsString::from_vec(path.to_vec()))))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "dir:{}", path.display()),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

/// Reads a source for clap, which hands over words that need not be UTF-8.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceParser;

impl clap::builder::TypedValueParser for SourceParser {
    type Value = Source;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Source, clap::Error> {
        use clap::builder::StringValueParser;
        Source::parse(value).map_err(|error| {
            // Going through the string parser gives the error clap's usual form.
            let refuse = move |_: String| Err::<Source, _>(error.clone());
            let lossy = OsString::from(value.to_string_lossy().into_owned());
            match StringValueParser::new()
                .try_map(refuse)
                .parse_ref(command, argument, &lossy)
            {
                Err(error) => error,
                Ok(_) => clap::Error::new(clap::error::ErrorKind::ValueValidation),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(word: &str) -> Result<Source, SourceError> {
        Source::parse(OsStr::new(word))
    }

    #[test]
    fn a_path_needs_no_prefix() {
        assert_eq!(parse("/srv/share"), Ok(Source::Path("/srv/share".into())));
        assert_eq!(
            parse("dir:/srv/share"),
            Ok(Source::Path("/srv/share".into()))
        );
        assert_eq!(parse("./memory:"), Ok(Source::Path("./memory:".into())));
        assert_eq!(parse("dir:s3://b"), Ok(Source::Path("s3://b".into())));
    }

    #[test]
    fn a_path_may_be_any_bytes() {
        let word = OsStr::from_bytes(b"dir:/srv/\xff");
        let path = PathBuf::from(OsStr::from_bytes(b"/srv/\xff"));
        assert_eq!(Source::parse(word), Ok(Source::Path(path)));
    }

    #[test]
    fn memory_takes_nothing_behind_it() {
        assert_eq!(parse("memory:"), Ok(Source::Memory));
        assert_eq!(
            parse("memory:64M"),
            Err(SourceError::MemoryTakesNothing("64M".into()))
        );
    }

    #[test]
    fn kinds_to_come_are_refused_by_name() {
        for (word, kind) in [
            ("oci:layout:tag", "oci:"),
            ("docker://alpine", "docker://"),
            ("docker-archive:a.tar", "docker-archive:"),
            ("s3://bucket", "s3://"),
            ("volume:s3://b/p", "volume:"),
            ("plugin:exec:prog", "plugin:"),
        ] {
            assert_eq!(
                parse(word),
                Err(SourceError::NotInThisVersion(kind)),
                "{word}"
            );
        }
    }

    #[test]
    fn a_source_without_a_path_is_refused() {
        assert_eq!(parse(""), Err(SourceError::NoPath));
        assert_eq!(parse("dir:"), Err(SourceError::NoPath));
    }
}
