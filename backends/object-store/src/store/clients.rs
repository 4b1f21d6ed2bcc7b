//! Which HTTP client sends a request.
//!
//! This host and its link are reached without the environment's proxy: a proxy cannot reach this host's loopback, nor the
//! service of a cloud that hands out credentials at a link-local address. An option that names a proxy stands.
//!
//! What is large takes as long to send as the line needs, and nothing is heard meanwhile.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    ReqwestConnector,
};
use object_store::{ClientConfigKey, ClientOptions};
use tokio::time::timeout;
use vfsd_backend::is_loopback;

use super::retry_policy::to_send;

/// A smaller body is sent at once.
const LARGE: usize = 1 << 20;
/// As good as none.
const NO_LIMIT: Duration = Duration::from_secs(86_400);

/// The clients of a store, each made when it is first needed.
pub(super) struct Clients {
    options: ClientOptions,
    proxy_given: bool,
    /// How long nothing may be heard of a request that is no large one.
    silence: Duration,
    usual: HttpClient,
    others: [OnceLock<HttpClient>; 3],
}

#[derive(Debug, thiserror::Error)]
#[error("it was not sent in time")]
struct NotSent;

impl Clients {
    pub(super) fn new(options: ClientOptions, silence: Duration) -> object_store::Result<Self> {
        let proxy = options.get_config_value(&ClientConfigKey::ProxyUrl);
        Ok(Self {
            usual: ReqwestConnector::default().connect(&options)?,
            proxy_given: proxy.is_some(),
            silence,
            others: Default::default(),
            options,
        })
    }

    /// Sends it.
    pub(super) async fn execute(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let nearby = !self.proxy_given && is_nearby(request.uri().host().unwrap_or_default());
        let length = request.body().content_length();
        let client = self.client(nearby, length >= LARGE)?;
        if length < LARGE {
            return client.execute(request).await;
        }
        let limit = to_send(self.silence, length);
        let sent = timeout(limit, client.execute(request)).await;
        sent.unwrap_or_else(|_| Err(HttpError::new(HttpErrorKind::Timeout, NotSent)))
    }

    /// The client for a host, and for a body of such a size.
    pub(super) fn client(&self, nearby: bool, large: bool) -> Result<&HttpClient, HttpError> {
        const EVERYWHERE: &str = "*,0.0.0.0/0,::/0";
        let [near, sends, near_sends] = &self.others;
        let place = match (nearby, large) {
            (false, false) => return Ok(&self.usual),
            (true, false) => near,
            (false, true) => sends,
            (true, true) => near_sends,
        };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let mut options = self.options.clone();
        if nearby {
            // The library leaves a proxy out by excluding every host from one.
            options = options.with_proxy_url("http://localhost");
            options = options.with_proxy_excludes(EVERYWHERE);
        }
        if large {
            options = options.with_read_timeout(NO_LIMIT);
        }
        let made = ReqwestConnector::default().connect(&options);
        let made = made.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        Ok(place.get_or_init(|| made))
    }
}

