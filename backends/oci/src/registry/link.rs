//! Where a list goes on (RFC 8288, section 3).

use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};

/// The page after the one that came from `from`: its host's own, for nobody else is asked.
pub(super) fn next(headers: &HeaderMap, from: &Url) -> Option<Url> {
    let values = headers.get_all(LINK).into_iter();
    let links = values.filter_map(|value| value.to_str().ok());
    let target = links.flat_map(targets).find_map(|(target, parameters)| {
        let mut parameters = parameters
            .split(';')
            .map(|it| it.trim().trim_end_matches(','));
        parameters.any(is_next).then_some(target)
    })?;
    let next = from.join(target).ok()?;
    (next.origin() == from.origin()).then_some(next)
}

/// The links of a header's value, each with what follows it.
fn targets(value: &str) -> impl Iterator<Item = (&str, &str)> {
    let links = value.split('<').skip(1);
    links.filter_map(|link| link.split_once('>'))
}

fn is_next(parameter: &str) -> bool {
    let relation = parameter
        .split_once('=')
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("rel"));
    relation.is_some_and(|(_, value)| value.trim().trim_matches('"').eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_of(links: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for link in links {
            headers.append(LINK, link.parse().unwrap());
        }
        let from = Url::parse("https://registry.example/v2/a/referrers/x?n=2").unwrap();
        next(&headers, &from).map(|url| url.as_str().to_owned())
    }

    #[test]
    fn a_list_goes_on_where_its_link_says() {
        let there = Some("https://registry.example/v2/a?after=1,2".to_owned());
        for link in [
            "</v2/a?after=1,2>; rel=\"next\"",
            "</v2/a?after=1,2>;rel=next",
            "<https://registry.example/v2/a?after=1,2>; title=x; REL = \"NEXT\"",
            "</v2/b>; rel=\"prev\", </v2/a?after=1,2>; rel=\"next\"",
            "</v2/a?after=1,2>; rel=\"next\", </v2/b>; rel=\"last\"",
        ] {
            assert_eq!(next_of(&[link]), there, "{link}");
        }
        assert_eq!(
            next_of(&["</v2/b>; rel=first", "</v2/a?after=1,2>; rel=next"]),
            there
        );
    }

    #[test]
    fn a_list_ends_without_a_link_of_its_own_host() {
        for link in [
            "",
            "</v2/a>",
            "</v2/a>; rel=\"prev\"",
            "/v2/a; rel=\"next\"",
            "</v2/a; rel=\"next\"",
            "<https://elsewhere.example/v2/a>; rel=\"next\"",
            "<http://registry.example/v2/a>; rel=\"next\"",
            "<file:///etc/passwd>; rel=\"next\"",
        ] {
            assert_eq!(next_of(&[link]), None, "{link}");
        }
        assert_eq!(next_of(&[]), None);
    }
}
