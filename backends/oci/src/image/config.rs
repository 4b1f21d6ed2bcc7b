//! An image's configuration: what runs in it, and what its layers decode to.

use std::collections::BTreeMap;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vfsd_backend::Timestamp;

use super::{ImageError, Platform};

/// An image's configuration (`application/vnd.oci.image.config.v1+json`).
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// When it was made, as RFC 3339 has it.
    #[serde(default)]
    pub created: Option<String>,
    /// What machine it is for; older ones say nothing of it.
    #[serde(default)]
    pub os: String,
    /// What processor it is for.
    #[serde(default)]
    pub architecture: String,
    /// Which of them.
    #[serde(default)]
    pub variant: Option<String>,
    /// What runs in it.
    #[serde(default)]
    config: Option<RunConfig>,
    /// Its layers.
    pub(super) rootfs: RootFs,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct RootFs {
    /// The digest of each layer without its compression, from the lowest up.
    #[serde(default)]
    pub(super) diff_ids: Option<Vec<String>>,
}

/// How the image's program is started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct RunConfig {
    /// User or user and group, by name or number: `65534:65534`. Empty for root.
    #[serde(default, deserialize_with = "or_default")]
    pub user: String,
    /// Environment, each `NAME=VALUE`.
    #[serde(default, deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(default, deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// Its other arguments, or the program where there is no entry point.
    #[serde(default, deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// The directory it starts in. Empty for the root.
    #[serde(default, deserialize_with = "or_default")]
    pub working_dir: String,
    /// The signal that ends it, `SIGTERM` where it says nothing.
    #[serde(default, deserialize_with = "or_default")]
    pub stop_signal: String,
    /// What its maker says of it.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

/// Tools write `null` for what is empty.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Config {
    /// Reads a configuration.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        serde_json::from_slice(bytes).map_err(|source| ImageError::Json {
            what: "configuration",
            source,
        })
    }

    /// How the image's program is started.
    pub fn run(&self) -> RunConfig {
        self.config.clone().unwrap_or_default()
    }

    /// What machine it is for, if it says so.
    pub fn platform(&self) -> Option<Platform> {
        (!self.os.is_empty() && !self.architecture.is_empty()).then(|| Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone().filter(|variant| !variant.is_empty()),
        })
    }

    /// When it was made. 1970 where it does not say so, or says something else.
    pub fn created_at(&self) -> Timestamp {
        let created = self.created.as_deref().unwrap_or_default();
        match OffsetDateTime::parse(created, &Rfc3339) {
            Ok(time) => Timestamp {
                seconds: time.unix_timestamp(),
                nanoseconds: time.nanosecond(),
            },
            Err(_) => Timestamp::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_what_is_missing_are_empty() {
        let config = Config::parse(br#"{"rootfs":{"type":"layers","diff_ids":null}}"#).unwrap();
        assert_eq!(config.run(), RunConfig::default());
        assert_eq!(
            (config.platform(), config.created_at()),
            (None, Timestamp::default())
        );
        let config = br#"{"created":null,"config":{"Env":null,"Cmd":["sh"],"User":null},
            "os":"linux","architecture":"arm64","rootfs":{"diff_ids":[]}}"#;
        let config = Config::parse(config).unwrap();
        assert_eq!(config.run().cmd, ["sh"]);
        assert_eq!(config.platform().unwrap().to_string(), "linux/arm64");
        assert!(Config::parse(b"{}").is_err(), "no image's configuration");
    }

    #[test]
    fn the_time_is_read_with_its_zone_and_fraction() {
        let of = |created: &str| {
            let config = format!(r#"{{"created":"{created}","rootfs":{{"diff_ids":[]}}}}"#);
            let time = Config::parse(config.as_bytes()).unwrap().created_at();
            (time.seconds, time.nanoseconds)
        };
        assert_eq!(of("1970-01-01T01:00:01.000000005+01:00"), (1, 5));
        assert_eq!(of("1969-12-31T23:59:59.25Z"), (-1, 250_000_000));
        assert_eq!(of("yesterday"), (0, 0));
    }
}
