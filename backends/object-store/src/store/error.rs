//! Why a store cannot be used, as a line that says what to do.

use std::error::Error;

use object_store::RetryConfig;
use vfsd_backend::one_line;

use super::probe::ProbeReport;

/// Why a bucket cannot be opened. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is none.
    #[error("'{}' is not the address of a bucket: {reason}", url.escape_default())]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option is no `KEY=VALUE`, or its key is not known.
    #[error("--store-option '{}': {reason}", option.escape_default())]
    Option {
        /// As given.
        option: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The credentials in the AWS files cannot be used.
    #[error("{0}")]
    Credentials(String),
    /// The options do not go together, or the service is not as they say.
    #[error("cannot open {store}: {reason}")]
    Store {
        /// The bucket.
        store: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The service ignores the conditions of writes: what a probe found, and what to do.
    #[error("{0} (--flat-overwrite=last-wins)")]
    Careless(ProbeReport),
}

impl OpenError {
    pub(super) fn url(url: &str, reason: &'static str) -> Self {
        Self::Url {
            url: url.to_owned(),
            reason,
        }
    }

    pub(super) fn option(option: &str, reason: impl Into<String>) -> Self {
        Self::Option {
            option: option.to_owned(),
            reason: reason.into(),
        }
    }

    /// What a first request met.
    pub(crate) fn store(store: &str, error: &object_store::Error) -> Self {
        Self::Store {
            store: store.to_owned(),
            reason: advice(error, READING),
        }
    }

    /// What a first write met.
    pub(crate) fn writing(store: &str, error: &object_store::Error) -> Self {
        Self::Store {
            store: store.to_owned(),
            reason: advice(error, WRITING),
        }
    }
}

/// The library's own retries are off: those of this crate count, wait and check.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

/// An answer of the service that stays the same however often the request is repeated, and for which the
/// client library has no error of its own.
#[derive(Debug, thiserror::Error)]
#[error("answered {status}: {body}")]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) body: String,
}

/// The answer that stays the same, if the service gave one.
fn refused(error: &object_store::Error) -> Option<&Refused> {
    let mut source: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = source {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        source = error.source();
    }
    None
}

/// Whether the same request may have another answer soon.
pub(super) fn is_transient(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    let is_passing = matches!(error, E::Generic { .. } | E::JoinError { .. });
    is_passing && refused(error).is_none() && !deletion_is_denied(error)
}

/// Whether one of many objects that S3 was to delete is not to be deleted. The library has the text of that alone, with
/// the code at its end.
fn deletion_is_denied(error: &object_store::Error) -> bool {
    let text = match error {
        object_store::Error::Generic { source, .. } => source.to_string(),
        _ => return false,
    };
    text.starts_with("DeleteObjects request failed for key ")
        && text.ends_with("(code: AccessDenied)")
}

/// Whether the service does not allow it.
pub(crate) fn is_denied(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    let status = refused(error).map(|refused| refused.status);
    matches!(status, Some(401 | 403))
        || deletion_is_denied(error)
        || matches!(
            error,
            E::PermissionDenied { .. } | E::Unauthenticated { .. }
        )
}

/// Whether the service has no such request, or not with such a condition.
pub(super) fn is_unknown(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    let status = refused(error).map(|refused| refused.status);
    matches!(status, Some(400 | 405 | 501))
        || matches!(error, E::NotSupported { .. } | E::NotImplemented { .. })
}

/// What is not allowed to who may not read.
const READING: &str =
    "the credentials do not allow to list it; reading needs s3:ListBucket and s3:GetObject";
/// What is not allowed to who may read, and not write.
const WRITING: &str = "the credentials do not allow to write to it; --flat-write needs s3:PutObject and s3:DeleteObject, \
                       too: serve it read-only";

/// Whether there is no way to the service, or nobody there.
pub(super) fn is_unreachable(error: &object_store::Error) -> bool {
    let text = one_line(error);
    let found = |pattern: &str| text.contains(pattern);
    found("dns error") || found("lookup address") || found("onnect")
}

/// One line on why a request has to be repeated, and what to do.
pub(super) fn passing(error: &object_store::Error) -> String {
    advice(error, READING)
}

/// One line on what went wrong and what to do about it.
fn advice(error: &object_store::Error, denied: &'static str) -> String {
    let text = one_line(error);
    let found = |pattern: &str| text.contains(pattern);
    let advice = match () {
        _ if found("NoSuchBucket") || found("ContainerNotFound") => {
            "there is no such bucket; check its name and the endpoint (AWS_ENDPOINT_URL)"
        }
        _ if found("169.254.169.254") || found("metadata/") => {
            "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE \
             (for a public bucket: --store-option skip_signature=true)"
        }
        _ if found("SignatureDoesNotMatch") || found("InvalidAccessKeyId") => {
            "the service does not take these credentials; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        }
        _ if found("ExpiredToken") => "the credentials have expired; renew them",
        _ if found("RequestTimeTooSkewed") || found("RequestExpired") => {
            "this host's clock and the service's are too far apart; set this host's"
        }
        _ if is_denied(error) => denied,
        _ if found("answered 301")
            || found("answered 307")
            || found("PermanentRedirect")
            || found("AuthorizationHeaderMalformed") =>
        {
            "the bucket is in another region; set AWS_REGION"
        }
        _ if found("plain http is not allowed") => {
            "plain http is refused to other hosts unless AWS_ALLOW_HTTP=true or --store-option allow_http=true \
             is set"
        }
        _ if found("certificate") => {
            "its certificate is not trusted; add the authority to the host's certificates, or name it with \
             SSL_CERT_FILE (for s3:// AWS_CA_BUNDLE)"
        }
        _ if found("dns error") || found("lookup address") => {
            "its name cannot be resolved; check the endpoint (AWS_ENDPOINT_URL) and the network"
        }
        _ if found("onnect") || found("timed out") || found("no reply in time") => {
            "it cannot be reached; check the endpoint (AWS_ENDPOINT_URL) and the network"
        }
        _ => return text,
    };
    format!("{advice} ({text})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_the_service_says() {
        let error = object_store::Error::Generic {
            store: "S3",
            source: "<Error>\n<Code>NoSuchBucket</Code>\r\n".into(),
        };
        let shown = OpenError::store("s3://b", &error).to_string();
        assert!(
            shown.starts_with("cannot open s3://b: there is no such bucket"),
            "{shown}"
        );
        assert!(!shown.contains(['\n', '\r']), "{shown}");
    }

    #[test]
    fn a_clock_that_is_wrong_is_not_taken_for_credentials_that_are() {
        let error = object_store::Error::PermissionDenied {
            path: "b".to_owned(),
            source: "answered 403: <Code>RequestTimeTooSkewed</Code>".into(),
        };
        let shown = OpenError::store("s3://b", &error).to_string();
        assert!(shown.contains("this host's clock"), "{shown}");
    }

    #[test]
    fn a_deletion_that_is_not_allowed_is_not_tried_again() {
        let failed = |code: &str| object_store::Error::Generic {
            store: "S3",
            source: format!("DeleteObjects request failed for key a: No. (code: {code})").into(),
        };
        let denied = failed("AccessDenied");
        assert!(is_denied(&denied) && !is_transient(&denied));
        let passing = failed("SlowDown");
        assert!(!is_denied(&passing) && is_transient(&passing));
        let shown = OpenError::writing("s3://b", &denied).to_string();
        assert!(shown.contains("do not allow to write"), "{shown}");
    }
}
