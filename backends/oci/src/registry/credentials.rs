//! Who a registry is told that we are: the files of credentials that other tools write.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Reference, RegistryError, helper};

/// The largest file that is read.
const FILE_MAX: u64 = 1 << 20;

/// Who we are for a registry.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// A user and what proves it.
    Basic {
        /// The name.
        user: String,
        /// A password or an access token.
        password: String,
    },
    /// A token that others are given for.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Where credentials are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthFiles {
    files: Vec<PathBuf>,
    /// Whether the first must be there.
    required: bool,
    /// How long a credential program is waited for.
    helper_limit: Duration,
    /// What was there for some repositories when the files could be read; then they are not any more.
    known: Option<Vec<(String, Option<Credentials>)>>,
}

impl AuthFiles {
    /// Only in this file, which must be there.
    pub fn only(file: PathBuf) -> Self {
        Self {
            files: vec![file],
            required: true,
            helper_limit: helper::TIME_LIMIT,
            known: None,
        }
    }

    /// Where podman, skopeo and docker keep them: `$REGISTRY_AUTH_FILE` alone if it is set, else
    /// `$XDG_RUNTIME_DIR/containers/auth.json`, `$XDG_CONFIG_HOME/containers/auth.json` (`~/.config`), then
    /// `$DOCKER_CONFIG/config.json` (`~/.docker`).
    pub fn of_user() -> Self {
        Self::of_environment(|name| {
            let value = std::env::var_os(name)?;
            (!value.is_empty()).then(|| value.into())
        })
    }

    fn of_environment(variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        if let Some(file) = variable("REGISTRY_AUTH_FILE") {
            return Self::only(file);
        }
        let home = |folder: &str| variable("HOME").map(|home| home.join(folder));
        let config = variable("XDG_CONFIG_HOME").or_else(|| home(".config"));
        let docker = variable("DOCKER_CONFIG").or_else(|| home(".docker"));
        let files = [
            variable("XDG_RUNTIME_DIR").map(|it| it.join("containers/auth.json")),
            config.map(|it| it.join("containers/auth.json")),
            docker.map(|it| it.join("config.json")),
        ];
        Self {
            files: files.into_iter().flatten().collect(),
            required: false,
            helper_limit: helper::TIME_LIMIT,
            known: None,
        }
    }

    /// What is there for these images now, for a process that will not see the files, nor run credential programs.
    /// What cannot be read is none.
    pub(super) fn read_now(&self, images: &[Reference]) -> Self {
        let read = |image: &Reference| (repository(image), self.find(image).ok().flatten());
        Self {
            files: Vec::new(),
            required: false,
            helper_limit: self.helper_limit,
            known: Some(images.iter().map(read).collect()),
        }
    }

    /// The first credentials that are there for an image.
    pub(super) fn find(&self, image: &Reference) -> Result<Option<Credentials>, RegistryError> {
        if let Some(known) = &self.known {
            let wanted = repository(image);
            let found = known.iter().find(|(place, _)| *place == wanted);
            return Ok(found.and_then(|(_, credentials)| credentials.clone()));
        }
        for path in &self.files {
            let Some(file) = read(path, self.required)? else {
                continue;
            };
            if let Some(found) = file.find(path, image, self.helper_limit)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn repository(image: &Reference) -> String {
    format!("{}/{}", image.registry(), image.repository())
}

/// `config.json` of docker, `auth.json` of podman.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    #[serde(default)]
    auths: Option<HashMap<String, Entry>>,
    #[serde(default)]
    cred_helpers: Option<HashMap<String, String>>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    /// Base64 of `user:password`.
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry(..)")
    }
}

fn read(path: &Path, required: bool) -> Result<Option<AuthFile>, RegistryError> {
    let wrong = |reason: String| RegistryError::AuthFile {
        path: path.to_owned(),
        reason,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if required => return Err(wrong(error.to_string())),
        // What is not there, or not for us, has nothing for us.
        Err(_) => return Ok(None),
    };
    let mut bytes = Vec::new();
    let read = file.take(FILE_MAX).read_to_end(&mut bytes);
    read.map_err(|error| wrong(error.to_string()))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let file = serde_json::from_slice(&bytes).map_err(|error| {
        // Its own words could have a part of a secret.
        wrong(format!("malformed in line {}", error.line()))
    })?;
    Ok(Some(file))
}

impl AuthFile {
    fn find(
        &self,
        path: &Path,
        image: &Reference,
        limit: Duration,
    ) -> Result<Option<Credentials>, RegistryError> {
        let helpers = self.cred_helpers.as_ref();
        let helper = helpers.and_then(|helpers| helpers.get(image.registry()));
        if let Some(name) = helper {
            return helper::ask(name, image.server(), limit);
        }
        if let Some((key, entry)) = self.entry(image) {
            let found = entry.credentials().map_err(|reason| {
                let (path, key) = (path.to_owned(), key.escape_debug());
                let reason = format!("the entry of {key} {reason}");
                RegistryError::AuthFile { path, reason }
            })?;
            // Docker leaves an empty entry for what its store has.
            if found.is_some() {
                return Ok(found);
            }
        }
        match self.creds_store.as_deref() {
            None | Some("") => Ok(None),
            Some(name) => helper::ask(name, image.server(), limit),
        }
    }

