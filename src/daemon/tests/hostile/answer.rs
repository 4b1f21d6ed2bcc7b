//! Tables: a request, and what it must be answered with.

use vfsd_testkit::frontend::Error;
use vfsd_testkit::frontend::channel::{Request, Returned};

use crate::scene::Scene;

/// The answers a row allows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// Success.
    Fine,
    /// One of these errnos.
    Refused(&'static [i32]),
    /// Success, or one of these errnos.
    FineOr(&'static [i32]),
    /// No reply: used length 0.
    Silence,
    /// One of these errnos, or no reply: where the fault hides the header or the room for a reply
    /// from a device that stops at it.
    RefusedOrSilent(&'static [i32]),
}

pub(crate) const EINVAL: Answer = Answer::Refused(&[libc::EINVAL]);
pub(crate) const EIO: Answer = Answer::Refused(&[libc::EIO]);
pub(crate) const EBADF: Answer = Answer::Refused(&[libc::EBADF]);
pub(crate) const ENOSYS: Answer = Answer::Refused(&[libc::ENOSYS]);

/// One line of a table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) request: Request,
    pub(crate) answer: Answer,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, request: Request, answer: Answer) -> Self {
        Self {
            name: name.into(),
            request,
            answer,
        }
    }
}

impl Answer {
    /// Asserts that what came back is one of the answers allowed.
    pub(crate) fn judge(self, row: &str, returned: &Returned) {
        let refused_with = |errnos: &[i32]| match returned.reply() {
            Err(Error::Errno(errno)) => errnos.contains(&errno),
            _ => false,
        };
        let allowed = match self {
            Answer::Fine => returned.reply().is_ok(),
            Answer::Refused(errnos) => refused_with(errnos),
            Answer::FineOr(errnos) => returned.reply().is_ok() || refused_with(errnos),
            Answer::Silence => returned.silence().is_ok(),
            Answer::RefusedOrSilent(errnos) => refused_with(errnos) || returned.silence().is_ok(),
        };
        let (used, reply) = (returned.used, returned.reply());
        assert!(
            allowed,
            "{row}: used length {used}, {reply:?}; allowed is {self:?}"
        );
    }
}

impl Scene {
    /// Plays one row on the hostile ring, without the checks that follow.
    pub(crate) fn ask(&mut self, row: &Row) -> Returned {
        let returned = self
            .guest
            .channel
            .exchange(&row.request)
            .unwrap_or_else(|error| panic!("{}: {error}", row.name));
        row.answer.judge(&row.name, &returned);
        returned
    }

    /// Plays all rows, with the checks of [`Scene::check`] after each.
    pub(crate) fn play(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            self.ask(&row);
            self.check(&row.name);
        }
    }

    /// Plays all rows, with the checks of [`Scene::check`] after the last: for tables so long that
    /// a single row is not worth them.
    pub(crate) fn play_all(&mut self, name: &str, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            self.ask(&row);
        }
        self.check(name);
    }
}
