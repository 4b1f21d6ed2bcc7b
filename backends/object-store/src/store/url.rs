//! Where a bucket is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::OpenError;

/// Which protocol a bucket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Amazon S3 and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
    /// A directory of this host.
    Directory,
}

/// `s3://BUCKET[/PREFIX]`, `gs://BUCKET[/PREFIX]`, `az://CONTAINER[/PREFIX]` or `file:DIR`.
///
/// The prefix is taken as it is: nothing in it is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    provider: Provider,
    bucket: String,
    prefix: String,
}

impl StoreUrl {
    /// Which protocol the bucket speaks.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// The bucket's or container's name; the path of a directory.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What the keys begin with: empty, or with `/` at its end and not at its beginning.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The URL without the prefix.
    pub fn bucket_url(&self) -> String {
        format!("{}{}", self.provider.scheme(), self.bucket)
    }

    pub(super) fn directory(&self) -> PathBuf {
        PathBuf::from(&self.bucket)
    }
}

impl Provider {
    fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3://",
            Self::Google => "gs://",
            Self::Azure => "az://",
            Self::Directory => "file:",
        }
    }
}

impl FromStr for StoreUrl {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<Self, OpenError> {
        let providers = [Provider::S3, Provider::Google, Provider::Azure];
        let found = providers
            .into_iter()
            .find_map(|provider| Some((provider, text.strip_prefix(provider.scheme())?)));
        let Some((provider, rest)) = found else {
            let directory = text
                .strip_prefix("file://")
                .or_else(|| text.strip_prefix("file:"))
                .filter(|directory| !directory.is_empty());
            return directory.map_or_else(
                || {
                    Err(OpenError::url(
                        text,
                        "it has to begin with s3://, gs:// or az://",
                    ))
                },
                |directory| {
                    Ok(Self {
                        provider: Provider::Directory,
                        bucket: directory.to_owned(),
                        prefix: String::new(),
                    })
                },
            );
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let strange = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_' | '$');
        if bucket.is_empty() || bucket.contains(strange) {
            return Err(OpenError::url(
                text,
                "a bucket's name follows the two slashes, of letters, digits, '-', '.' and '_'",
            ));
        }
        let trimmed = prefix.trim_end_matches('/');
        let odd = |part: &str| {
            matches!(part, "" | "." | "..") || part.contains(|c: char| c.is_ascii_control())
        };
        if !trimmed.is_empty() && trimmed.split('/').any(odd) {
            return Err(OpenError::url(
                text,
                "the prefix has a component that is empty, '.' or '..', or a control character",
            ));
        }
        Ok(Self {
            provider,
            bucket: bucket.to_owned(),
            prefix: match trimmed {
                "" => String::new(),
                trimmed => format!("{trimmed}/"),
            },
        })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.provider.scheme())?;
        f.write_str(&self.bucket)?;
        match self.prefix.strip_suffix('/') {
            Some(prefix) => write!(f, "/{prefix}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_provider_bucket_and_prefix() {
        for (text, provider, bucket, prefix, shown) in [
            ("s3://b", Provider::S3, "b", "", "s3://b"),
            ("s3://b/", Provider::S3, "b", "", "s3://b"),
            ("gs://b.c/d", Provider::Google, "b.c", "d/", "gs://b.c/d"),
            (
                "az://$web/d/e%20f/",
                Provider::Azure,
                "$web",
                "d/e%20f/",
                "az://$web/d/e%20f",
            ),
            (
                "file:/var/x",
                Provider::Directory,
                "/var/x",
                "",
                "file:/var/x",
            ),
            (
                "file:///var/x",
                Provider::Directory,
                "/var/x",
                "",
                "file:/var/x",
            ),
            ("file:x", Provider::Directory, "x", "", "file:x"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(
                (url.provider(), url.bucket(), url.prefix()),
                (provider, bucket, prefix)
            );
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn what_names_no_bucket_is_refused_with_a_reason() {
        for text in [
            "",
            "s3:",
            "s3://",
            "s3:///a",
            "s3://u:p@h/x",
            "http://b/x",
            "file:",
            "s3://b//x",
            "s3://b/x/../y",
            "s3://b/x\ny",
        ] {
            let refused = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(refused.contains("is not"), "{text}: {refused}");
            assert!(!refused.contains('\n'), "{refused}");
        }
    }
}
