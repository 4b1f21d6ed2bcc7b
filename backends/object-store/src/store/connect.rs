//! The client library's store for an address and options.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3CopyIfNotExists};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::local::LocalFileSystem;
use object_store::{ClientConfigKey, ClientOptions, ObjectStore, StaticCredentialProvider};
use vfsd_backend::{is_loopback, one_line};

use super::attributes::AttributeStore;
use super::error::no_retries;
use super::http::Connector;
use super::list::{Lister, PageLister, PathLister};
use super::markers::Markers;
use super::roots::trusting;
use super::s3::S3Requests;
use super::{OpenError, Provider, RetryPolicy, StoreOptions, StoreUrl, aws_files};

/// A bucket as the client library reaches it.
pub(super) struct Connection {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) lister: Arc<dyn Lister>,
    /// Where the library cannot name them.
    pub(super) markers: Option<Arc<dyn Markers>>,
    /// Where an object can get other attributes without being sent again.
    pub(super) attributes: Option<Arc<dyn AttributeStore>>,
}

impl Connection {
    fn paged(store: impl ObjectStore + PaginatedListStore) -> Self {
        let store = Arc::new(store);
        Self {
            lister: Arc::new(PageLister::new(store.clone())),
            markers: None,
            attributes: None,
            objects: store,
        }
    }
}

/// Builds the client. Reads files, sends nothing.
pub(super) fn connect(
    url: &StoreUrl,
    options: &StoreOptions,
    policy: &RetryPolicy,
) -> Result<Connection, OpenError> {
    let failed = |error: object_store::Error| OpenError::Store {
        store: url.bucket_url(),
        reason: one_line(&error),
    };
    // Time limits are this crate's: a body may take as long as it makes progress.
    let client = ClientOptions::new()
        .with_timeout_disabled()
        .with_read_timeout(policy.attempt);
    match url.provider() {
        Provider::S3 => {
            let profile = profile(options)?;
            let bundle = profile.iter().find(|(key, _)| *key == aws_files::CA_BUNDLE);
            let bundle = options
                .variable(aws_files::CA_BUNDLE)
                .or(bundle.map(|(_, value)| value.as_str()));
            let mut client = trusting(client, bundle)?;
            let mut builder = AmazonS3Builder::new().with_client_options(client.clone());
            let mut encrypted = false;
            let mut is_said = false;
            for (key, value) in settings::<AmazonS3ConfigKey>("aws_", &profile, options)? {
                match key {
                    AmazonS3ConfigKey::Client(key) => {
                        client = client.with_config(key, value.clone());
                    }
                    AmazonS3ConfigKey::Encryption(_) => encrypted = true,
                    AmazonS3ConfigKey::UnsignedPayload => is_said = true,
                    _ => {}
                }
                builder = builder.with_config(key, value);
            }
            let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
            let region = region.unwrap_or_else(|| "us-east-1".to_owned());
            let payer = builder.get_config_value(&AmazonS3ConfigKey::RequestPayer);
            let payer = payer.as_deref() == Some("true");
            if !is_said {
                let protected = is_protected(&builder);
                builder = builder.with_unsigned_payload(protected);
            }
            let condition = AmazonS3ConfigKey::CopyIfNotExists;
            if builder.get_config_value(&condition).is_none() {
                let header = ("if-none-match".to_owned(), "*".to_owned());
                let header = S3CopyIfNotExists::Header(header.0, header.1);
                builder = builder.with_copy_if_not_exists(header);
            }
            let store = builder
                .with_bucket_name(url.bucket())
                .with_retry(no_retries())
                .with_http_connector(Connector::new(policy))
                .build()
                .map_err(failed)?;
            let client = Connector::new(policy).connect(&client).map_err(failed)?;
            let store = Arc::new(store);
            let bucket = url.bucket();
            let own = S3Requests::new(store.clone(), client, bucket, region, payer);
            let own = Arc::new(own);
            Ok(Connection {
                lister: Arc::new(PageLister::new(store.clone())),
                markers: Some(own.clone()),
                // A copy would have to name the keys of the encryption.
                attributes: (!encrypted).then_some(own as Arc<dyn AttributeStore>),
                objects: store,
            })
        }
        Provider::Google => {
            let mut builder =
                GoogleCloudStorageBuilder::new().with_client_options(trusting(client, None)?);
            for (key, value) in settings::<GoogleConfigKey>("google_", &Vec::new(), options)? {
                builder = builder.with_config(key, value);
            }
            let unsigned = builder.get_config_value(&GoogleConfigKey::SkipSignature);
            if unsigned.as_deref() == Some("true") {
                // The library writes with credentials all the same, and asks a service for them that is there in Google's
                // network alone. The connector leaves out a name that is empty.
                let nobody = GcpCredential {
                    bearer: String::new(),
                };
                let nobody = StaticCredentialProvider::new(nobody);
                builder = builder.with_credentials(Arc::new(nobody));
            }
            builder
                .with_bucket_name(url.bucket())
                .with_retry(no_retries())
                .with_http_connector(Connector::new(policy))
                .build()
                .map(Connection::paged)
                .map_err(failed)
        }
        Provider::Azure => {
            let mut builder =
                MicrosoftAzureBuilder::new().with_client_options(trusting(client, None)?);
            for (key, value) in settings::<AzureConfigKey>("azure_", &Vec::new(), options)? {
                builder = builder.with_config(key, value);
            }
            builder
                .with_container_name(url.bucket())
                .with_retry(no_retries())
                .with_http_connector(Connector::new(policy))
                .build()
                .map(Connection::paged)
                .map_err(failed)
        }
        Provider::Directory => {
            if let Some((key, _)) = options.given().next() {
                return Err(OpenError::option(key, "a directory has no options"));
            }
            let store = LocalFileSystem::new_with_prefix(url.directory()).map_err(failed)?;
            let store: Arc<dyn ObjectStore> = Arc::new(store);
            Ok(Connection {
                lister: Arc::new(PathLister::new(store.clone())),
                markers: None,
                attributes: None,
                objects: store,
            })
        }
    }
}

