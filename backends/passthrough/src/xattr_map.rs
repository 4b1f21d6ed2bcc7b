//! Rules that rename, hide or refuse extended attributes: the language of virtiofsd.
//!
//! A map is a list of rules, with or without white space between them:
//!
//! ```text
//! :TYPE:SCOPE:KEY:PREPEND:
//! :map:KEY:PREPEND:
//! ```
//!
//! The first character of a rule separates its fields; each rule may choose another. The first
//! rule that matches a name decides. A rule with scope `client` (or `all`) matches names that the
//! guest gives and that begin with KEY; one with scope `server` (or `all`) matches names on the
//! host that begin with PREPEND.
//!
//! | type | name from the guest | name on the host |
//! |---|---|---|
//! | `prefix` | PREPEND is put in front | PREPEND is taken away |
//! | `ok` | passes | passes |
//! | `bad` | EPERM | hidden |
//! | `unsupported` | EOPNOTSUPP | hidden |
//!
//! `map` comes last and stands for `prefix` with scope `all`, a rule that keeps names of the one
//! side from being mistaken for the other's (unless KEY is empty), and a rule for all the rest.

use std::borrow::Cow;
use std::ffi::CString;
use std::str::FromStr;

use thiserror::Error;
use vfsd_backend::Errno;

/// What is wrong with a map.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum XattrMapError {
    /// There is no rule at all.
    #[error("the xattr map is empty; ':ok:all:::' lets everything pass")]
    Empty,
    /// The type of a rule.
    #[error("xattr map, rule {rule}: type '{found}' is none of prefix, ok, bad, unsupported, map")]
    Type {
        /// Counted from 1.
        rule: usize,
        /// What stands there.
        found: String,
    },
    /// The scope of a rule.
    #[error("xattr map, rule {rule}: scope '{found}' is none of client, server, all")]
    Scope {
        /// Counted from 1.
        rule: usize,
        /// What stands there.
        found: String,
    },
    /// A rule ends too early.
    #[error("xattr map, rule {rule}: a field is missing, or the '{separator}' after the last one")]
    Incomplete {
        /// Counted from 1.
        rule: usize,
        /// The character that separates the rule's fields.
        separator: char,
    },
    /// A key or prefix holds a NUL.
    #[error("xattr map, rule {rule}: a name cannot hold a NUL")]
    Nul {
        /// Counted from 1.
        rule: usize,
    },
    /// Rules after `map`.
    #[error("xattr map, rule {rule}: 'map' is only allowed as the last rule, and once")]
    MapNotLast {
        /// Counted from 1.
        rule: usize,
    },
    /// Some name matches no rule.
    #[error(
        "the xattr map does not say what happens to all names of the {side}; \
         end it with ':bad:all:::' or ':ok:all:::'"
    )]
    Open {
        /// `guest` or `host`.
        side: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Prefix,
    Pass,
    Deny,
    Unsupported,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scope {
    client: bool,
    server: bool,
}

impl Scope {
    const ALL: Self = Self {
        client: true,
        server: true,
    };
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    action: Action,
    scope: Scope,
    key: Vec<u8>,
    prepend: Vec<u8>,
}

/// The rules for extended attributes of one share. Made from the rule text by [`FromStr`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XattrMap {
    rules: Vec<Rule>,
}

impl XattrMap {
    /// The host's name for a name that the guest gave.
    ///
    /// # Errors
    /// EPERM by a `bad` rule, EOPNOTSUPP by an `unsupported` one.
    pub fn to_host<'a>(&self, name: &'a [u8]) -> Result<Cow<'a, [u8]>, Errno> {
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.scope.client && name.starts_with(&rule.key))
            .ok_or(Errno::PERM)?;
        match rule.action {
            Action::Pass => Ok(Cow::Borrowed(name)),
            Action::Prefix => Ok(Cow::Owned([&rule.prepend, name].concat())),
            Action::Deny => Err(Errno::PERM),
            Action::Unsupported => Err(Errno::OPNOTSUPP),
        }
    }

    /// The guest's name for a name on the host, unless it is hidden.
    pub fn to_guest<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.scope.server && name.starts_with(&rule.prepend))?;
        match rule.action {
            Action::Pass => Some(name),
            Action::Prefix => name.get(rule.prepend.len()..),
            Action::Deny | Action::Unsupported => None,
        }
    }

    /// What a name of the guest is called on the host, if it has another name there.
    pub(crate) fn renamed(&self, name: &[u8]) -> Option<CString> {
        match self.to_host(name) {
            Ok(Cow::Owned(other)) if other != name => CString::new(other).ok(),
            _ => None,
        }
    }
}

