//! Requests to S3 for which the client library has no call, made with its credentials, signature and HTTP client.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody, HttpResponse};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{Attribute, Attributes, Error, Result};

use super::attributes::AttributeStore;
use super::error::is_transient;
use super::markers::Markers;

/// Headers by their names.
type Headers = HashMap<String, String>;

/// Before the name of what is kept with an object.
const METADATA: &str = "x-amz-meta-";
/// The longest reply that is read of a copy.
const LONGEST_REPLY: usize = 64 << 10;

/// A bucket of S3, for requests of our own.
pub(super) struct S3Requests {
    s3: Arc<AmazonS3>,
    client: HttpClient,
    bucket: String,
    region: String,
    /// The requester pays.
    payer: bool,
}

impl S3Requests {
    pub(super) fn new(
        s3: Arc<AmazonS3>,
        client: HttpClient,
        bucket: &str,
        region: String,
        payer: bool,
    ) -> Self {
        Self {
            s3,
            client,
            bucket: bucket.to_owned(),
            region,
            payer,
        }
    }

    /// The address of an object, without its query.
    async fn address(&self, path: &Path) -> Result<String> {
        // The library knows how the bucket is addressed.
        let verb = "GET".parse().map_err(failed)?;
        let signed = self.s3.signed_url(verb, path, Duration::from_secs(60));
        let signed = signed.await?;
        Ok(signed
            .as_str()
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned())
    }

    /// Sends a request without a body, signed.
    async fn send(
        &self,
        method: &'static str,
        address: &str,
        headers: &Headers,
    ) -> Result<HttpResponse> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.parse().map_err(failed)?;
        *request.uri_mut() = address.parse().map_err(failed)?;
        *request.headers_mut() = headers.try_into().map_err(failed)?;
        let credential = self.s3.credentials().get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .with_request_payer(self.payer)
            .try_authorize(&mut request, None)?;
        self.client.execute(request).await.map_err(failed)
    }

    /// Sends a request for a marker, and says with which status it was answered.
    async fn send_marker(
        &self,
        method: &'static str,
        directory: &str,
        headers: &Headers,
    ) -> Result<(u16, Attributes)> {
        // Only the slash is missing.
        let address = format!("{}/", self.address(&Path::parse(directory)?).await?);
        let reply = self.send(method, &address, headers).await?;
        let status = reply.status();
        let mut found = Attributes::new();
        for (name, value) in reply.headers() {
            if let (Some(name), Ok(value)) = (name.as_str().strip_prefix(METADATA), value.to_str())
            {
                let name = Attribute::Metadata(name.to_owned().into());
                found.insert(name, value.to_owned().into());
            }
        }
        let status = status.as_u16();
        match status {
            200..=299 | 404 | 409 | 412 => Ok((status, found)),
            _ => Err(answered(status)),
        }
    }
}

/// The headers that say so.
fn headers_of(attributes: &Attributes) -> Headers {
    let named = |attribute: &Attribute| {
        Some(match attribute {
            Attribute::CacheControl => "cache-control".to_owned(),
            Attribute::ContentDisposition => "content-disposition".to_owned(),
            Attribute::ContentEncoding => "content-encoding".to_owned(),
            Attribute::ContentLanguage => "content-language".to_owned(),
            Attribute::ContentType => "content-type".to_owned(),
            Attribute::StorageClass => "x-amz-storage-class".to_owned(),
            Attribute::Metadata(name) => format!("{METADATA}{name}"),
            _ => return None,
        })
    };
    let headers = attributes.iter();
    let headers = headers.filter_map(|(name, value)| Some((named(name)?, value.to_string())));
    let mut headers: Headers = headers.collect();
    headers.insert("content-length".to_owned(), "0".to_owned());
    headers
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic {
        store: "S3",
        source: error.into(),
    }
}

fn answered(status: u16) -> Error {
    failed(format!("answered {status}"))
}

impl fmt::Debug for S3Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3Requests").field(&self.s3).finish()
    }
}