/// Whether what is sent cannot be changed on its way: by TLS with a service whose certificate is looked at, or because it does not
/// leave this host. A hash of each body in the signature would say the same once more, and takes a third of the processor time of
/// an upload.
fn is_protected(builder: &AmazonS3Builder) -> bool {
    let value = |key| builder.get_config_value(&key);
    let endpoint = value(AmazonS3ConfigKey::S3Endpoint);
    let endpoint = endpoint.or_else(|| value(AmazonS3ConfigKey::Endpoint));
    if endpoint.as_deref().is_some_and(is_plain_loopback) {
        return true;
    }
    let scheme = |endpoint: String| Some(endpoint.split_once("://")?.0.to_owned());
    // Without an endpoint it is Amazon's own.
    let is_tls = endpoint.is_none_or(|endpoint| {
        scheme(endpoint).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
    });
    let unchecked = AmazonS3ConfigKey::Client(ClientConfigKey::AllowInvalidCertificates);
    is_tls && value(unchecked).is_none_or(|unchecked| unchecked == "false")
}

/// The AWS profile, without its keys where others were given.
fn profile(options: &StoreOptions) -> Result<aws_files::Profile, OpenError> {
    let is_key = |name: &str| {
        matches!(
            name.strip_prefix("aws_").unwrap_or(name),
            "access_key_id" | "skip_signature"
        )
    };
    let given = options.given().map(|(key, _)| key).any(is_key)
        || options.variable("aws_access_key_id").is_some()
        || options.variable("aws_skip_signature").is_some();
    if !given {
        return aws_files::profile(options);
    }
    let mut profile = aws_files::profile(options).unwrap_or_default();
    let kept = ["aws_region", "aws_endpoint_url", aws_files::CA_BUNDLE];
    profile.retain(|(key, _)| kept.contains(key));
    Ok(profile)
}