impl FromStr for XattrMap {
    type Err = XattrMapError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rules = Vec::new();
        let mut rest = text.trim();
        let mut number: usize = 0;
        while !rest.is_empty() {
            number = number.saturating_add(1);
            let (fields, after) = Fields::split(rest, number)?;
            let last = fields.add_rules(&mut rules)?;
            rest = after.trim_start();
            if last && !rest.is_empty() {
                return Err(XattrMapError::MapNotLast { rule: number });
            }
        }
        if rules.is_empty() {
            return Err(XattrMapError::Empty);
        }
        let closed = |matches_all: fn(&Rule) -> bool| rules.iter().any(matches_all);
        if !closed(|rule| rule.scope.client && rule.key.is_empty()) {
            return Err(XattrMapError::Open { side: "guest" });
        }
        if !closed(|rule| rule.scope.server && rule.prepend.is_empty()) {
            return Err(XattrMapError::Open { side: "host" });
        }
        Ok(Self { rules })
    }
}

/// The fields of one rule, as they are written.
enum Fields<'a> {
    Rule {
        number: usize,
        action: Action,
        scope: &'a str,
        key: &'a str,
        prepend: &'a str,
    },
    Map {
        number: usize,
        key: &'a str,
        prepend: &'a str,
    },
}

impl<'a> Fields<'a> {
    /// Splits the first rule off, and answers what comes after it.
    fn split(text: &'a str, number: usize) -> Result<(Self, &'a str), XattrMapError> {
        let mut characters = text.chars();
        let separator = characters.next().ok_or(XattrMapError::Empty)?;
        let mut rest = characters.as_str();
        let mut field = || {
            let (field, after) = rest
                .split_once(separator)
                .ok_or(XattrMapError::Incomplete {
                    rule: number,
                    separator,
                })?;
            rest = after;
            Ok(field)
        };
        let action = match field()? {
            "prefix" => Action::Prefix,
            "ok" => Action::Pass,
            "bad" => Action::Deny,
            "unsupported" => Action::Unsupported,
            "map" => {
                let (key, prepend) = (field()?, field()?);
                let fields = Self::Map {
                    number,
                    key,
                    prepend,
                };
                return Ok((fields, rest));
            }
            other => {
                return Err(XattrMapError::Type {
                    rule: number,
                    found: other.to_owned(),
                });
            }
        };
        let (scope, key, prepend) = (field()?, field()?, field()?);
        let fields = Self::Rule {
            number,
            action,
            scope,
            key,
            prepend,
        };
        Ok((fields, rest))
    }

    /// Adds what is written, and says whether nothing may follow.
    fn add_rules(self, rules: &mut Vec<Rule>) -> Result<bool, XattrMapError> {
        let (Self::Rule {
            number,
            key,
            prepend,
            ..
        }
        | Self::Map {
            number,
            key,
            prepend,
        }) = self;
        if key.contains('\0') || prepend.contains('\0') {
            return Err(XattrMapError::Nul { rule: number });
        }
        let (key, prepend) = (key.as_bytes().to_vec(), prepend.as_bytes().to_vec());
        let (action, scope) = match self {
            Self::Map { .. } => {
                add_map(rules, key, prepend);
                return Ok(true);
            }
            Self::Rule { action, scope, .. } => (action, scope),
        };
        let scope = match scope {
            "all" => Scope::ALL,
            "client" => Scope {
                client: true,
                server: false,
            },
            "server" => Scope {
                client: false,
                server: true,
            },
            other => {
                return Err(XattrMapError::Scope {
                    rule: number,
                    found: other.to_owned(),
                });
            }
        };
        rules.push(Rule {
            action,
            scope,
            key,
            prepend,
        });
        Ok(false)
    }
}

fn add_map(rules: &mut Vec<Rule>, key: Vec<u8>, prepend: Vec<u8>) {
    let everything_is_prefixed = key.is_empty();
    let rule = |action, key, prepend| Rule {
        action,
        scope: Scope::ALL,
        key,
        prepend,
    };
    rules.push(rule(Action::Prefix, key.clone(), prepend.clone()));
    let rest = if everything_is_prefixed {
        Action::Deny
    } else {
        // The guest does not reach prefixed names directly, nor see the host's own that look like its own.
        rules.push(rule(Action::Deny, prepend, key));
        Action::Pass
    };
    rules.push(rule(rest, Vec::new(), Vec::new()));
}

#[cfg(test)]
#[path = "xattr_map_tests.rs"]
mod tests;
