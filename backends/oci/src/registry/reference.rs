//! The name of an image in a registry.

use std::fmt;
use std::str::FromStr;

use crate::blob::Sha256Digest;

/// Docker Hub, by the name that images and credentials have for it.
const HUB: &str = "docker.io";
/// The longest name of a repository, its registry included.
const NAME_MAX: usize = 255;
/// The longest tag.
const TAG_MAX: usize = 128;

/// The name of an image in a registry: `REGISTRY/NAME[:TAG][@DIGEST]`.
///
/// As for other tools, a name without a registry is Docker Hub's, a name of one part there is in `library/`, and what
/// has neither tag nor digest has the tag `latest`. A digest is followed where there are both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    version: Version,
}

/// Which image of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// What has this tag now.
    Tag(String),
    /// That which has this digest, for ever.
    Digest(Sha256Digest),
}

impl Reference {
    /// The same repository and version at another host, or in a path there.
    ///
    /// # Errors
    /// A host that is none.
    pub fn at(&self, host: &str) -> Result<Self, BadReference> {
        let sign = match self.version {
            Version::Tag(_) => ':',
            Version::Digest(_) => '@',
        };
        format!("{host}/{}{sign}{}", self.repository, self.version).parse()
    }

    /// The registry's host, and port if it has one: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in it: `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Which image of the repository.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Where the registry answers.
    pub(super) fn host(&self) -> &str {
        match self.registry.as_str() {
            HUB => "registry-1.docker.io",
            other => other,
        }
    }

    /// What a credential program knows the registry as.
    pub(super) fn server(&self) -> &str {
        match self.registry.as_str() {
            HUB => "https://index.docker.io/v1/",
            other => other,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.version {
            Version::Tag(_) => ':',
            Version::Digest(_) => '@',
        };
        let Self {
            registry,
            repository,
            version,
        } = self;
        write!(f, "{registry}/{repository}{sign}{version}")
    }
}

/// What names no image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" names no image in a registry: {problem}", .text.escape_debug())]
pub struct BadReference {
    text: String,
    problem: &'static str,
}

impl FromStr for Reference {
    type Err = BadReference;

    /// Reads a reference, with or without `docker://` before it.
    fn from_str(text: &str) -> Result<Self, BadReference> {
        parse(text.strip_prefix("docker://").unwrap_or(text)).map_err(|problem| BadReference {
            text: text.to_owned(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse();
            let digest: Sha256Digest = digest
                .map_err(|_| "after the @ comes sha256: and 64 lowercase hexadecimal digits")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    // A colon before the last slash is a port's.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag
        && !is_tag(tag)
    {
        return Err("a tag has letters, digits, _, . and -, 128 at most");
    }
    let (registry, repository) = match name.split_once('/') {
        Some((host, repository)) if is_host(host) => (host, repository.to_owned()),
        Some(_) => (HUB, name.to_owned()),
        None => (HUB, name.to_owned()),
    };
    let registry = match registry {
        "index.docker.io" | "registry-1.docker.io" => HUB,
        other => other,
    };
    if !is_authority(registry) {
        return Err("its registry is no host, or host and port");
    }
    let repository = match registry == HUB && !repository.contains('/') {
        true => format!("library/{repository}"),
        false => repository,
    };
    if !repository.split('/').all(is_component) {
        return Err("a name has lowercase letters and digits, with . _ __ or - between them");
    }
    if registry.len().saturating_add(repository.len()) >= NAME_MAX {
        return Err("its name is longer than 255 characters");
    }
    let version = match (digest, tag) {
        (Some(digest), _) => Version::Digest(digest),
        (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
    };
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        version,
    })
}

/// Whether the first part of a name is a registry, not a folder of Docker Hub.
fn is_host(part: &str) -> bool {
    let has_upper = part.bytes().any(|byte| byte.is_ascii_uppercase());
    part.contains(['.', ':']) || part == "localhost" || has_upper
}

/// Host names, IPv4 addresses and `[IPv6]`, with a port or without.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_name = |host: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(allowed);
        host.split('.').all(is_label)
    };
    let address = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let is_address = address.is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok());
    (is_address || is_name(host)) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = tag.bytes().next().is_some_and(is_word);
    let rest = |byte: u8| is_word(byte) || matches!(byte, b'.' | b'-');
    begins && tag.len() <= TAG_MAX && tag.bytes().all(rest)
}

/// `[a-z0-9]+((.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separators = part
        .split(|character: char| u8::try_from(character).is_ok_and(is_plain))
        .filter(|separator| !separator.is_empty());
    let is_separator =
        |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    let ends = |end: Option<u8>| end.is_some_and(is_plain);
    ends(part.bytes().next()) && ends(part.bytes().last()) && separators.all(is_separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_as_other_tools_read_it() {
        let digest = Sha256Digest::of(b"");
        for (text, full) in [
            (
                "docker://alpine",
                "docker.io/library/alpine:latest".to_owned(),
            ),
            ("alpine:3.20", "docker.io/library/alpine:3.20".to_owned()),
            (
                "docker.io/alpine",
                "docker.io/library/alpine:latest".to_owned(),
            ),
            ("index.docker.io/a/b", "docker.io/a/b:latest".to_owned()),
            ("a/b", "docker.io/a/b:latest".to_owned()),
            ("localhost/a", "localhost/a:latest".to_owned()),
            (
                "localhost:5000/a/b/c:t",
                "localhost:5000/a/b/c:t".to_owned(),
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            ("127.0.0.1:80/a", "127.0.0.1:80/a:latest".to_owned()),
            (
                "r.example/a__b/c--d.e_f",
                "r.example/a__b/c--d.e_f:latest".to_owned(),
            ),
            (
                &format!("r.example/a:t@{digest}"),
                format!("r.example/a@{digest}"),
            ),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(full.parse(), Ok(reference), "{full}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [
            "",
            "docker://",
            "Alpine",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:t:u",
            "a:-t",
            "r.example/",
            "r.example/a b",
            "r.example/../v2",
            "r.example/a?b",
            "r.example/-a",
            "r.example/a___b",
            "r.example:99999/a",
            "user@r.example/a",
            "r..example/a",
            "a@sha256:00",
            "a@sha512:00",
            "r.example/\u{e9}",
            &format!("r.example/{}", "a".repeat(300)),
            &format!("a:{}", "t".repeat(129)),
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn docker_hub_answers_elsewhere() {
        let reference: Reference = "alpine".parse().unwrap();
        assert_eq!(reference.host(), "registry-1.docker.io");
        assert_eq!(reference.server(), "https://index.docker.io/v1/");
    }
}