/// Everything that was set, the most important last: files, environment, command line. Where none of them says whether
/// plain http is allowed, it is to an endpoint on this host.
fn settings<K: FromStr + PartialEq>(
    prefix: &str,
    profile: &aws_files::Profile,
    options: &StoreOptions,
) -> Result<Vec<(K, String)>, OpenError> {
    let mut settings = Vec::new();
    let files = profile.iter().map(|(key, value)| (*key, value.as_str()));
    let environment = options
        .variables()
        .filter(|(name, _)| name.starts_with(prefix));
    for (key, value) in files.chain(environment) {
        if let Ok(key) = key.parse() {
            settings.push((key, value.to_owned()));
        }
    }
    for (key, value) in options.given() {
        let known = key
            .parse()
            .map_err(|_| OpenError::option(key, unknown(prefix)))?;
        settings.push((known, value.to_owned()));
    }
    let set = |name: &str| {
        let key: K = name.parse().ok()?;
        let mut latest = settings.iter().rev();
        latest.find_map(|(other, value)| (*other == key).then_some(value.as_str()))
    };
    let endpoints = ["aws_endpoint_url_s3", "endpoint", "base_url"].map(set);
    let given = || endpoints.iter().flatten().copied();
    if let Some(wrong) = given().find(|endpoint| !is_address(endpoint)) {
        return Err(OpenError::Credentials(format!(
            "the endpoint '{}' is no address; it begins with https:// or http:// and has no spaces",
            wrong.escape_default()
        )));
    }
    let is_here = given().next().is_some_and(is_plain_loopback);
    if let (true, None, Ok(key)) = (is_here, set(ALLOW_HTTP), ALLOW_HTTP.parse()) {
        settings.push((key, "true".to_owned()));
    }
    Ok(settings)
}

const ALLOW_HTTP: &str = "allow_http";

/// Whether requests can be sent to an endpoint.
fn is_address(endpoint: &str) -> bool {
    let Some((scheme, rest)) = endpoint.split_once("://") else {
        return false;
    };
    let is_known = ["http", "https"]
        .iter()
        .any(|own| scheme.eq_ignore_ascii_case(own));
    let is_host = !rest.is_empty() && !rest.starts_with(['/', '?', '#']);
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    let parsed = endpoint.parse().map(|parsed| *request.uri_mut() = parsed);
    is_known && is_host && parsed.is_ok()
}

/// Whether an endpoint is plain http to a loopback address: what is sent there does not leave this host.
fn is_plain_loopback(endpoint: &str) -> bool {
    let Some((scheme, rest)) = endpoint.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or(rest);
    scheme.eq_ignore_ascii_case("http") && is_loopback(authority)
}

