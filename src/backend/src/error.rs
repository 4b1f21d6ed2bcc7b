//! What a backend met: an errno with a meaning for the caller, or a failure of the storage.

use std::fmt;

pub use rustix::io::Errno;

/// Of what a peer said, no more is shown.
const MOST_CHARACTERS: usize = 600;

/// The result of a backend's work.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation was not done.
///
/// The server turns it into the errno that the guest sees, in one table (`errno.rs` of the server).
#[derive(Debug)]
pub enum Error {
    /// The answer that POSIX, or Linux, gives in this case.
    Errno(Errno),
    /// The backend does not implement the operation. Depending on the operation the guest sees
    /// ENOSYS (and does not ask again) or EOPNOTSUPP.
    NotSupported,
    /// The storage failed: EIO to the guest, the reason to the log.
    Storage(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether this is exactly the given errno.
    pub fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Errno(own) if *own == errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => errno.fmt(f),
            Self::NotSupported => f.write_str("operation not supported by this storage"),
            Self::Storage(_) => f.write_str("the storage failed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Storage(source) => Some(source.as_ref()),
            Self::Errno(_) | Self::NotSupported => None,
        }
    }
}

/// An error and its causes on one line, for a log or an operator: each cause that the text before does
/// not say already, without line breaks and control characters, cut after 600 characters.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    let text: String = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => Self::Errno(errno),
            None => Self::Storage(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Told(&'static str, Option<Box<Told>>);

    impl fmt::Display for Told {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Told {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1
                .as_deref()
                .map(|cause| cause as &(dyn std::error::Error + 'static))
        }
    }

    #[test]
    fn causes_follow_on_one_line_and_are_said_once() {
        let root = Told("no\n\tanswer\x1b[2J", None);
        let middle = Told("cannot connect", Some(Box::new(root)));
        let top = Told("failed: cannot connect", Some(Box::new(middle)));
        assert_eq!(
            one_line(&top),
            "failed: cannot connect: no answer [2J",
            "a cause that is said already, line breaks and control characters"
        );
    }

    #[test]
    fn a_long_text_is_cut() {
        let long: &'static str = Box::leak("x".repeat(700).into_boxed_str());
        let line = one_line(&Told(long, None));
        assert_eq!(line.len(), MOST_CHARACTERS + 3);
        assert!(line.ends_with("..."));
    }
}