/// Whether a host is this one, or at an address of its link.
fn is_nearby(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    is_loopback(host)
        || match address.parse() {
            Ok(IpAddr::V4(address)) => address.is_link_local(),
            Ok(IpAddr::V6(address)) => address.is_unicast_link_local(),
            Err(_) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RetryPolicy;
    use crate::store::http::Connector;

    #[test]
    fn what_is_nearby_is_told_from_names_that_look_like_it() {
        for host in [
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "169.254.169.254",
            "[fe80::1]",
        ] {
            assert!(is_nearby(host), "{host}");
        }
        for host in [
            "",
            "localhost.example",
            "127.0.0.1.example",
            "10.0.0.1",
            "[2001:db8::1]",
            "s3.example",
        ] {
            assert!(!is_nearby(host), "{host}");
        }
    }

    /// The status of a request to a server on loopback that answers 204, where the environment names a proxy.
    async fn status_behind_a_proxy(options: ClientOptions) -> Result<u16, HttpError> {
        use std::io::{Read, Write};

        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut peer, _) = server.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                peer.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        });
        let client = Connector::new(&RetryPolicy::default())
            .connect(&options.with_allow_http(true))
            .unwrap();
        let mut request = HttpRequest::new(Vec::<u8>::new().into());
        *request.uri_mut() = format!("http://{address}/").parse().unwrap();
        Ok(client.execute(request).await?.status().as_u16())
    }

    #[tokio::test]
    async fn a_proxy_of_the_environment_is_not_asked_for_this_host() {
        const NAME: &str =
            "store::clients::tests::a_proxy_of_the_environment_is_not_asked_for_this_host";
        // Nobody listens at the port of this address, and the environment is the process's: it is another one's.
        const NOWHERE: &str = "http://127.0.0.1:1";
        if std::env::var("HTTP_PROXY").as_deref() != Ok(NOWHERE) {
            let own = std::env::current_exe().unwrap();
            let mut inner = std::process::Command::new(own);
            inner.args(["--exact", NAME, "--nocapture"]);
            inner.env_remove("NO_PROXY").env_remove("no_proxy");
            let inner = inner
                .env("HTTP_PROXY", NOWHERE)
                .env("http_proxy", NOWHERE)
                .output()
                .unwrap();
            let output = String::from_utf8_lossy(&inner.stdout);
            assert!(
                inner.status.success() && output.contains("1 passed"),
                "{inner:?}"
            );
            return;
        }
        let options = ClientOptions::new();
        assert_eq!(status_behind_a_proxy(options.clone()).await.unwrap(), 204);
        let named = options.with_proxy_url(NOWHERE);
        assert!(status_behind_a_proxy(named).await.is_err());
    }

    /// Sends a large body to a server that takes it slowly, and then writes this. Answers the status.
    async fn send_slowly(silence: Duration, reply: &'static [u8]) -> Result<u16, HttpError> {
        use std::io::{Read, Write};

        let policy = RetryPolicy::new(Duration::from_secs(60), silence);
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let slow = std::thread::spawn(move || {
            let (mut peer, _) = server.accept().unwrap();
            let limit = Some(Duration::from_secs(30));
            peer.set_read_timeout(limit).unwrap();
            // As over a slow line: the client may send no more than fits in between.
            std::thread::sleep(silence * 4);
            let mut left = vec![0; LARGE];
            let mut seen = Vec::new();
            let end = |seen: &[u8]| seen.windows(4).position(|end| end == b"\r\n\r\n");
            while end(&seen).is_none() {
                let read = peer.read(&mut left).unwrap();
                seen.extend_from_slice(&left[..read]);
            }
            let body = seen.len() - (end(&seen).unwrap() + 4);
            peer.read_exact(&mut left[body..]).unwrap();
            peer.write_all(reply).unwrap();
            // The other side ends it.
            let _ = peer.read(&mut left);
        });
        let options = ClientOptions::new().with_allow_http(true);
        let options = options.with_read_timeout(silence);
        let client = Connector::new(&policy).connect(&options).unwrap();
        let mut request = HttpRequest::new(vec![0_u8; LARGE].into());
        *request.method_mut() = "PUT".parse().unwrap();
        *request.uri_mut() = format!("http://{address}/").parse().unwrap();
        let status = client.execute(request).await.map(|reply| reply.status());
        drop(client);
        let ended = tokio::task::spawn_blocking(move || slow.join().unwrap());
        ended.await.unwrap();
        Ok(status?.as_u16())
    }

    #[tokio::test]
    async fn a_large_body_is_sent_for_longer_than_silence_is_borne() {
        let silence = Duration::from_millis(300);
        let sent = send_slowly(silence, b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(sent.unwrap(), 204);
        // A refusal of which no more comes is not waited for.
        let half = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 10\r\n\r\n";
        let error = send_slowly(silence, half).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Timeout);
    }
}