fn unknown(prefix: &str) -> String {
    let examples = match prefix {
        "aws_" => {
            "region, endpoint, allow_http, virtual_hosted_style_request, skip_signature, request_payer"
        }
        "google_" => {
            "service_account, application_credentials, base_url, skip_signature, allow_http"
        }
        _ => "account_name, account_key, endpoint, use_emulator, skip_signature, allow_http",
    };
    format!("no such key; among those that exist are {examples}")
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.objects).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str, vars: &[(&str, &str)], given: &[&str]) -> Result<Connection, OpenError> {
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let mut options = StoreOptions::from_vars(vars);
        for option in given {
            options.set(option)?;
        }
        connect(&url.parse()?, &options, &RetryPolicy::default())
    }

    #[test]
    fn the_environment_is_enough_to_connect() {
        let vars = [
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_PAGER", "less"),
        ];
        open("s3://bucket", &vars, &[]).unwrap();
        open(
            "az://c",
            &[
                ("AZURE_STORAGE_ACCOUNT_NAME", "a"),
                ("AZURE_STORAGE_ACCOUNT_KEY", "YQ=="),
            ],
            &[],
        )
        .unwrap();
        open("gs://b", &[], &["skip_signature=true"]).unwrap();
    }

    #[test]
    fn an_unknown_option_is_named() {
        for url in ["s3://b", "gs://b", "az://b", "file:/"] {
            let refused = open(url, &[("AWS_ACCESS_KEY_ID", "a")], &["regoin=x"])
                .unwrap_err()
                .to_string();
            assert!(refused.contains("'regoin'"), "{refused}");
            assert!(!refused.contains('\n'));
        }
    }

    #[test]
    fn an_option_without_a_valid_value_is_named() {
        let vars = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        let refused = open("s3://b", &vars, &["allow_http=perhaps"])
            .unwrap_err()
            .to_string();
        assert!(refused.contains("perhaps"), "{refused}");
    }

    #[test]
    fn an_endpoint_on_this_host_is_told_from_names_that_look_like_it() {
        for endpoint in [
            "http://localhost",
            "http://localhost:9000/",
            "HTTP://127.0.0.1:9000",
            "http://127.1.2.3/path:1",
            "http://[::1]:9000",
        ] {
            assert!(is_plain_loopback(endpoint), "{endpoint}");
        }
        for endpoint in [
            "https://localhost",
            "localhost:9000",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "http://127.0.0.1@store.example",
            "http://10.0.0.1:9000",
            "http://[::2]:1",
            "http://store.example/localhost",
            "",
        ] {
            assert!(!is_plain_loopback(endpoint), "{endpoint}");
        }
    }

    #[test]
    fn an_endpoint_that_is_no_address_is_named() {
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        for endpoint in [
            "127.0.0.1:9000",
            "store",
            "ftp://store",
            "http://",
            "http://a b",
            "https:///x",
        ] {
            let given = format!("endpoint={endpoint}");
            let refused = open("s3://b", &keys, &[&given]).unwrap_err().to_string();
            assert!(
                refused.contains(endpoint) && refused.contains("https://"),
                "{refused}"
            );
        }
        for endpoint in [
            "https://store",
            "HTTP://127.0.0.1:9000/",
            "https://[::1]:9000/path",
        ] {
            open("s3://b", &keys, &[&format!("endpoint={endpoint}")]).unwrap();
        }
    }

    #[test]
    fn plain_http_is_allowed_to_this_host_unless_it_is_said() {
        fn allowed<K: FromStr + PartialEq>(prefix: &str, given: &[String]) -> Option<String> {
            let mut options = StoreOptions::default();
            for option in given {
                options.set(option).unwrap();
            }
            let settings = settings::<K>(prefix, &Vec::new(), &options).unwrap();
            let key: K = ALLOW_HTTP.parse().ok()?;
            let last = settings.into_iter().rfind(|(other, _)| *other == key);
            last.map(|(_, value)| value)
        }
        let here = |name: &str| format!("{name}=http://127.0.0.1:1");
        let yes = Some("true".to_owned());
        assert_eq!(
            allowed::<AmazonS3ConfigKey>("aws_", &[here("endpoint")]),
            yes
        );
        let base = [here("base_url")];
        assert_eq!(allowed::<GoogleConfigKey>("google_", &base), yes);
        assert_eq!(
            allowed::<AzureConfigKey>("azure_", &[here("endpoint")]),
            yes
        );
        let refused = [here("endpoint"), "allow_http=false".to_owned()];
        let said = allowed::<AmazonS3ConfigKey>("aws_", &refused);
        assert_eq!(said.as_deref(), Some("false"));
        let elsewhere = ["endpoint=http://store.example".to_owned()];
        assert_eq!(allowed::<AmazonS3ConfigKey>("aws_", &elsewhere), None);
        assert_eq!(allowed::<AmazonS3ConfigKey>("aws_", &[]), None);
    }

    #[test]
    fn a_body_is_signed_unless_tls_protects_it_or_it_stays_here() {
        let protected = |settings: &[(AmazonS3ConfigKey, &str)]| {
            let builder = settings
                .iter()
                .fold(AmazonS3Builder::new(), |builder, (key, value)| {
                    builder.with_config(*key, *value)
                });
            is_protected(&builder)
        };
        let (endpoint, own) = (AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint);
        let unchecked = AmazonS3ConfigKey::Client(ClientConfigKey::AllowInvalidCertificates);
        assert!(protected(&[]));
        assert!(protected(&[(endpoint, "HTTPS://store:9000/")]));
        assert!(protected(&[(endpoint, "http://127.0.0.1:9000")]));
        assert!(!protected(&[(endpoint, "http://store:9000")]));
        assert!(!protected(&[(endpoint, "store:9000")]));
        assert!(!protected(&[(endpoint, "https://a"), (own, "http://b")]));
        assert!(!protected(&[(unchecked, "true")]));
        assert!(!protected(&[(endpoint, "https://a"), (unchecked, "yes")]));

        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        let signs = |given: &[&str]| {
            let connection = open("s3://b", &keys, given).unwrap();
            format!("{connection:?}").contains("sign_payload: true")
        };
        assert!(!signs(&[]));
        assert!(!signs(&["endpoint=http://127.0.0.1:1"]));
        assert!(signs(&["endpoint=http://10.0.0.1:1", "allow_http=true"]));
        assert!(signs(&["unsigned_payload=false"]), "what is said stands");
    }

    #[test]
    fn half_a_pair_of_keys_is_refused() {
        let refused = open("s3://b", &[("AWS_ACCESS_KEY_ID", "a")], &[])
            .unwrap_err()
            .to_string();
        assert!(refused.to_lowercase().contains("secret"), "{refused}");
    }
}
