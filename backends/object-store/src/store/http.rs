//! What goes over the wire on behalf of the client library.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use object_store::client::{
    DnsError, DnsFuture, DnsResolver, HttpClient, HttpConnector, HttpError, HttpErrorKind,
    HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use tokio::time::timeout;

use super::RetryPolicy;
use super::clients::Clients;
use super::error::Refused;
use super::keys;

/// Makes the library's HTTP client one that can be relied on: names that were resolved once are resolved
/// again or stay as they were, answers that do not change are told apart from those that may, and listings
/// may hold any key.
#[derive(Debug)]
pub(super) struct Connector {
    resolver: Arc<Resolver>,
    /// How long nothing may be heard of a request.
    silence: Duration,
}

impl Connector {
    pub(super) fn new(policy: &RetryPolicy) -> Self {
        Self {
            resolver: Arc::default(),
            silence: policy.attempt,
        }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let options = options.clone().with_dns_resolver(self.resolver.clone());
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        Ok(HttpClient::new(Service {
            clients: Clients::new(options, self.silence)?,
            silence: self.silence,
            plain_allowed: plain.as_deref() == Some("true"),
        }))
    }
}

struct Service {
    clients: Clients,
    silence: Duration,
    plain_allowed: bool,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // Who shows nothing is nobody, which is not the same as somebody without a name.
        let shown = request.headers().get("authorization");
        if shown.is_some_and(|shown| shown.as_bytes().trim_ascii() == b"Bearer") {
            request.headers_mut().remove("authorization");
        }
        let lists = request.method().as_str() == "GET"
            && request.uri().query().is_some_and(|query| {
                query
                    .split('&')
                    .any(|part| matches!(part, "list-type=2" | "comp=list"))
            });
        if !self.plain_allowed && request.uri().scheme_str() == Some("http") {
            return Err(refusal(0, "plain http is not allowed"));
        }
        let ranged = request.headers().contains_key("range");
        let mut response = self.clients.execute(request).await?;
        // What `rclone serve s3` says of a part. Whether it is the right one is looked at all the same.
        if ranged
            && response.status().as_u16() == 200
            && response.headers().contains_key("content-range")
            && let Ok(partial) = 206_u16.try_into()
        {
            *response.status_mut() = partial;
        }
        let status = response.status();
        if ranged && status.as_u16() == 200 {
            let words = "all of an object, where a part was asked for";
            return Err(refusal(200, words));
        }
        if status.is_success() && !lists {
            return Ok(response);
        }
        let (mut parts, body) = response.into_parts();
        if !status.is_success() {
            // Who sent much has no client that ends a silence.
            let body = timeout(self.silence, start_of(body, LONGEST_REFUSAL)).await;
            let body = body.map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))??;
            let text = String::from_utf8_lossy(&body);
            // A request that took too long to arrive is told with the status of a wrong one.
            let late = text.contains("RequestTimeout");
            return match stays(status.as_u16(), lists) {
                true if late => Err(HttpError::new(HttpErrorKind::Interrupted, TookTooLong)),
                true => Err(refusal(status.as_u16(), &text)),
                false => Ok(HttpResponse::from_parts(parts, body.into())),
            };
        }
        let page = start_of(body, LONGEST_PAGE).await?;
        if page.len() > LONGEST_PAGE {
            return Err(refusal(200, "a listing that does not end"));
        }
        parts.headers.remove("content-length");
        Ok(HttpResponse::from_parts(
            parts,
            with_keys_encoded(&page).into(),
        ))
    }
}

/// The longest text of a failure that is read: more is not needed to know it.
const LONGEST_REFUSAL: usize = 16 << 10;
/// The longest page of a listing: 1000 keys of 1024 bytes, each of them written as six.
const LONGEST_PAGE: usize = 16 << 20;

/// A body up to the chunk that exceeds `most` bytes: who sends is not trusted to end.
async fn start_of(body: HttpResponseBody, most: usize) -> Result<Vec<u8>, HttpError> {
    let mut stream = body.bytes_stream();
    let mut read = Vec::new();
    while let Some(chunk) = stream.next().await {
        read.extend_from_slice(&chunk?);
        if read.len() > most {
            break;
        }
    }
    Ok(read)
}

fn refusal(status: u16, body: &str) -> HttpError {
    let refused = Refused {
        status,
        body: body.to_owned(),
    };
    HttpError::new(HttpErrorKind::Unknown, refused)
}

#[derive(Debug, thiserror::Error)]
#[error("the request took too long to arrive")]
struct TookTooLong;

/// Whether a repetition gets the same answer. 408 and 429 pass; for 304, 401, 403, 404, 409 and 412 the library has errors of
/// its own, but not when it lists.
fn stays(status: u16, lists: bool) -> bool {
    let redirected = (300..400).contains(&status) && status != 304;
    let refused = (400..500).contains(&status) && !matches!(status, 408 | 429);
    // What is not implemented is not so a moment later either.
    redirected
        || status == 501
        || refused && (lists || !matches!(status, 401 | 403 | 404 | 409 | 412))
}

