//! Objects that stand for directories.
//!
//! Other tools know a directory by an object whose key is the directory's with a `/` at its end. The client library
//! cannot name such a key, so for S3 the request is made here, with the library's credentials, signature and
//! HTTP client. Other services have an object of a reserved name in the directory instead.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    Attribute, Attributes, Error, GetOptions, ObjectStore, ObjectStoreExt, PutOptions, PutPayload,
    Result,
};

/// The object in a directory that marks it where a key cannot end with a `/`.
pub(crate) const PLACEHOLDER: &str = ".vfsd-directory";

/// Metadata that markers have, by their names.
const NAMES: [&str; 5] = ["mode", "uid", "gid", "mtime", "ctime"];

/// Writes and reads markers. Keys end with `/`.
#[async_trait]
pub(crate) trait Markers: fmt::Debug + Send + Sync {
    /// Writes one, whether it is there or not.
    async fn put(&self, directory: &str, attributes: &Attributes) -> Result<()>;

    /// Removes one, if it is there.
    async fn delete(&self, directory: &str) -> Result<()>;

    /// The metadata of one, if it is there.
    async fn look(&self, directory: &str) -> Result<Option<Attributes>>;
}

/// An object of a reserved name in each directory.
#[derive(Debug)]
pub(super) struct Placeholders(pub(super) Arc<dyn ObjectStore>);

fn placeholder(directory: &str) -> Result<Path> {
    Ok(Path::parse(format!("{directory}{PLACEHOLDER}"))?)
}

#[async_trait]
impl Markers for Placeholders {
    async fn put(&self, directory: &str, attributes: &Attributes) -> Result<()> {
        let options = PutOptions {
            attributes: attributes.clone(),
            ..PutOptions::default()
        };
        let payload = PutPayload::new();
        self.0
            .put_opts(&placeholder(directory)?, payload, options)
            .await?;
        Ok(())
    }

    async fn delete(&self, directory: &str) -> Result<()> {
        match self.0.delete(&placeholder(directory)?).await {
            Err(Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn look(&self, directory: &str) -> Result<Option<Attributes>> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        match self.0.get_opts(&placeholder(directory)?, options).await {
            Ok(found) => Ok(Some(found.attributes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Keys with a `/` at their end, in S3.
pub(super) struct S3Markers {
    s3: Arc<AmazonS3>,
    client: HttpClient,
    region: String,
}

impl S3Markers {
    pub(super) fn new(s3: Arc<AmazonS3>, client: HttpClient, region: String) -> Self {
        Self { s3, client, region }
    }

    /// Sends a request for a marker, and says with which status it was answered.
    async fn send(
        &self,
        method: &'static str,
        directory: &str,
        attributes: &Attributes,
    ) -> Result<(u16, Attributes)> {
        // The library knows how the bucket is addressed; only the slash is missing.
        let path = Path::parse(directory)?;
        let verb = method.parse().map_err(failed)?;
        let signed = self
            .s3
            .signed_url(verb, &path, Duration::from_secs(60))
            .await?;
        let plain = signed.as_str().split('?').next().unwrap_or_default();
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.parse().map_err(failed)?;
        *request.uri_mut() = format!("{plain}/").parse().map_err(failed)?;
        let headers = request.headers_mut();
        if method == "PUT" {
            let kind = "application/x-directory".parse().map_err(failed)?;
            headers.insert("content-type", kind);
            headers.insert("content-length", "0".parse().map_err(failed)?);
        }
        for (header, name) in HEADERS.into_iter().zip(NAMES) {
            if let Some(value) = attributes.get(&Attribute::Metadata(name.into())) {
                headers.insert(header, value.parse().map_err(failed)?);
            }
        }
        let credential = self.s3.credentials().get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None)?;
        let reply = self.client.execute(request).await.map_err(failed)?;
        let status = reply.status();
        let mut found = Attributes::new();
        for (header, name) in HEADERS.into_iter().zip(NAMES) {
            let value = reply.headers().get(header);
            if let Some(value) = value.and_then(|value| value.to_str().ok()) {
                found.insert(Attribute::Metadata(name.into()), value.to_owned().into());
            }
        }
        if status.is_success() || status.as_u16() == 404 {
            return Ok((status.as_u16(), found));
        }
        Err(failed(format!("answered {}", status.as_u16())))
    }
}

const HEADERS: [&str; 5] = [
    "x-amz-meta-mode",
    "x-amz-meta-uid",
    "x-amz-meta-gid",
    "x-amz-meta-mtime",
    "x-amz-meta-ctime",
];

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic {
        store: "marker",
        source: error.into(),
    }
}

impl fmt::Debug for S3Markers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3Markers").field(&self.s3).finish()
    }
}

#[async_trait]
impl Markers for S3Markers {
    async fn put(&self, directory: &str, attributes: &Attributes) -> Result<()> {
        match self.send("PUT", directory, attributes).await? {
            (404, _) => Err(failed("answered 404")),
            _ => Ok(()),
        }
    }

    async fn delete(&self, directory: &str) -> Result<()> {
        self.send("DELETE", directory, &Attributes::new()).await?;
        Ok(())
    }

    async fn look(&self, directory: &str) -> Result<Option<Attributes>> {
        let (status, found) = self.send("HEAD", directory, &Attributes::new()).await?;
        Ok((status != 404).then_some(found))
    }
}