/// The headers of a marker with these attributes.
fn marker_headers(attributes: &Attributes) -> Headers {
    let mut headers = headers_of(attributes);
    let kind = "application/x-directory".to_owned();
    headers.insert("content-type".to_owned(), kind);
    headers
}

/// Keys with a `/` at their end.
#[async_trait]
impl Markers for S3Requests {
    async fn put(&self, directory: &str, attributes: &Attributes) -> Result<()> {
        let headers = marker_headers(attributes);
        match self.send_marker("PUT", directory, &headers).await?.0 {
            200..=299 => Ok(()),
            status => Err(answered(status)),
        }
    }

    async fn create(&self, directory: &str, attributes: &Attributes) -> Result<()> {
        let mut headers = marker_headers(attributes);
        headers.insert("if-none-match".to_owned(), "*".to_owned());
        match self.send_marker("PUT", directory, &headers).await?.0 {
            200..=299 => Ok(()),
            status @ (409 | 412) => Err(Error::AlreadyExists {
                path: directory.to_owned(),
                source: format!("answered {status}").into(),
            }),
            status => Err(answered(status)),
        }
    }

    async fn delete(&self, directory: &str) -> Result<()> {
        let none = Headers::new();
        match self.send_marker("DELETE", directory, &none).await?.0 {
            200..=299 | 404 => Ok(()),
            status => Err(answered(status)),
        }
    }

    async fn look(&self, directory: &str) -> Result<Option<Attributes>> {
        match self.send_marker("HEAD", directory, &Headers::new()).await? {
            (200..=299, found) => Ok(Some(found)),
            (404, _) => Ok(None),
            (status, _) => Err(answered(status)),
        }
    }
}

/// A copy of an object onto itself.
#[async_trait]
impl AttributeStore for S3Requests {
    async fn replace(
        &self,
        location: &Path,
        etag: &str,
        attributes: &Attributes,
    ) -> Result<Option<String>> {
        let address = self.address(location).await?;
        // The key as it is written in an address is what a source is named by.
        let root = self.address(&Path::ROOT).await?;
        let key = address.get(root.len()..).unwrap_or_default();
        let mut headers = headers_of(attributes);
        for (name, value) in [
            ("x-amz-copy-source", format!("{}/{key}", self.bucket)),
            ("x-amz-copy-source-if-match", etag.to_owned()),
            ("x-amz-metadata-directive", "REPLACE".to_owned()),
        ] {
            headers.insert(name.to_owned(), value);
        }
        let refused = |words: String| Error::NotImplemented {
            operation: format!("a copy of {location} onto itself: {words}"),
            implementer: self.s3.to_string(),
        };
        let reply = match self.send("PUT", &address, &headers).await {
            Err(error) if !is_transient(&error) => {
                return Err(refused(vfsd_backend::one_line(&error)));
            }
            reply => reply?,
        };
        let status = reply.status().as_u16();
        let (path, source) = (location.to_string(), format!("answered {status}").into());
        match status {
            200..=299 => {}
            404 => return Err(Error::NotFound { path, source }),
            412 => return Err(Error::Precondition { path, source }),
            401 | 403 | 405 | 501 => return Err(refused(format!("answered {status}"))),
            _ => return Err(failed(source)),
        }
        let mut body = reply.into_body().bytes_stream();
        let mut text = Vec::new();
        while let Some(chunk) = body.next().await {
            text.extend_from_slice(&chunk.map_err(failed)?);
            if text.len() > LONGEST_REPLY {
                break;
            }
        }
        // A copy that failed on its way has the status of one that did not.
        etag_in(&String::from_utf8_lossy(&text)).map_or_else(
            || Err(failed("a copy was answered without an ETag")),
            |etag| Ok(Some(etag)),
        )
    }
}

/// The ETag in the reply to a copy.
fn etag_in(reply: &str) -> Option<String> {
    let (_, rest) = reply.split_once("<ETag>")?;
    let (etag, _) = rest.split_once("</ETag>")?;
    Some(etag.replace("&quot;", "\"").replace("&#34;", "\""))
}
