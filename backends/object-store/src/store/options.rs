//! How a bucket is reached: the usual environment, the AWS files, and options of the command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::OpenError;

/// What a bucket is opened with.
///
/// Begin with [`from_env`](Self::from_env), then [`set`](Self::set) what `--store-option` says: it goes before the
/// environment, which goes before the AWS files. Keys are those of the client library, for instance `region`,
/// `endpoint`, `allow_http`, `skip_signature`, `virtual_hosted_style_request`, `request_payer`, `timeout`.
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// Names as in the environment, in lower case.
    environment: BTreeMap<String, String>,
    given: Vec<(String, String)>,
    home: Option<PathBuf>,
}

/// Where the environment's names for object stores begin.
const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

impl StoreOptions {
    /// What the environment of this process says: `AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL`,
    /// `AWS_ALLOW_HTTP`, `AWS_PROFILE`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` and so on.
    pub fn from_env() -> Self {
        Self::from_vars(std::env::vars_os())
    }

    /// As [`from_env`](Self::from_env), from names and values that are given.
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut options = Self::default();
        for (name, value) in vars {
            if name == "HOME" {
                options.home = Some(value.into());
                continue;
            }
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
                continue;
            };
            if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !value.is_empty() {
                options
                    .environment
                    .insert(name.to_ascii_lowercase(), value.to_owned());
            }
        }
        options
    }

    /// Takes one `--store-option`, of the form `KEY=VALUE`. Whether the key is known is told when a store is opened.
    ///
    /// # Errors
    /// It has no `=`, or nothing before it.
    pub fn set(&mut self, option: &str) -> Result<(), OpenError> {
        match option.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                self.given
                    .push((key.to_ascii_lowercase(), value.to_owned()));
                Ok(())
            }
            _ => Err(OpenError::option(option, "it has to be KEY=VALUE")),
        }
    }

    /// The value of a name of the environment, given in lower case.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// All names of the environment, in lower case, with their values.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The options of the command line in their order.
    pub(super) fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        self.given
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Everything that says which service it is.
    pub(super) fn endpoint(&self) -> String {
        let names = ["endpoint", "base_url", "account", "emulator"];
        let all = self.variables().chain(self.given());
        let named = all.filter(|(key, _)| names.iter().any(|name| key.contains(name)));
        // A key of an account is a secret, and says no more than its name.
        let plain = named.filter(|(key, _)| !key.contains("_key"));
        plain
            .map(|(key, value)| format!("{key}={value} "))
            .collect()
    }

    pub(super) fn home(&self) -> Option<&PathBuf> {
        self.home.as_ref()
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.environment.keys())
            .entries(self.given.iter().map(|(key, _)| key))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_a_key_and_a_value() {
        let mut options = StoreOptions::default();
        options.set("Region=eu-x").unwrap();
        options.set("token=a=b").unwrap();
        options.set("user_agent=").unwrap();
        let given: Vec<_> = options.given().collect();
        assert_eq!(
            given,
            [("region", "eu-x"), ("token", "a=b"), ("user_agent", "")]
        );
        for bad in ["region", "=x", ""] {
            let refused = options.set(bad).unwrap_err().to_string();
            assert!(refused.contains("KEY=VALUE"), "{refused}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut options =
            StoreOptions::from_vars([("AWS_SECRET_ACCESS_KEY".into(), "hush".into())]);
        options.set("token=hush").unwrap();
        let shown = format!("{options:?}");
        assert!(
            !shown.contains("hush") && shown.contains("token"),
            "{shown}"
        );
    }
}
