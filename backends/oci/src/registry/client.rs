//! Requests to one repository of a registry.

use std::io::{self, Read};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::blocking::{Client as Http, RequestBuilder, Response};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE, RETRY_AFTER};
use reqwest::header::{HeaderMap, HeaderName, WWW_AUTHENTICATE};
use reqwest::{Url, redirect};
use serde::de::DeserializeOwned;

use super::auth::Auth;
use super::challenge::Challenge;
use super::{Limits, Reference, RegistryError, Settings};

/// What a registry says its answer is.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// How often an answer may lead elsewhere.
const REDIRECTS_MAX: usize = 5;
/// How long a mirror that failed is left out.
const AVOIDED: Duration = Duration::from_secs(60);
/// How long one that gave wrong bytes is.
const DISTRUSTED: Duration = Duration::from_secs(600);
/// How much is read of an answer that says what is wrong.
const PROBLEM_MAX: u64 = 16 << 10;

/// Asks one repository of a registry. May be used by several threads; each waits for its own answer.
#[derive(Debug)]
pub(super) struct Client {
    http: Http,
    base: Url,
    auth: Auth,
    limits: Limits,
    image: Reference,
    offline: bool,
    /// Until then another one is asked instead.
    avoided: Mutex<Option<Instant>>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Get<'a> {
    /// For messages.
    pub(super) what: &'a str,
    pub(super) url: &'a Url,
    /// The types of content that are understood.
    pub(super) accept: Option<&'a str>,
    /// The first byte and, if it isn't the end, the last one.
    pub(super) range: Option<(u64, Option<u64>)>,
}

/// An answer of status 200 or 206.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    /// Where it came from at last, if not from where it was asked for.
    pub(super) elsewhere: Option<Url>,
}

impl Client {
    /// Reads credentials and the roots of trust. Nothing is sent.
    ///
    /// # Errors
    /// There are no roots of trust.
    pub(super) fn new(image: Reference, settings: &Settings) -> Result<Self, RegistryError> {
        let host = image.host();
        let failed = |reason: String| RegistryError::Connection {
            what: format!("registry {host}"),
            reason,
        };
        let plain = is_loopback(host) || settings.insecure.iter().any(|name| name == host);
        let scheme = if plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/"));
        let base = base.map_err(|error| failed(error.to_string()))?;
        let mut http = Http::builder()
            .user_agent(concat!("vfsd/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(settings.limits.connect)
            .timeout(settings.limits.idle);
        if is_loopback(host) {
            http = http.no_proxy();
        }
        Ok(Self {
            http: http.build().map_err(|error| failed(reason(&error)))?,
            base,
            auth: Auth::new(image.clone(), settings.auth.clone()),
            limits: settings.limits,
            offline: settings.offline,
            avoided: Mutex::default(),
            image,
        })
    }

    /// The image that this client is for.
    pub(super) fn image(&self) -> &Reference {
        &self.image
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Another one is to be asked for a while, if there is one.
    pub(super) fn avoid(&self) {
        self.avoid_for(AVOIDED);
    }

    /// It gave what it should not have: as [`avoid`](Self::avoid), and longer.
    pub(super) fn distrust(&self) {
        self.avoid_for(DISTRUSTED);
    }

    fn avoid_for(&self, how_long: Duration) {
        let mut avoided = self.avoided.lock();
        *avoided = Instant::now().checked_add(how_long).max(*avoided);
    }

    pub(super) fn is_avoided(&self) -> bool {
        self.avoided
            .lock()
            .is_some_and(|until| Instant::now() < until)
    }

    /// `/v2/NAME/KIND/NAME`.
    ///
    /// # Errors
    /// None that a [`Reference`] leads to.
    pub(super) fn url(&self, kind: &str, name: &str) -> Result<Url, RegistryError> {
        let path = format!("v2/{}/{kind}/{name}", self.image.repository());
        self.base
            .join(&path)
            .map_err(|error| RegistryError::Answer {
                what: path.clone(),
                reason: error.to_string(),
            })
    }

    /// Asks once: says who we are when asked for it, and goes where the registry sends us.
    ///
    /// # Errors
    /// Anything but an answer of status 200 or 206.
    pub(super) fn get(&self, get: &Get<'_>) -> Result<Answer, RegistryError> {
        if self.offline {
            return Err(RegistryError::Offline(get.what.to_owned()));
        }
        let mut url = get.url.clone();
        let mut redirects: usize = 0;
        let mut refusals: usize = 0;
        loop {
            // Only the registry itself is told who we are.
            let is_own = url.origin() == self.base.origin();
            let authorization = match is_own {
                true => self.auth.header(&self.http, &self.base),
                false => None,
            };
            let mut request = self.http.get(url.clone());
            // A length and a range are those of the bytes that were asked for, never of others.
            request = request.header(ACCEPT_ENCODING, "identity");
            if let Some(accept) = get.accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some((first, last)) = get.range {
                let last = last.map(|last| last.to_string()).unwrap_or_default();
                request = request.header(RANGE, format!("bytes={first}-{last}"));
            }
            if let Some(authorization) = &authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = send(request, get.what)?;
            match response.status().as_u16() {
                200 | 206 => {
                    return Ok(Answer {
                        response,
                        elsewhere: (redirects > 0).then_some(url),
                    });
                }
                301 | 302 | 303 | 307 | 308 => {
                    redirects = redirects.saturating_add(1);
                    url = self.follow(get.what, &url, response.headers(), redirects)?;
                }
                // Some answer 403 to a token that has ended.
                status @ (401 | 403)
                    if is_own && (status == 401 || (authorization.is_some() && refusals == 0)) =>
                {
                    let headers = response.headers().get_all(WWW_AUTHENTICATE);
                    let headers = headers.iter().filter_map(|it| it.to_str().ok());
                    let challenge = Challenge::choose(headers);
                    let again = refusals > 0;
                    if refusals > 1 {
                        return Err(self.problem(get.what, response));
                    }
                    let wire = (&self.http, &self.base);
                    let renewed = self
                        .auth
                        .renew(authorization.as_ref(), challenge, again, wire);
                    match renewed {
                        Err(_) if status == 403 => return Err(self.problem(get.what, response)),
                        other => other?,
                    }
                    refusals = refusals.saturating_add(1);
                }
                _ => return Err(self.problem(get.what, response)),
            }
        }
    }

    /// Asks until there is an answer, or until the limits are reached.
    ///
    /// # Errors
    /// The last one.
    pub(super) fn retry<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut failures = 0;
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(error) => self.pause(&mut failures, error)?,
            }
        }
    }

