//! A blob in a registry, read by ranges.

use std::io::{self, Read as _};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use reqwest::Url;
use reqwest::header::CONTENT_RANGE;

use crate::blob::{BlobSource, Check, Sha256Digest};
use crate::counters::RequestKind;

use super::body::Body;
use super::client::{Answer, Client, Get, text};
use super::{Limits, RegistryError};

/// How far a server that knows no ranges is read in vain.
const SKIP_MAX: u64 = 64 << 20;

/// Where a blob is.
#[derive(Debug)]
pub(super) struct Place {
    client: Arc<Client>,
    digest: Sha256Digest,
    size: u64,
    url: Url,
    what: String,
    /// Where the registry sent us last.
    elsewhere: Mutex<Option<Url>>,
    /// Where it is, too.
    next: Option<Arc<Self>>,
}

impl Place {
    pub(super) fn new(
        client: Arc<Client>,
        digest: Sha256Digest,
        size: u64,
        next: Option<Arc<Self>>,
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            url: client.url("blobs", &digest.to_string())?,
            what: format!("{}, blob {digest}", client.image()),
            elsewhere: Mutex::new(None),
            next,
            client,
            digest,
            size,
        })
    }

    pub(super) fn digest(&self) -> Sha256Digest {
        self.digest
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// What came of it, or was kept of it, is wrong.
    pub(super) fn count_wrong(&self) {
        self.client.counters().wrong();
    }

    /// The first place that is not avoided, or the last.
    fn best(mut place: Arc<Self>) -> Arc<Self> {
        while let Some(next) = place.next.clone().filter(|_| place.client.is_avoided()) {
            place = next;
        }
        place
    }

    /// Asks once for some bytes. The body may end early, and begins where it should.
    fn open(&self, range: &Range<u64>) -> Result<Body, RegistryError> {
        let known = self.elsewhere.lock().clone();
        if let Some(url) = known {
            // Such a URL is good for a while only. Whatever is wrong with it, the registry knows a better one.
            match self.ask(&url, range) {
                Ok((body, _)) => return Ok(body),
                Err(_) => *self.elsewhere.lock() = None,
            }
        }
        let (body, elsewhere) = self.ask(&self.url, range)?;
        *self.elsewhere.lock() = elsewhere;
        Ok(body)
    }

    fn ask(&self, url: &Url, range: &Range<u64>) -> Result<(Body, Option<Url>), RegistryError> {
        let whole = range.start == 0 && range.end == self.size;
        let last = (range.end < self.size).then(|| range.end.saturating_sub(1));
        let answer = self.client.get(&Get {
            what: &self.what,
            kind: RequestKind::Blob,
            url,
            accept: None,
            range: (!whole).then_some((range.start, last)),
        })?;
        let Answer {
            response,
            elsewhere,
        } = answer;
        let length = response.content_length();
        let (idle, counters) = (self.client.limits().idle, self.client.counters());
        let meter = counters.meter(RequestKind::Blob);
        if response.status().as_u16() == 206 {
            let sent = text(response.headers(), CONTENT_RANGE).and_then(content_range);
            let Some((sent, total)) = sent else {
                return Err(self.wrong("a piece of the blob that it does not name"));
            };
            let fits = sent.start == range.start && sent.end <= range.end;
            let count = sent.end.saturating_sub(sent.start);
            if !fits || total.is_some_and(|total| total != self.size) {
                return Err(self.wrong("another piece of the blob"));
            }
            if length.is_some_and(|length| length != count) {
                return Err(self.wrong("a piece that is longer or shorter than it says"));
            }
            return Ok((Body::new(response, count, idle, meter), elsewhere));
        }
        // All of it, from its first byte on.
        if length.is_some_and(|length| length != self.size) {
            return Err(self.wrong("a blob of another size"));
        }
        if range.start > SKIP_MAX {
            return Err(self.wrong("the whole blob instead of a piece"));
        }
        let mut body = Body::new(response, range.end, idle, meter);
        let skipped = io::copy(&mut (&mut body).take(range.start), &mut io::sink());
        match skipped {
            Ok(skipped) if skipped == range.start => Ok((body, elsewhere)),
            Ok(_) => Err(self.wrong("a blob that ends early")),
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn wrong(&self, reason: &str) -> RegistryError {
        RegistryError::Answer {
            what: self.what.clone(),
            reason: reason.to_owned(),
        }
    }

    fn broken(&self, error: &io::Error) -> RegistryError {
        RegistryError::Connection {
            what: self.what.clone(),
            reason: error.to_string(),
        }
    }
}

/// `bytes 0-9/100`, and `bytes 0-9/*`: which bytes, and of how many.
fn content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (first <= last).then_some((first..last.checked_add(1)?, total))
}

/// Bytes of a blob on their way. What breaks off is taken up where it was.
#[derive(Debug)]
pub(super) struct Transfer {
    place: Arc<Place>,
    range: Range<u64>,
    body: Option<Body>,
    failures: u32,
    arrived: u64,
}

impl Transfer {
    /// Nothing is sent before the first byte is asked for.
    pub(super) fn new(place: Arc<Place>, range: Range<u64>) -> Self {
        Self {
            place: Place::best(place),
            range,
            body: None,
            failures: 0,
            arrived: 0,
        }
    }

    /// The next bytes, none at the end.
    ///
    /// # Errors
    /// What trying again does not help against.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        let left = self.range.end.saturating_sub(self.range.start);
        let length = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let target = buffer.get_mut(..length).unwrap_or_default();
        while !target.is_empty() {
            match self.step(target) {
                Ok(count) => {
                    let read = u64::try_from(count).unwrap_or(u64::MAX);
                    self.range.start = self.range.start.saturating_add(read);
                    self.arrived = self.arrived.saturating_add(read);
                    if self.arrived >= Limits::LEAST {
                        self.failures = 0;
                    }
                    return Ok(count);
                }
                Err(error) => {
                    self.body = None;
                    self.arrived = 0;
                    let client = &self.place.client;
                    let paused = client.pause(RequestKind::Blob, &mut self.failures, error);
                    if let Err(error) = paused {
                        let next = self.place.next.clone().ok_or(error)?;
                        self.place.client.avoid();
                        self.place = next;
                        self.failures = 0;
                    }
                }
            }
        }
        Ok(0)
    }

    fn step(&mut self, target: &mut [u8]) -> Result<usize, RegistryError> {
        let body = match &mut self.body {
            Some(body) => body,
            none => none.insert(self.place.open(&self.range)?),
        };
        match body.read(target) {
            Ok(0) => Err(self.place.wrong("fewer bytes than it said")),
            Ok(count) => Ok(count),
            Err(error) => Err(self.place.broken(&error)),
        }
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), RegistryError> {
        let mut done: usize = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 => return Err(self.place.wrong("a blob that ends early")),
                count => done = done.saturating_add(count),
            }
        }
        Ok(())
    }
}

