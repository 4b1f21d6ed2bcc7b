//! Translation of user and group ids between guest and host, in the rule language of virtiofsd.

use std::fmt;

use vfsd_backend::Errno;

/// A translation of ids. An id that no rule names stays as it is; the default has no rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    to_host: Vec<Range>,
    to_guest: Vec<Range>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    last: u32,
    target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The range begins here on the other side.
    From(u32),
    /// All ids become this one.
    One(u32),
    /// The ids may not be used.
    Forbidden,
}

/// Why rules are not a translation. The message says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMapError(String);

impl fmt::Display for IdMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for IdMapError {}

const FORMS: &str = "write one of guest:GUEST:HOST:COUNT, host:HOST:GUEST:COUNT, \
    map:GUEST:HOST:COUNT, squash-guest:GUEST:HOST:COUNT, squash-host:HOST:GUEST:COUNT, \
    forbid-guest:GUEST:COUNT";

impl IdMap {
    /// Reads rules in the language of virtiofsd's `--translate-uid`.
    ///
    /// # Errors
    /// A rule that is not of the language, has a range past the last id, or whose source overlaps
    /// that of another rule. A count of 0 is a rule for no id: managers compute counts.
    pub fn parse<S: AsRef<str>>(rules: &[S]) -> Result<Self, IdMapError> {
        let mut map = Self::default();
        for rule in rules {
            map.add(rule.as_ref())?;
        }
        Ok(map)
    }

    fn add(&mut self, rule: &str) -> Result<(), IdMapError> {
        let malformed = || IdMapError(format!("id translation {rule:?} is not a rule: {FORMS}"));
        let separator = rule.find(|c: char| !c.is_alphanumeric() && c != '-' && c != '_');
        let (kind, numbers) = rule.split_at(separator.ok_or_else(malformed)?);
        let mut characters = numbers.chars();
        let separator = characters.next().ok_or_else(malformed)?;
        let numbers: Vec<u32> = characters
            .as_str()
            .split(separator)
            .map(|field| field.parse().map_err(|_| malformed()))
            .collect::<Result<_, _>>()?;
        let range = |first: u32, count: u32, target: Target| {
            let base = if let Target::From(base) = target {
                base
            } else {
                0
            };
            let Some(extent) = count.checked_sub(1) else {
                return Ok(None);
            };
            let last = first.checked_add(extent);
            match last.filter(|_| base.checked_add(extent).is_some()) {
                Some(last) => Ok(Some(Range {
                    first,
                    last,
                    target,
                })),
                None => Err(IdMapError(format!(
                    "id translation {rule:?} has a range past id 4294967295: choose a count that \
                     fits"
                ))),
            }
        };
        match (kind, numbers.as_slice()) {
            ("guest", &[guest, host, count]) => insert(
                &mut self.to_host,
                range(guest, count, Target::From(host))?,
                rule,
            ),
            ("host", &[host, guest, count]) => insert(
                &mut self.to_guest,
                range(host, count, Target::From(guest))?,
                rule,
            ),
            ("map", &[guest, host, count]) => {
                insert(
                    &mut self.to_host,
                    range(guest, count, Target::From(host))?,
                    rule,
                )?;
                insert(
                    &mut self.to_guest,
                    range(host, count, Target::From(guest))?,
                    rule,
                )
            }
            ("squash-guest", &[guest, host, count]) => insert(
                &mut self.to_host,
                range(guest, count, Target::One(host))?,
                rule,
            ),
            ("squash-host", &[host, guest, count]) => insert(
                &mut self.to_guest,
                range(host, count, Target::One(guest))?,
                rule,
            ),
            ("forbid-guest", &[guest, count]) => insert(
                &mut self.to_host,
                range(guest, count, Target::Forbidden)?,
                rule,
            ),
            _ => Err(malformed()),
        }
    }

    /// The host's id for a guest's.
    ///
    /// # Errors
    /// EPERM for an id that the guest may not use, EINVAL where either is `u32::MAX`, which stands for no id.
    pub fn to_host(&self, id: u32) -> Result<u32, Errno> {
        let host = translate(&self.to_host, id).ok_or(Errno::PERM)?;
        if id == u32::MAX || host == u32::MAX {
            Err(Errno::INVAL)
        } else {
            Ok(host)
        }
    }

