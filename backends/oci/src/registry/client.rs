//! Requests to one repository of a registry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::blocking::{Client as Http, RequestBuilder, Response};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE, RETRY_AFTER};
use reqwest::header::{HeaderMap, HeaderName, WWW_AUTHENTICATE};
use reqwest::{Url, redirect};
use vfsd_backend::is_loopback;

use super::auth::{Actions, Auth};
use super::body::detail;
use super::challenge::Challenge;
use super::{Limits, Reference, RegistryError, Settings};
use crate::counters::{Counters, Meter, RequestKind};

/// What a registry says its answer is.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// How often an answer may lead elsewhere.
const REDIRECTS_MAX: usize = 5;
/// A shorter pause is not told.
const BLIP: Duration = Duration::from_secs(1);
/// That a registry is asked again is told after this time at the earliest.
const QUIET: Duration = Duration::from_secs(60);
/// How long a mirror that failed is left out.
const AVOIDED: Duration = Duration::from_secs(60);
/// How long one that gave wrong bytes is.
const DISTRUSTED: Duration = Duration::from_secs(600);

/// Asks one repository of a registry. May be used by several threads; each waits for its own answer.
#[derive(Debug)]
pub(super) struct Client {
    http: Http,
    base: Url,
    auth: Auth,
    limits: Limits,
    image: Reference,
    offline: bool,
    counters: Arc<Counters>,
    /// Until then another one is asked instead.
    avoided: Mutex<Option<Instant>>,
    /// When the log was told last that it is asked again.
    told: Mutex<Option<Instant>>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Get<'a> {
    /// For messages.
    pub(super) what: &'a str,
    pub(super) kind: RequestKind,
    pub(super) url: &'a Url,
    /// The types of content that are understood.
    pub(super) accept: Option<&'a str>,
    /// The first byte and, if it isn't the end, the last one.
    pub(super) range: Option<(u64, Option<u64>)>,
}

