//! The bodies of a registry's answers, bounded in size and in time.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use reqwest::blocking::Response;
use serde::de::DeserializeOwned;

use super::client::reason;
use super::{Limits, RegistryError};
use crate::counters::Meter;

/// How much is read of an answer that says what is wrong.
const PROBLEM_MAX: u64 = 16 << 10;

/// What a registry says of its refusal.
pub(super) fn detail(response: Response) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Problem {
        message: Option<String>,
        code: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Problems {
        errors: Vec<Problem>,
    }
    let mut bytes = Vec::new();
    response.take(PROBLEM_MAX).read_to_end(&mut bytes).ok()?;
    let problems: Problems = serde_json::from_slice(&bytes).ok()?;
    let first = problems.errors.into_iter().next()?;
    let text = first.message.or(first.code)?;
    let text: String = text.chars().take(200).collect();
    Some(format!(" ({})", text.escape_debug()))
}

/// Reads a document of at most `most` bytes.
pub(super) fn document(
    response: Response,
    what: &str,
    most: u64,
    limits: &Limits,
    meter: &Meter,
) -> Result<Vec<u8>, RegistryError> {
    let wrong = |reason: String| RegistryError::Answer {
        what: what.to_owned(),
        reason,
    };
    let length = response.content_length();
    let mut bytes = Vec::new();
    let mut body = Body::new(response, most.saturating_add(1), limits.idle, meter.clone());
    body.read_to_end(&mut bytes)
        .map_err(|error| RegistryError::Connection {
            what: what.to_owned(),
            reason: error.to_string(),
        })?;
    let read = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    match read > most || length.is_some_and(|length| length > most) {
        true => Err(RegistryError::Status {
            what: what.to_owned(),
            status: 200,
            detail: format!(" with more than {most} bytes"),
        }),
        false if length.is_some_and(|length| length != read) => Err(wrong(
            "the answer has another length than it says".to_owned(),
        )),
        false => Ok(bytes),
    }
}

/// Reads JSON of a successful answer.
pub(super) fn json<T: DeserializeOwned>(
    response: Response,
    what: &str,
    most: u64,
    meter: &Meter,
) -> Result<T, RegistryError> {
    let status = response.status().as_u16();
    match status {
        200..=299 => {}
        429 | 500..=599 => {
            return Err(RegistryError::Busy {
                what: what.to_owned(),
                status,
                after: None,
            });
        }
        _ => {
            return Err(RegistryError::Status {
                what: what.to_owned(),
                status,
                detail: detail(response).unwrap_or_default(),
            });
        }
    }
    let bytes = document(response, what, most, &Limits::default(), meter)?;
    serde_json::from_slice(&bytes).map_err(|_| RegistryError::Answer {
        what: what.to_owned(),
        // Its own words could have a part of a secret.
        reason: "malformed JSON".to_owned(),
    })
}

/// The bytes of an answer, at most so many, which must keep coming.
#[derive(Debug)]
pub(super) struct Body {
    response: Response,
    left: u64,
    idle: Duration,
    since: Instant,
    arrived: u64,
    meter: Meter,
}

impl Body {
    pub(super) fn new(response: Response, most: u64, idle: Duration, meter: Meter) -> Self {
        Self {
            response,
            left: most,
            idle,
            since: Instant::now(),
            arrived: 0,
            meter,
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let length = buffer.len().min(most);
        let target = buffer.get_mut(..length).unwrap_or_default();
        if target.is_empty() {
            return Ok(0);
        }
        let count = self.response.read(target).map_err(plain)?;
        let read = u64::try_from(count).unwrap_or(u64::MAX);
        self.meter.received(read);
        self.left = self.left.saturating_sub(read);
        self.arrived = self.arrived.saturating_add(read);
        if self.since.elapsed() > self.idle {
            if self.arrived < Limits::LEAST && self.left > 0 {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "hardly any bytes arrive",
                ));
            }
            (self.since, self.arrived) = (Instant::now(), 0);
        }
        Ok(count)
    }
}

/// The innermost cause: the outer ones say no more than that a body could not be read.
fn plain(error: io::Error) -> io::Error {
    let text = match error
        .get_ref()
        .and_then(|it| it.downcast_ref::<reqwest::Error>())
    {
        Some(inner) => reason(inner),
        None => return error,
    };
    io::Error::new(error.kind(), text)
}