    /// The entry that says most of an image: of its repository, of a folder above, of its registry.
    fn entry(&self, image: &Reference) -> Option<(&String, &Entry)> {
        let place = format!("{}/{}", image.registry(), image.repository());
        let weight = |key: &str| {
            let key = normal(key);
            let rest = place.strip_prefix(key)?;
            (rest.is_empty() || rest.starts_with('/')).then_some(key.len())
        };
        let entries = self.auths.iter().flatten();
        let fitting = entries.filter_map(|(key, entry)| Some((weight(key)?, key, entry)));
        let best = fitting.max_by(|(a, one, _), (b, other, _)| (a, one).cmp(&(b, other)));
        best.map(|(_, key, entry)| (key, entry))
    }
}

/// What a key of `auths` names, without the parts of a URL that old tools wrote.
fn normal(key: &str) -> &str {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let key = match bare {
        Some(url) => {
            let url = url.trim_end_matches('/');
            let url = url
                .strip_suffix("/v1")
                .or_else(|| url.strip_suffix("/v2"))
                .unwrap_or(url);
            url.trim_end_matches('/')
        }
        None => key,
    };
    match key {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = some(&self.identitytoken) {
            return Ok(Some(Credentials::Identity(token)));
        }
        if let Some(auth) = some(&self.auth) {
            let bytes = STANDARD.decode(auth.trim()).map_err(|_| "is no base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "is no text")?;
            let (user, password) = text.split_once(':').ok_or("has no colon")?;
            return Ok(Some(Credentials::Basic {
                user: user.to_owned(),
                // Some tools pad it.
                password: password.trim_end_matches('\0').to_owned(),
            }));
        }
        let basic = some(&self.username).zip(some(&self.password));
        Ok(basic.map(|(user, password)| Credentials::Basic { user, password }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    fn find(files: &[&str], image: &str) -> Result<Option<Credentials>, RegistryError> {
        let folder = tempfile::tempdir().unwrap();
        let files = files.iter().enumerate().map(|(number, text)| {
            let path = folder.path().join(number.to_string());
            std::fs::write(&path, text).unwrap();
            path
        });
        let files = AuthFiles {
            files: files.collect(),
            required: false,
            helper_limit: Duration::from_secs(10),
            known: None,
        };
        files.find(&image.parse().unwrap())
    }

    #[test]
    fn the_entry_that_says_most_of_an_image_is_taken() {
        let auth = |text: &str| STANDARD.encode(text);
        let file = format!(
            r#"{{"auths":{{
                "r.example":{{"auth":"{}"}},
                "r.example/a":{{"auth":"{}"}},
                "r.example/a/b":{{"username":"u","password":"p"}},
                "https://index.docker.io/v1/":{{"auth":"{}"}},
                "https://t.example/v2/":{{"identitytoken":"secret"}}}}}}"#,
            auth("one:1"),
            auth("two:2:3"),
            auth("hub:h")
        );
        for (image, expected) in [
            ("r.example/x", basic("one", "1")),
            ("r.example/ab", basic("one", "1")),
            ("r.example/a/c", basic("two", "2:3")),
            ("r.example/a/b:t", basic("u", "p")),
            ("alpine", basic("hub", "h")),
            (
                "t.example/x",
                Some(Credentials::Identity("secret".to_owned())),
            ),
            ("r.example:5000/x", None),
            ("r.example.org/x", None),
        ] {
            assert_eq!(find(&[&file], image).unwrap(), expected, "{image}");
        }
    }

    #[test]
    fn files_are_asked_one_after_another_and_the_first_that_knows_wins() {
        let first = r#"{"auths":{"a.example":{"username":"1","password":"1"},"b.example":{}}}"#;
        let second = r#"{"auths":{"a.example":{"username":"2","password":"2"},
            "b.example":{"username":"2","password":"2"}}}"#;
        assert_eq!(
            find(&[first, second], "a.example/x").unwrap(),
            basic("1", "1")
        );
        assert_eq!(
            find(&["", first, second], "b.example/x").unwrap(),
            basic("2", "2")
        );
    }

    #[test]
    fn a_file_that_is_malformed_is_named_and_none_of_it_is_shown() {
        for (text, says) in [
            ("{\"auths\":\n\"hunter2\"}", "malformed in line 2"),
            (
                r#"{"auths":{"a.example":{"auth":"hunter2!"}}}"#,
                "a.example is no base64",
            ),
            (
                r#"{"auths":{"a.example":{"auth":"aHVudGVyMg=="}}}"#,
                "has no colon",
            ),
        ] {
            let error = find(&[text], "a.example/x").unwrap_err().to_string();
            assert!(
                error.contains(says) && !error.contains("hunter2"),
                "{error}"
            );
        }
        let missing = AuthFiles::only("/nonexistent/auth.json".into());
        let error = missing.find(&"a.example/x".parse().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/auth.json"),
            "{error}"
        );
    }

    #[test]
    fn files_are_where_other_tools_write_them() {
        let files = |variables: &[(&str, &str)]| {
            let found = AuthFiles::of_environment(|name| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| value.into())
            });
            let files = found.files.iter();
            files
                .map(|file| file.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            files(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")]),
            [
                "/r/containers/auth.json",
                "/h/.config/containers/auth.json",
                "/h/.docker/config.json"
            ]
        );
        assert_eq!(
            files(&[("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d")]),
            ["/c/containers/auth.json", "/d/config.json"]
        );
        assert_eq!(
            files(&[("REGISTRY_AUTH_FILE", "/f"), ("HOME", "/h")]),
            ["/f"]
        );
    }
}