/// An answer that was accepted.
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
        Self::of(image, settings, Actions::Pull)
    }

    /// One that may change the repository, if the registry lets it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(super) fn pushing(image: Reference, settings: &Settings) -> Result<Self, RegistryError> {
        Self::of(image, settings, Actions::Push)
    }

    fn of(image: Reference, settings: &Settings, actions: Actions) -> Result<Self, RegistryError> {
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
            auth: Auth::new(image.clone(), settings, actions),
            limits: settings.limits,
            offline: settings.offline,
            counters: Arc::clone(&settings.counters),
            avoided: Mutex::default(),
            told: Mutex::default(),
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

    /// Where it is counted what is asked.
    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
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

    /// Asks once for what is there.
    ///
    /// # Errors
    /// Anything but an answer of status 200 or 206.
    pub(super) fn get(&self, get: &Get<'_>) -> Result<Answer, RegistryError> {
        let request = |http: &Http, url| {
            // A length and a range are those of the bytes that were asked for, never of others.
            let mut request = http.get(url).header(ACCEPT_ENCODING, "identity");
            if let Some(accept) = get.accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some((first, last)) = get.range {
                let last = last.map(|last| last.to_string()).unwrap_or_default();
                request = request.header(RANGE, format!("bytes={first}-{last}"));
            }
            request
        };
        self.exchange((get.kind, get.what), get.url, &[200, 206], &request)
    }

    /// Sends a request once: says who we are when asked for it, and goes where the registry sends us. `request` is made
    /// anew each time.
    ///
    /// # Errors
    /// Anything but an answer of a status that is `accepted`.
    pub(super) fn exchange(
        &self,
        (kind, what): (RequestKind, &str),
        url: &Url,
        accepted: &[u16],
        request: &dyn Fn(&Http, Url) -> RequestBuilder,
    ) -> Result<Answer, RegistryError> {
        if self.offline {
            return Err(RegistryError::Offline(what.to_owned()));
        }
        let meter = self.counters.meter(kind);
        let mut url = url.clone();
        let mut redirects: usize = 0;
        let mut refusals: usize = 0;
        loop {
            // Only the registry itself is told who we are.
            let is_own = url.origin() == self.base.origin();
            let authorization = match is_own {
                true => self.auth.header(&self.http, &self.base),
                false => None,
            };
            let mut request = request(&self.http, url.clone());
            if let Some(authorization) = &authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = send(request, what, &meter)?;
            match response.status().as_u16() {
                status if accepted.contains(&status) => {
                    return Ok(Answer {
                        response,
                        elsewhere: (redirects > 0).then_some(url),
                    });
                }
                301 | 302 | 303 | 307 | 308 => {
                    redirects = redirects.saturating_add(1);
                    url = self.follow(what, &url, response.headers(), redirects)?;
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
                        return Err(self.problem(what, response));
                    }
                    let wire = (&self.http, &self.base);
                    let renewed = self
                        .auth
                        .renew(authorization.as_ref(), challenge, again, wire);
                    match renewed {
                        Err(_) if status == 403 => return Err(self.problem(what, response)),
                        other => other?,
                    }
                    refusals = refusals.saturating_add(1);
                }
                _ => return Err(self.problem(what, response)),
            }
        }
    }

    /// Asks until there is an answer, or until the limits are reached.
    ///
    /// # Errors
    /// The last one.
    pub(super) fn retry<T>(
        &self,
        kind: RequestKind,
        mut attempt: impl FnMut() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut failures = 0;
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(error) => self.pause(kind, &mut failures, error)?,
            }
        }
    }

    /// Waits after a failure.
    ///
    /// # Errors
    /// What failed, if there is no use in waiting or if there were too many in a row.
    pub(super) fn pause(
        &self,
        kind: RequestKind,
        failures: &mut u32,
        error: RegistryError,
    ) -> Result<(), RegistryError> {
        *failures = failures.saturating_add(1);
        if !error.is_passing() || *failures >= self.limits.attempts {
            if !matches!(error, RegistryError::Offline(_)) {
                self.counters.given_up(kind);
            }
            return Err(error.given_up(*failures));
        }
        self.counters.retried(kind);
        let pause = self.limits.pause_after(*failures, error.after());
        self.tell(*failures, pause, &error);
        std::thread::sleep(pause);
        Ok(())
    }

    /// Tells the log that the registry is asked again, now and then: unless the next answer may come in a moment.
    fn tell(&self, failures: u32, pause: Duration, error: &RegistryError) {
        let may_pass = failures < 2 && pause < BLIP;
        if may_pass && !matches!(error, RegistryError::Connection { .. }) {
            return;
        }
        let mut told = self.told.lock();
        if told.is_none_or(|told| told.elapsed() >= QUIET) {
            *told = Some(Instant::now());
            tracing::warn!("{error}; asked again in {:.1} s", pause.as_secs_f64());
        }
    }

    /// Where an answer leads.
    ///
    /// # Errors
    /// Nowhere, or to less than the registry's own protection; after too many `redirects`.
    pub(super) fn follow(
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

/// Sends a request and waits for the head of its answer.
pub(super) fn send(
    request: RequestBuilder,
    what: &str,
    meter: &Meter,
) -> Result<Response, RegistryError> {
    meter.sent();
    request.send().map_err(|error| RegistryError::Connection {
        what: what.to_owned(),
        reason: reason(&error),
    })
}

/// All the causes of an error, without the URL: its query may be a secret.
pub(super) fn reason(error: &reqwest::Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_from_https_to_less() {
        let url = |text: &str| Url::parse(text).unwrap();
        let (safe, plain) = (url("https://a/"), url("http://a/"));
        assert!(is_secure_enough(&safe, &plain) && is_secure_enough(&plain, &plain));
        assert!(is_secure_enough(&safe, &safe) && !is_secure_enough(&plain, &safe));
        assert!(!is_secure_enough(&url("file:///etc/passwd"), &plain));
    }
}