/// A page of a listing in which each key is one that the library [takes](keys). S3 and Google
/// write them as `Key` and `Prefix`, Azure as `Name`.
fn with_keys_encoded(page: &[u8]) -> Vec<u8> {
    let mut rest = page;
    let mut changed = Vec::with_capacity(page.len());
    while let Some((name, begin)) = next_element(rest) {
        let (before, from) = rest.split_at_checked(begin).unwrap_or((rest, &[]));
        changed.extend_from_slice(before);
        // Text has no `<` in it: that would be written `&lt;`.
        let end = from
            .iter()
            .position(|&byte| byte == b'<')
            .unwrap_or(from.len());
        let (text, after) = from.split_at_checked(end).unwrap_or((from, &[]));
        match unescaped(text) {
            Some(raw) => changed.extend_from_slice(passable(name, &raw).as_bytes()),
            None => changed.extend_from_slice(text),
        }
        rest = after;
    }
    changed.extend_from_slice(rest);
    changed
}

/// The next element that holds a key, and where its text begins.
fn next_element(xml: &[u8]) -> Option<(&'static str, usize)> {
    const ELEMENTS: [&str; 3] = ["<Key>", "<Prefix>", "<Name>"];
    let mut at = 0_usize;
    loop {
        let tail = xml.get(at..)?;
        at = at.checked_add(tail.iter().position(|&byte| byte == b'<')?)?;
        let tail = xml.get(at..)?;
        if let Some(name) = ELEMENTS
            .into_iter()
            .find(|name| tail.starts_with(name.as_bytes()))
        {
            return Some((name, at.checked_add(name.len())?));
        }
        at = at.checked_add(1)?;
    }
}

/// The text of a key's element, encoded if it has to be.
fn passable(element: &str, raw: &str) -> String {
    // The library takes one `/` from the end of each common prefix, and of Azure's names that are such.
    let is_prefix = element != "<Key>";
    let stem = raw
        .strip_suffix('/')
        .filter(|stem| is_prefix && !stem.is_empty());
    let encoded = match stem {
        Some(stem) if keys::encode(stem) == stem => raw.to_owned(),
        _ if raw.is_empty() => String::new(),
        _ => keys::encode(raw),
    };
    escaped(&encoded)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The characters behind XML's references. `None` for what is no text.
fn unescaped(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let mut raw = String::with_capacity(text.len());
    let mut parts = text.split('&');
    raw.push_str(parts.next()?);
    for part in parts {
        let (reference, literal) = part.split_once(';')?;
        let character = match reference {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let number = number.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        };
        raw.push(character);
        raw.push_str(literal);
    }
    Some(raw)
}

/// Asks the C library, and remembers its last good answers: in a sandbox without `/etc/resolv.conf`, or
/// while name servers are away, the service is where it was before.
#[derive(Debug, Default)]
struct Resolver {
    known: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
    turns: AtomicUsize,
}

impl DnsResolver for Resolver {
    fn resolve(&self, host: &str) -> DnsFuture {
        let host = host.to_owned();
        let known = self.known.clone();
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let name = host.clone();
            let asked = tokio::task::spawn_blocking(move || {
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok::<Vec<IpAddr>, std::io::Error>(found.map(|address| address.ip()).collect())
            });
            let mut addresses = match asked.await.map_err(DnsError::from)? {
                Ok(addresses) if !addresses.is_empty() => {
                    known
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(host, addresses.clone());
                    addresses
                }
                answer => match known
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get(&host)
                {
                    Some(addresses) => addresses.clone(),
                    None => answer?,
                },
            };
            // Connections spread over all addresses of a service.
            let begin = turn.checked_rem(addresses.len()).unwrap_or(0);
            addresses.rotate_left(begin);
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(page: &str) -> String {
        String::from_utf8(with_keys_encoded(page.as_bytes())).unwrap()
    }

    #[test]
    fn a_listing_of_ordinary_keys_is_not_changed() {
        let page = "<L><Name>b</Name><Prefix>a/</Prefix><Prefix></Prefix><Contents><Key>a/x &amp; y</Key></Contents>\
                    <CommonPrefixes><Prefix>a/b/</Prefix></CommonPrefixes></L>";
        assert_eq!(changed(page), page);
    }

    #[test]
    fn keys_that_the_library_does_not_take_are_encoded() {
        let page = "<Key>a/</Key><Key>a//b</Key><Key>/x</Key><Key>a&#x0;</Key><Prefix>a//</Prefix><Prefix>/</Prefix>\
                    <Prefix>../</Prefix><Key>a&lt;&#xA;</Key>";
        let encoded = changed(page);
        let keys: Vec<String> = encoded
            .split(['<', '>'])
            .filter(|text| text.starts_with('\u{f8ff}'))
            .map(|text| keys::decode(text).unwrap())
            .collect();
        assert_eq!(keys, ["a/", "a//b", "/x", "a\0", "a//", "/", "../", "a<\n"]);
    }

    #[test]
    fn what_is_no_listing_passes_as_it_is() {
        for text in [
            "",
            "<",
            "<Key>",
            "<Key>a",
            "<Key>&bad</Key>",
            "<Key>&#xffffffff;</Key>",
            "a<b>c",
        ] {
            assert_eq!(changed(text), text);
        }
    }

    #[test]
    fn what_passes_is_told_from_what_stays() {
        for status in [200, 206, 304, 404, 408, 412, 429, 500, 503] {
            assert!(!stays(status, false), "{status}");
        }
        for status in [301, 400, 405, 416, 501] {
            assert!(stays(status, false) && stays(status, true), "{status}");
        }
        assert!(stays(403, true) && stays(404, true) && !stays(503, true));
    }

    #[tokio::test]
    async fn a_name_that_was_resolved_once_stays_known() {
        let resolver = Resolver::default();
        let name = "name.invalid";
        assert!(resolver.resolve(name).await.is_err());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        resolver
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), vec![address]);
        assert_eq!(resolver.resolve(name).await.unwrap(), [address]);
    }
}
