//! Options that say what the guest may cache.

use std::time::Duration;

use clap::Args;
use vfsd_server::CachePolicy;

use super::choices::Cache;

/// What the guest may cache, as an operator says it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Caching")]
pub(crate) struct CachingOptions {
    /// What the guest may cache [default: auto; all of a tree that is the guest's own, or that never
    /// changes]
    #[arg(long, value_enum, ignore_case = true, value_name = "MODE")]
    pub(crate) cache: Option<Cache>,

    /// Seconds that the guest may believe attributes, such as 0.5 [default: by --cache]
    #[arg(long, value_name = "SECONDS", value_parser = parse_lifetime)]
    pub(crate) attr_ttl: Option<Duration>,

    /// Seconds that the guest may believe names [default: by --cache]
    #[arg(long, value_name = "SECONDS", value_parser = parse_lifetime)]
    pub(crate) entry_ttl: Option<Duration>,

    /// Seconds that the guest may believe that a name does not exist [default: 0]
    #[arg(long, value_name = "SECONDS", value_parser = parse_lifetime)]
    pub(crate) negative_ttl: Option<Duration>,

    /// Let the guest hold back and merge writes; nobody else may write meanwhile
    #[arg(long)]
    pub(crate) writeback: bool,

    /// Honour O_DIRECT of guest programs instead of dropping it
    #[arg(long)]
    pub(crate) allow_direct_io: bool,

    /// Let files be mapped that bypass the guest's cache (--cache never and metadata)
    #[arg(long)]
    pub(crate) allow_mmap: bool,

    /// Do not let directory listings carry attributes
    #[arg(long)]
    pub(crate) no_readdirplus: bool,
}

impl CachingOptions {
    /// The policy of a session.
    pub(crate) fn policy(&self) -> CachePolicy {
        let mut policy = CachePolicy::new(self.cache.unwrap_or_default().into());
        policy.attribute_ttl = self.attr_ttl.unwrap_or(policy.attribute_ttl);
        policy.entry_ttl = self.entry_ttl.unwrap_or(policy.entry_ttl);
        policy.negative_ttl = self.negative_ttl.unwrap_or(policy.negative_ttl);
        policy
    }

    /// Whether the operator chose what the guest may cache.
    pub(crate) fn is_chosen(&self) -> bool {
        let ttls = [self.attr_ttl, self.entry_ttl, self.negative_ttl];
        self.cache.is_some() || ttls.iter().any(Option::is_some)
    }

    /// Whether listings carry attributes: not where the guest could not keep them.
    pub(crate) fn readdirplus(&self) -> bool {
        !self.no_readdirplus && self.cache != Some(Cache::Never)
    }
}

/// The longest lifetime: what a guest can count in jiffies on any machine.
const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

fn parse_lifetime(word: &str) -> Result<Duration, String> {
    let seconds: f64 = word
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|lifetime| *lifetime <= LONGEST_LIFETIME)
        .ok_or_else(|| format!("not between 0 and {}", LONGEST_LIFETIME.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_a_number_of_seconds_with_a_fraction() {
        assert_eq!(parse_lifetime("0"), Ok(Duration::ZERO));
        assert_eq!(parse_lifetime("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_lifetime("86400"), Ok(Duration::from_secs(86_400)));
    }

    #[test]
    fn a_lifetime_out_of_range_is_refused() {
        for word in ["-1", "nan", "inf", "1e30", "ten", ""] {
            assert!(parse_lifetime(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_lifetime_that_is_not_given_comes_from_the_mode() {
        let options = CachingOptions {
            cache: Some(Cache::Always),
            attr_ttl: Some(Duration::from_secs(3)),
            ..CachingOptions::default()
        };
        let policy = options.policy();
        assert_eq!(policy.attribute_ttl, Duration::from_secs(3));
        assert_eq!(policy.entry_ttl, Duration::from_secs(86_400));
        assert_eq!(policy.negative_ttl, Duration::ZERO);
    }

    #[test]
    fn listings_carry_no_attributes_where_nothing_is_cached() {
        let never = CachingOptions {
            cache: Some(Cache::Never),
            ..CachingOptions::default()
        };
        assert!(!never.readdirplus());
        assert!(CachingOptions::default().readdirplus());
    }
}
