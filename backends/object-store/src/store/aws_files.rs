//! The files that the AWS tools keep: `~/.aws/credentials` and `~/.aws/config`.
//!
//! Profiles with keys in them are read, with their region and endpoint. A profile that has to ask somebody (SSO, another role, a
//! process) is refused with the command that gives its keys.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{OpenError, StoreOptions};

/// Larger files are none that a person keeps.
const LARGEST: u64 = 1 << 20;

/// What a profile says, with the client library's names.
pub(super) type Profile = Vec<(&'static str, String)>;

/// What is read of a profile, and how the client library calls it.
const READ: [(&str, &str); 6] = [
    ("aws_access_key_id", "aws_access_key_id"),
    ("aws_secret_access_key", "aws_secret_access_key"),
    ("aws_session_token", "aws_session_token"),
    ("region", "aws_region"),
    ("endpoint_url", "aws_endpoint_url"),
    ("ca_bundle", CA_BUNDLE),
];

/// What names the authorities that are trusted: in the environment, and of a profile.
pub(super) const CA_BUNDLE: &str = "aws_ca_bundle";

/// Ways to credentials that are not followed.
const ASKING: [&str; 4] = [
    "sso_session",
    "sso_start_url",
    "role_arn",
    "credential_process",
];

/// The profile that the environment chooses; empty when there is none and none was asked for by its name.
pub(super) fn profile(options: &StoreOptions) -> Result<Profile, OpenError> {
    let asked = options
        .variable("aws_profile")
        .or_else(|| options.variable("aws_default_profile"));
    let name = asked.unwrap_or("default");
    let place = |variable: &str, file: &str| -> Option<PathBuf> {
        let given = options.variable(variable).map(PathBuf::from);
        given.or_else(|| Some(options.home()?.join(".aws").join(file)))
    };
    let mut values: HashMap<String, String> = HashMap::new();
    let mut found = false;
    let files = [
        (place("aws_config_file", "config"), true),
        (place("aws_shared_credentials_file", "credentials"), false),
    ];
    for (file, is_config) in files {
        let Some(text) = file.as_deref().map(read).transpose()?.flatten() else {
            continue;
        };
        for (section, key, value) in entries(&text) {
            let profile = match is_config {
                true => section.strip_prefix("profile ").map_or(section, str::trim),
                false => section,
            };
            if profile == name {
                found = true;
                values.insert(key.to_ascii_lowercase(), value.to_owned());
            }
        }
    }
    if !found {
        return match asked {
            Some(name) => Err(OpenError::Credentials(format!(
                "there is no AWS profile '{}'; check AWS_PROFILE and ~/.aws/config",
                name.escape_default()
            ))),
            None => Ok(Vec::new()),
        };
    }
    if !values.contains_key("aws_access_key_id")
        && let Some(way) = ASKING.iter().find(|way| values.contains_key(**way))
    {
        return Err(OpenError::Credentials(format!(
            "the AWS profile '{0}' gets its keys by {way}; run: eval \"$(aws configure export-credentials --profile {0} \
             --format env)\"",
            name.escape_default()
        )));
    }
    let known = |(name, key): (&str, &'static str)| Some((key, values.get(name)?.clone()));
    Ok(READ.into_iter().filter_map(known).collect())
}

fn read(file: &Path) -> Result<Option<String>, OpenError> {
    let complain = |reason: &dyn std::fmt::Display| {
        OpenError::Credentials(format!("cannot read {}: {reason}", file.display()))
    };
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.len() > LARGEST => return Err(complain(&"it is too large")),
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(complain(&error)),
    }
    std::fs::read_to_string(file)
        .map(Some)
        .map_err(|error| complain(&error))
}

/// Section, key and value of each setting. Nested settings, which are indented, are left out.
fn entries(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let mut section = "";
    text.lines().filter_map(move |line| {
        let content = line.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            return None;
        }
        if let Some(rest) = content.strip_prefix('[') {
            section = rest.split(']').next().unwrap_or_default().trim();
            return None;
        }
        let (key, value) = content.split_once('=')?;
        let nested = line.starts_with([' ', '\t']);
        let value = value.split(" #").next().unwrap_or_default().trim();
        (!nested).then_some((section, key.trim(), value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(config: &str, credentials: &str) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        home
    }

    fn of(home: &tempfile::TempDir, profile_name: &str) -> Result<Profile, OpenError> {
        let mut vars = vec![("HOME".into(), home.path().as_os_str().to_owned())];
        if !profile_name.is_empty() {
            vars.push(("AWS_PROFILE".into(), profile_name.into()));
        }
        profile(&StoreOptions::from_vars(vars))
    }

    #[test]
    fn a_profile_with_keys_is_read_from_both_files() {
        let home = home(
            "[default]\nregion = eu-a\n[profile work]\n# c\nregion=eu-b # why\nendpoint_url = https://e\ns3 =\n  region = no\n",
            "[default]\naws_access_key_id=D\naws_secret_access_key=DS\n\n[work]\naws_access_key_id = W\naws_secret_access_key = W/S+=\n",
        );
        let region = |profile: &Profile| {
            profile
                .iter()
                .find(|(key, _)| *key == "aws_region")
                .map(|(_, value)| value.clone())
        };
        let default = of(&home, "").unwrap();
        assert_eq!(
            default.first(),
            Some(&("aws_access_key_id", "D".to_owned()))
        );
        assert_eq!(region(&default).as_deref(), Some("eu-a"));
        let work = of(&home, "work").unwrap();
        assert!(work.contains(&("aws_secret_access_key", "W/S+=".to_owned())));
        assert!(work.contains(&("aws_endpoint_url", "https://e".to_owned())));
        assert_eq!(region(&work).as_deref(), Some("eu-b"));
    }

    #[test]
    fn a_profile_that_is_missing_or_has_to_ask_is_refused_with_what_to_do() {
        let home = home("[profile sso]\nsso_session = x\n", "");
        let missing = of(&home, "nobody").unwrap_err().to_string();
        assert!(missing.contains("no AWS profile 'nobody'"), "{missing}");
        let asking = of(&home, "sso").unwrap_err().to_string();
        assert!(
            asking.contains("export-credentials --profile sso"),
            "{asking}"
        );
    }

    #[test]
    fn without_files_there_is_no_profile() {
        let empty = tempfile::tempdir().unwrap();
        assert!(of(&empty, "").unwrap().is_empty());
        assert!(of(&empty, "x").is_err());
    }
}