    /// The guest's id for a host's.
    pub fn to_guest(&self, id: u32) -> u32 {
        translate(&self.to_guest, id).unwrap_or(id)
    }
}

fn insert(ranges: &mut Vec<Range>, new: Option<Range>, rule: &str) -> Result<(), IdMapError> {
    let Some(new) = new else {
        return Ok(());
    };
    let at = ranges.partition_point(|range| range.first <= new.first);
    let before = at.checked_sub(1).and_then(|before| ranges.get(before));
    let after = ranges.get(at);
    if before.is_some_and(|range| range.last >= new.first)
        || after.is_some_and(|range| range.first <= new.last)
    {
        return Err(IdMapError(format!(
            "id translation {rule:?} overlaps an earlier one: give each id one rule"
        )));
    }
    ranges.insert(at, new);
    Ok(())
}

fn translate(ranges: &[Range], id: u32) -> Option<u32> {
    let at = ranges.partition_point(|range| range.first <= id);
    let range = at
        .checked_sub(1)
        .and_then(|at| ranges.get(at))
        .filter(|range| id <= range.last);
    match range {
        None => Some(id),
        Some(range) => match range.target {
            Target::From(base) => base.checked_add(id.saturating_sub(range.first)),
            Target::One(one) => Some(one),
            Target::Forbidden => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_translates_as_virtiofsd_documents_it() {
        let rules = [
            "map:0:100000:1000",
            "squash-guest:5000:65534:10",
            "forbid-guest:6000:1",
        ];
        let map = IdMap::parse(&rules).unwrap();
        assert_eq!(map.to_host(0), Ok(100_000));
        assert_eq!(map.to_host(999), Ok(100_999));
        assert_eq!(map.to_host(1000), Ok(1000));
        assert_eq!(map.to_host(5009), Ok(65_534));
        assert_eq!(map.to_host(6000), Err(Errno::PERM));
        assert_eq!(map.to_guest(100_005), 5);
        assert_eq!(map.to_guest(5), 5);
        let map = IdMap::parse(&["host:7:8:1", "squash-host:1000:0:9"]).unwrap();
        assert_eq!(
            (map.to_guest(7), map.to_guest(1008), map.to_host(7)),
            (8, 0, Ok(7))
        );
    }

    #[test]
    fn a_count_of_zero_is_a_rule_for_no_id() {
        let rules = [
            "map:0:1000000:1000",
            "forbid-guest:0:0",
            "forbid-guest:1000:4294966295",
        ];
        let map = IdMap::parse(&rules).unwrap();
        assert_eq!(map.to_host(0), Ok(1_000_000));
        assert_eq!(map.to_host(1000), Err(Errno::PERM));
    }

    #[test]
    fn another_separator_than_a_colon_is_understood() {
        let map = IdMap::parse(&["map/0/100000/1000"]).unwrap();
        assert_eq!(map.to_host(1), Ok(100_001));
        assert!(IdMap::parse(&["map/0:100000/1000"]).is_err());
    }

    #[test]
    fn no_identity_is_never_an_id() {
        let map = IdMap::default();
        assert_eq!(map.to_host(u32::MAX), Err(Errno::INVAL));
        let map = IdMap::parse(&["squash-guest:1:4294967295:1"]).unwrap();
        assert_eq!(map.to_host(1), Err(Errno::INVAL));
    }

    #[test]
    fn rules_that_mean_nothing_are_refused_with_the_forms_that_do() {
        for bad in [
            "",
            "guest",
            "guest:1:2",
            "guest:1:2:3:4",
            "map:a:b:c",
            "host:1:2:-1",
            "to:1:2:3",
        ] {
            let message = IdMap::parse(&[bad]).unwrap_err().to_string();
            assert!(
                message.contains("squash-guest:GUEST:HOST:COUNT"),
                "{message}"
            );
        }
        for bad in ["map:4294967295:0:2", "guest:0:4294967295:2"] {
            let message = IdMap::parse(&[bad]).unwrap_err().to_string();
            assert!(message.contains("range"), "{message}");
        }
        let message = IdMap::parse(&["guest:0:0:10", "map:9:50:1"])
            .unwrap_err()
            .to_string();
        assert!(message.contains("overlaps"), "{message}");
        assert!(IdMap::parse(&["guest:0:0:10", "guest:10:50:1", "host:0:1:5"]).is_ok());
    }
}
