//! What a registry asks for: the header `WWW-Authenticate`.

/// How a client is to say who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// By name and password.
    Basic,
    /// By a token that somebody else gives.
    Bearer {
        /// Who gives it.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The one of several headers that is understood, a token rather than a password.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for header in headers {
            match Self::parse(header) {
                Some(Self::Basic) => basic = Some(Self::Basic),
                Some(bearer) => return Some(bearer),
                None => {}
            }
        }
        basic
    }

    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = rest;
        while let Some((name, value, after)) = parameter(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
            rest = after;
        }
        Some(Self::Bearer {
            realm: realm?,
            service: service.filter(|it| !it.is_empty()),
            scope: scope.filter(|it| !it.is_empty()),
        })
    }
}

/// The first `name=value` or `name="value"`, and what follows.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', ',', '\t']);
    let (name, rest) = text.split_once('=')?;
    let (name, rest) = (name.trim(), rest.trim_start());
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, after) = rest.split_once(',').unwrap_or((rest, ""));
        return Some((name, value.trim().to_owned(), after));
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Some((name, value, characters.as_str())),
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_are_read_in_every_spelling() {
        for (header, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a/b:pull,push\"",
                bearer("https://a/t", Some("s"), Some("repository:a/b:pull,push")),
            ),
            (
                "bearer Scope=\"\", error=\"x, y\" , realm = \"h\\\"i\"",
                bearer("h\"i", None, None),
            ),
            (
                "Bearer realm=plain,service=s",
                bearer("plain", Some("s"), None),
            ),
            ("Bearer", None),
            ("Bearer service=\"s\"", None),
            ("Bearer realm=\"open", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(
                Challenge::choose([header].into_iter()),
                expected,
                "{header}"
            );
        }
    }

    #[test]
    fn a_token_is_taken_rather_than_a_password() {
        let headers = ["Negotiate", "Basic realm=\"x\"", "Bearer realm=\"r\""];
        assert_eq!(
            Challenge::choose(headers.into_iter()),
            bearer("r", None, None)
        );
        assert_eq!(
            Challenge::choose(headers[..2].iter().copied()),
            Some(Challenge::Basic)
        );
    }
}
