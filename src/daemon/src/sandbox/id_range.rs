//! Ranges of ids that a user namespace maps.

/// Ids `outside`... of the host are ids `inside`... of the sandbox, `count` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdRange {
    pub(super) inside: u32,
    pub(super) outside: u32,
    pub(super) count: u32,
}

impl IdRange {
    /// Reads `:INSIDE:OUTSIDE:COUNT:`, where the first character is the separator.
    ///
    /// # Errors
    /// When it is not of that form, or the range is empty or leaves the range of ids.
    pub(crate) fn parse(word: &str) -> Result<Self, String> {
        const FORM: &str = "not of the form :INSIDE:OUTSIDE:COUNT:";
        let separator = word.chars().next().ok_or(FORM)?;
        let inner = word
            .strip_prefix(separator)
            .and_then(|rest| rest.strip_suffix(separator))
            .ok_or(FORM)?;
        let mut numbers = inner.split(separator).map(|number| {
            number
                .parse::<u32>()
                .map_err(|_| format!("{number:?} is not an id or a count"))
        });
        let mut next = || numbers.next().unwrap_or_else(|| Err(FORM.to_owned()));
        let range = Self {
            inside: next()?,
            outside: next()?,
            count: next()?,
        };
        if numbers.next().is_some() {
            return Err(FORM.to_owned());
        }
        let fits = |first: u32| first.checked_add(range.count).is_some();
        if range.count == 0 || !fits(range.inside) || !fits(range.outside) {
            return Err(format!(
                "{} ids from there are no range of ids",
                range.count
            ));
        }
        Ok(range)
    }

    /// One id that is the same inside and outside.
    pub(super) fn unchanged(id: u32) -> Self {
        Self {
            inside: id,
            outside: id,
            count: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_character_separates() {
        let range = IdRange {
            inside: 0,
            outside: 100_000,
            count: 65_536,
        };
        assert_eq!(IdRange::parse(":0:100000:65536:"), Ok(range));
        assert_eq!(IdRange::parse("/0/100000/65536/"), Ok(range));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for word in [
            "",
            ":",
            ":0:1:",
            ":0:1:1",
            "0:1:1",
            ":0:1:1:2:",
            ":a:1:1:",
            ":0:1:0:",
            ":0:-1:1:",
            ":4294967295:0:2:",
            ":0:4294967295:2:",
        ] {
            assert!(IdRange::parse(word).is_err(), "{word:?}");
        }
    }
}
