//! Questions about a running daemon.
//!
//! One line comes in, `status` or `metrics`, and the answer goes out up to the end of the
//! connection. Whoever may open the socket (mode 0600) may ask; nothing can be changed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::Mode;

use crate::exit::Failure;
use crate::listener::{self, OwnedFile};

/// Bytes of a question, at most.
const LONGEST_QUESTION: u64 = 64;

/// How long somebody may take to ask, or to read: they are answered one after the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// Creates the socket.
///
/// # Errors
/// When it cannot be created, or another process listens there.
pub(crate) fn bind(path: &Path) -> Result<(UnixListener, OwnedFile), Failure> {
    listener::bind(path, Mode::RUSR | Mode::WUSR)
}

/// What a daemon tells of itself.
pub(crate) trait Subject: Send + 'static {
    /// `name value` lines.
    fn status(&self) -> String;

    /// Counters as Prometheus text.
    fn metrics(&self) -> String;
}

/// Answers questions about `subject`, on a thread of its own, as long as the process lives.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(listener: UnixListener, subject: impl Subject) -> Result<(), Failure> {
    let answer_all = move || {
        for connection in listener.incoming() {
            let answered = connection.and_then(|connection| answer(&connection, &subject));
            if let Err(error) = answered {
                tracing::debug!("a question on the control socket was not answered: {error}");
            }
        }
    };
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(answer_all)
        .map(drop)
        .map_err(|error| Failure::run(format!("cannot start the control socket: {error}")))
}

fn answer(mut connection: &UnixStream, subject: &impl Subject) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut question = String::new();
    BufReader::new(connection)
        .take(LONGEST_QUESTION)
        .read_line(&mut question)?;
    let answer = match question.trim_end() {
        "status" => subject.status(),
        "metrics" => subject.metrics(),
        _ => "error ask `status` or `metrics`\n".to_owned(),
    };
    connection.write_all(answer.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Subject for Fixed {
        fn status(&self) -> String {
            "state fine\n".to_owned()
        }

        fn metrics(&self) -> String {
            "vfsd_nodes 1\n".to_owned()
        }
    }

    fn ask(question: &str) -> String {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(question.as_bytes()).unwrap();
        answer(&theirs, &Fixed).unwrap();
        drop(theirs);
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_question_is_one_line() {
        assert_eq!(ask("status\n"), "state fine\n");
        assert_eq!(ask("metrics\n"), "vfsd_nodes 1\n");
    }

    #[test]
    fn another_question_is_answered_with_those_there_are() {
        assert!(ask("stop\n").starts_with("error"));
    }

    #[test]
    fn a_question_without_an_end_is_cut_off() {
        let endless = "a".repeat(1000);
        assert!(ask(&endless).starts_with("error"));
    }
}