/// A blob in a registry. Each read is a request, for its bytes and no others.
///
/// The bytes are what the registry sent: nothing here compares them with a digest.
#[derive(Debug)]
pub(super) struct RegistryBlob {
    place: Arc<Place>,
}

impl RegistryBlob {
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self { place }
    }

    fn range(&self, offset: u64, buffer: &[u8]) -> io::Result<Range<u64>> {
        let length = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        let end = offset.checked_add(length);
        let end = end.filter(|end| *end <= self.place.size);
        Ok(offset..end.ok_or(io::ErrorKind::UnexpectedEof)?)
    }

    /// What was kept of it is wrong.
    pub(super) fn count_wrong(&self) {
        self.place.count_wrong();
    }

    /// Which blob it is, and how large.
    pub(super) fn blob(&self) -> (Sha256Digest, u64) {
        (self.place.digest, self.place.size)
    }
}

impl BlobSource for RegistryBlob {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = self.range(offset, buffer)?;
        Ok(Transfer::new(Arc::clone(&self.place), range).read_exact(buffer)?)
    }

    fn read_right(&self, offset: u64, buffer: &mut [u8], check: Check<'_>) -> io::Result<()> {
        let mut place = Place::best(Arc::clone(&self.place));
        loop {
            let range = self.range(offset, buffer)?;
            let mut transfer = Transfer::new(Arc::clone(&place), range);
            transfer.read_exact(buffer)?;
            // What began at one place and ended at another says nothing of either: all of it is asked of the other.
            let ended = transfer.place;
            let is_of_one = Arc::ptr_eq(&ended, &place);
            if is_of_one && place.next.is_none() {
                return Ok(());
            }
            let Err(error) = check(buffer) else {
                return Ok(());
            };
            let next = match place.next.clone() {
                Some(next) if is_of_one => {
                    place.count_wrong();
                    place.client.distrust();
                    let wrong = place.client.image().registry();
                    tracing::warn!(
                        "the mirror {wrong} gives wrong bytes, others are asked: {error}"
                    );
                    next
                }
                _ => ended,
            };
            place = Place::best(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_says_which_bytes_of_how_many() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0..10, Some(100))));
        assert_eq!(content_range("bytes 5-5/*"), Some((5..6, None)));
        for bad in [
            "",
            "bytes",
            "bytes */100",
            "bytes 9-0/100",
            "bytes 0-9",
            "bytes -9/10",
            "lines 0-9/100",
            "bytes 0-18446744073709551615/*",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