    /// Waits after a failure.
    ///
    /// # Errors
    /// What failed, if there is no use in waiting or if there were too many in a row.
    pub(super) fn pause(
        &self,
        failures: &mut u32,
        error: RegistryError,
    ) -> Result<(), RegistryError> {
        *failures = failures.saturating_add(1);
        if !error.is_passing() || *failures >= self.limits.attempts {
            return Err(error);
        }
        std::thread::sleep(self.limits.pause_after(*failures, error.after()));
        Ok(())
    }

    fn follow(
        &self,
        what: &str,
        from: &Url,
        headers: &HeaderMap,
        redirects: usize,
    ) -> Result<Url, RegistryError> {
        let wrong = |reason: &str| RegistryError::Answer {
            what: what.to_owned(),
            reason: reason.to_owned(),
        };
        if redirects > REDIRECTS_MAX {
            return Err(wrong("it leads elsewhere again and again"));
        }
        let location = text(headers, LOCATION).ok_or_else(|| wrong("it leads nowhere"))?;
        let to = from
            .join(location)
            .map_err(|_| wrong("it leads to what is no URL"))?;
        match is_secure_enough(&to, &self.base) {
            true => Ok(to),
            false => Err(wrong("it leads from https to something else")),
        }
    }

    /// What an answer that is no success means.
    fn problem(&self, what: &str, response: Response) -> RegistryError {
        let what = what.to_owned();
        let status = response.status().as_u16();
        match status {
            401 => RegistryError::Unauthorized {
                registry: self.image.registry().to_owned(),
                known: true,
            },
            404 => RegistryError::NotFound(what),
            408 | 425 | 429 | 500 | 502..=599 => RegistryError::Busy {
                what,
                status,
                after: text(response.headers(), RETRY_AFTER)
                    .and_then(|text| text.trim().parse().ok())
                    .map(Duration::from_secs),
            },
            _ => RegistryError::Status {
                what,
                status,
                detail: detail(response).unwrap_or_default(),
            },
        }
    }
}

/// What a registry says of its refusal.
fn detail(response: Response) -> Option<String> {
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

/// Sends a request and waits for the head of its answer.
pub(super) fn send(request: RequestBuilder, what: &str) -> Result<Response, RegistryError> {
    request.send().map_err(|error| RegistryError::Connection {
        what: what.to_owned(),
        reason: reason(&error),
    })
}

/// All the causes of an error, without the URL: its query may be a secret.
fn reason(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    match causes.pop() {
        _ if error.is_timeout() => "no answer in time".to_owned(),
        Some(last) => last,
        None if error.is_connect() => "no connection".to_owned(),
        None => "the request failed".to_owned(),
    }
}

/// Reads a document of at most `most` bytes.
pub(super) fn document(
    response: Response,
    what: &str,
    most: u64,
    limits: &Limits,
) -> Result<Vec<u8>, RegistryError> {
    let wrong = |reason: String| RegistryError::Answer {
        what: what.to_owned(),
        reason,
    };
    let length = response.content_length();
    let mut bytes = Vec::new();
    let mut body = Body::new(response, most.saturating_add(1), limits.idle);
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
    let bytes = document(response, what, most, &Limits::default())?;
    serde_json::from_slice(&bytes).map_err(|_| RegistryError::Answer {
        what: what.to_owned(),
        // Its own words could have a part of a secret.
        reason: "malformed JSON".to_owned(),
    })
}

/// A header as text.
pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether a URL that the registry at `base` named may be used: no less protected than the registry itself.
pub(super) fn is_secure_enough(url: &Url, base: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => base.scheme() == "http",
        _ => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The bytes of an answer, at most so many, which must keep coming.
#[derive(Debug)]
pub(super) struct Body {
    response: Response,
    left: u64,
    idle: Duration,
    since: Instant,
    arrived: u64,
}

impl Body {
    pub(super) fn new(response: Response, most: u64, idle: Duration) -> Self {
        Self {
            response,
            left: most,
            idle,
            since: Instant::now(),
            arrived: 0,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_names_that_look_like_it() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.1.2.3:80",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example",
            "127.0.0.1.example",
            "10.0.0.1",
            "[::2]:1",
            "r.example",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn nothing_leads_from_https_to_less() {
        let url = |text: &str| Url::parse(text).unwrap();
        let (safe, plain) = (url("https://a/"), url("http://a/"));
        assert!(is_secure_enough(&safe, &plain) && is_secure_enough(&plain, &plain));
        assert!(is_secure_enough(&safe, &safe) && !is_secure_enough(&plain, &safe));
        assert!(!is_secure_enough(&url("file:///etc/passwd"), &plain));
    }
}
