//! `vfsd volume`, and the options of volumes in a bucket.

mod dump;
mod snapshot;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vfsd_volume::{CheckReport, Cleaned, Quota, VolumeOptions};

use self::dump::{DumpArguments, LoadArguments};
use self::snapshot::SnapshotVerb;
use super::cache::parse_bytes;
use super::choices::VolumeDurability;
use super::image_cache::size;
use super::ownership::OwnershipArguments;
use super::store::ReachArguments;
use crate::exit::Failure;
use crate::source::{VolumeReach, VolumeSettings, VolumeSource, VolumeStatus};

/// Snapshots that a daemon makes are kept for so long at most: ten years.
const MOST_DAYS: i64 = 3660;

/// How volumes in a bucket are used.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Volumes in a bucket")]
pub(crate) struct VolumeUseOptions {
    /// Where each volume in a bucket has a directory of its own on this host: what was read, and what is not in the
    /// bucket yet. The same one after a crash [default: /var/lib/vfsd for root, $XDG_STATE_HOME/vfsd for others]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// What fsync in the guest waits for
    #[arg(long, value_enum, value_name = "WHAT", default_value = "bucket")]
    durability: VolumeDurability,

    /// Take the volume from the daemon that has it open, on a host that is gone: that one can write nothing any more
    #[arg(long)]
    takeover: bool,

    /// The file with the key that the volume was made with: 32 bytes, or 64 hexadecimal digits
    #[arg(long, value_name = "FILE")]
    volume_key_file: Option<PathBuf>,
}

/// How a volume's bucket is reached.
#[derive(Debug, Clone, Args)]
struct VolumeReachArguments {
    #[command(flatten)]
    store: ReachArguments,
    /// The file with the key of a volume in a bucket that is encrypted: 32 bytes, or 64 hexadecimal digits
    #[arg(long, value_name = "FILE", visible_alias = "volume-key-file")]
    key_file: Option<PathBuf>,
}

impl VolumeReachArguments {
    fn settings(&self) -> VolumeReach {
        VolumeReach {
            store: self.store.settings(),
            key_file: self.key_file.clone(),
        }
    }
}

impl VolumeUseOptions {
    /// What the storages are told.
    pub(super) fn settings(&self) -> VolumeSettings {
        VolumeSettings {
            state: self.state_dir.clone(),
            durability: self.durability.into(),
            takeover: self.takeover,
            key_file: self.volume_key_file.clone(),
        }
    }
}

/// Make volumes and look after them
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct VolumeArguments {
    #[command(subcommand)]
    verb: VolumeVerb,
}

#[derive(Debug, Clone, Subcommand)]
enum VolumeVerb {
    /// Make an empty volume. With --key-file what goes into the bucket is encrypted
    Create {
        /// Where: volume:file:DIR, a directory that is made, or is empty; volume:s3://BUCKET/PREFIX (also gs:// and
        /// az://), where nothing is below PREFIX
        #[arg(value_name = "VOLUME", value_parser = parse)]
        volume: VolumeSource,
        /// How much content it may hold, holes included, such as 500M or 20G [default: no limit]
        #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
        size: Option<u64>,
        /// How many files and directories it may hold [default: no limit]
        #[arg(long, value_name = "COUNT")]
        files: Option<u64>,
        /// Let the daemon make a snapshot of a volume in a bucket each hour in which something changes, and keep one a day for
        /// so many days: what was removed or written over can be had back
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=MOST_DAYS))]
        snapshot_days: Option<u32>,
        #[command(flatten)]
        ownership: OwnershipArguments,
        #[command(flatten)]
        reach: VolumeReachArguments,
    },
    /// Change how much a volume may hold, of which a daemon that has it open learns at its next start, and how long snapshots
    /// are kept, of which it learns within an hour
    #[command(group = clap::ArgGroup::new("limits").required(true).multiple(true))]
    Set {
        /// Which: volume:file:DIR or volume:s3://BUCKET/PREFIX
        #[arg(value_name = "VOLUME", value_parser = parse)]
        volume: VolumeSource,
        /// How much content, holes included, such as 500M or 20G; or none, for no limit
        #[arg(long, value_name = "SIZE", value_parser = Limit::of_bytes, group = "limits")]
        size: Option<Limit>,
        /// How many files and directories; or none, for no limit
        #[arg(long, value_name = "COUNT", value_parser = Limit::of_files, group = "limits")]
        files: Option<Limit>,
        /// For how many days one snapshot a day is kept of those that the daemon makes each hour, of a volume in a bucket; or
        /// none, to make no more
        #[arg(long, value_name = "DAYS", value_parser = Limit::of_days, group = "limits")]
        snapshot_days: Option<Limit>,
        #[command(flatten)]
        reach: VolumeReachArguments,
    },
    /// Look whether a volume's names, counts and content fit together. In a directory nobody may use it meanwhile; in a
    /// bucket all content is read
    Check {
        /// Which: volume:file:DIR or volume:s3://BUCKET/PREFIX
        #[arg(value_name = "VOLUME", value_parser = parse)]
        volume: VolumeSource,
        #[command(flatten)]
        reach: VolumeReachArguments,
    },
    /// Remove from a bucket what a volume does not need any more: content that was written over, and old log. The
    /// daemon that serves the volume does so by itself every six hours
    Gc {
        /// Which: volume:s3://BUCKET/PREFIX, which no daemon has open
        #[arg(value_name = "VOLUME", value_parser = parse)]
        volume: VolumeSource,
        /// Say what would be removed. The volume may be in use
        #[arg(long)]
        dry_run: bool,
        /// Leave objects that are younger: for so long a daemon that was suspended is kept from doing harm
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
        min_age: u32,
        #[command(flatten)]
        reach: VolumeReachArguments,
    },
    /// Keep volumes in buckets as they are at a moment
    Snapshot {
        #[command(subcommand)]
        verb: SnapshotVerb,
    },
    /// Make a volume of a snapshot of another one, or of what that one is now: everything is copied, and each goes its own
    /// way afterwards
    Clone {
        /// Which: volume:s3://BUCKET/PREFIX, which may be in use
        #[arg(value_name = "VOLUME", value_parser = parse)]
        volume: VolumeSource,
        /// The new one: volume:s3://BUCKET/PREFIX, where nothing is below PREFIX
        #[arg(value_name = "NEW", value_parser = parse)]
        new: VolumeSource,
        /// As it was then
        #[arg(long, value_name = "NAME")]
        snapshot: Option<String>,
        #[command(flatten)]
        reach: VolumeReachArguments,
    },
    /// Write everything in a volume as lines of JSON, content included, of which `vfsd volume load` makes a volume anywhere
    /// else
    Dump(DumpArguments),
    /// Make a volume of a dump: in a directory or in a bucket, wherever the dumped one was
    Load(LoadArguments),
    /// Say what a volume is and how much is in it
    Stat {
        /// Which: volume:file:DIR or volume:s3://BUCKET/PREFIX
        #[arg(value_name = "VOLUME", value_parser = parse)]
        volume: VolumeSource,
        #[command(flatten)]
        reach: VolumeReachArguments,
    },
}

/// A number, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit(Option<u64>);

impl Limit {
    fn of_bytes(word: &str) -> Result<Self, String> {
        match word {
            "none" => Ok(Self(None)),
            word => parse_bytes(word).map(Some).map(Self),
        }
    }

    fn of_files(word: &str) -> Result<Self, String> {
        match word {
            "none" => Ok(Self(None)),
            word => match word.parse() {
                Ok(count) => Ok(Self(Some(count))),
                Err(_) => Err("not a number of files, or none".to_owned()),
            },
        }
    }

    fn of_days(word: &str) -> Result<Self, String> {
        let most = MOST_DAYS.unsigned_abs();
        match (word, word.parse()) {
            ("none", _) => Ok(Self(None)),
            (_, Ok(days)) if (1..=most).contains(&days) => Ok(Self(Some(days))),
            _ => Err(format!("not a number of days from 1 to {most}, or none")),
        }
    }

    fn days(self) -> Option<u32> {
        self.0.and_then(|days| u32::try_from(days).ok())
    }
}

/// A time that is told as seconds after 1970.
fn utc(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| {
        let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
        time.format(&Rfc3339).ok()
    });
    // No clock says so.
    time.unwrap_or_else(|| seconds.to_string())
}

/// The lines that tell a quota.
fn limits(quota: &Quota) -> String {
    format!(
        "size_limit {}\nfiles_limit {}\n",
        told_limit(quota.bytes),
        told_limit(quota.files)
    )
}

fn told_limit(limit: Option<u64>) -> String {
    limit.map_or("none".to_owned(), |limit| limit.to_string())
}

fn parse(word: &str) -> Result<VolumeSource, String> {
    VolumeSource::named(OsStr::new(word)).map_err(|error| error.to_string())
}

impl VolumeArguments {
    /// Does it, and says what was done.
    ///
    /// # Errors
    /// When it cannot be done.
    pub(crate) fn run(self) -> Result<String, Failure> {
        match self.verb {
            VolumeVerb::Create {
                volume,
                size,
                files,
                snapshot_days,
                ownership,
                reach,
            } => {
                if snapshot_days.is_some() {
                    volume.check_has_snapshots()?;
                }
                let (uid, gid, root_permissions) = ownership.settings();
                let options = VolumeOptions {
                    uid,
                    gid,
                    root_permissions,
                    quota: Quota { bytes: size, files },
                    ..VolumeOptions::default()
                };
                volume.create(&options, &reach.settings())?;
                if snapshot_days.is_some() {
                    volume.change_snapshot_days(snapshot_days, &reach.settings())?;
                }
                Ok(format!("made {volume}\n"))
            }
            VolumeVerb::Set {
                volume,
                size,
                files,
                snapshot_days,
                reach,
            } => {
                if let Some(days) = snapshot_days {
                    volume.change_snapshot_days(days.days(), &reach.settings())?;
                }
                let change = |quota: &mut Quota| {
                    quota.bytes = size.map_or(quota.bytes, |limit| limit.0);
                    quota.files = files.map_or(quota.files, |limit| limit.0);
                };
                if size.is_some() || files.is_some() {
                    volume.change_quota(change, &reach.settings())?;
                }
                Ok(format!("changed {volume}\n"))
            }
            VolumeVerb::Check { volume, reach } => {
                check(&volume, &volume.check(&reach.settings())?)
            }
            VolumeVerb::Gc {
                volume,
                dry_run,
                min_age,
                reach,
            } => {
                let min_age = Duration::from_secs(u64::from(min_age).saturating_mul(3600));
                let cleaned = volume.clean(min_age, dry_run, &reach.settings())?;
                cleaned_up(&volume, &cleaned, dry_run)
            }
            VolumeVerb::Snapshot { verb } => verb.run(),
            VolumeVerb::Clone {
                volume,
                new,
                snapshot,
                reach,
            } => {
                let copied = volume.copy(snapshot.as_deref(), &new, &reach.settings())?;
                Ok(format!(
                    "made {new} of {volume}: {} objects, {}\n",
                    copied.objects,
                    size(copied.bytes)
                ))
            }
            VolumeVerb::Dump(dump) => dump.run(),
            VolumeVerb::Load(load) => load.run(),
            VolumeVerb::Stat { volume, reach } => {
                Ok(told(&volume, &volume.stat(&reach.settings())?))
            }
        }
    }
}

fn check(volume: &VolumeSource, report: &CheckReport) -> Result<String, Failure> {
    let found = format!(
        "{} inodes, {} names, {} bytes of content",
        report.inodes, report.names, report.bytes
    );
    if report.is_clean() {
        return Ok(format!("{volume} is whole: {found}\n"));
    }
    for problem in &report.problems {
        eprintln!("{problem}");
    }
    Err(Failure::run(format!(
        "{volume} has {} problems ({found}): copy what can be read to a new volume",
        report.problem_count
    )))
}

fn cleaned_up(volume: &VolumeSource, cleaned: &Cleaned, dry: bool) -> Result<String, Failure> {
    let (removed, kept) = match dry {
        true => ("would be removed from", "would stay for being too young"),
        false => ("removed from", "stay for being too young"),
    };
    if let Some(error) = &cleaned.failure {
        return Err(Failure::run(format!(
            "{} objects of {volume} cannot be deleted: {error}",
            cleaned.failed
        )));
    }
    let all = cleaned.removed();
    let mut told = format!(
        "{} objects, {} {removed} {volume}\n",
        all.objects,
        size(all.bytes)
    );
    for (kind, amount) in [
        ("content", cleaned.segments),
        ("log", cleaned.log),
        ("checkpoints", cleaned.checkpoints),
    ] {
        told.push_str(&format!(
            "{kind} {} objects, {} bytes\n",
            amount.objects, amount.bytes
        ));
    }
    told.push_str(&format!(
        "{} objects, {} {kept}\n",
        cleaned.young.objects,
        size(cleaned.young.bytes)
    ));
    Ok(told)
}

fn told(volume: &VolumeSource, status: &VolumeStatus) -> String {
    match status {
        VolumeStatus::Directory(status) => {
            let user = status
                .used_by
                .map_or("nobody".to_owned(), |user| user.to_string());
            format!(
                "volume {volume}\nuuid {}\nformat {}\nused_by {user}\n{}inodes {}\nbytes {}\nallocated {}\njournal {}\n",
                status.uuid,
                status.format,
                limits(&status.quota),
                status.inodes,
                status.bytes,
                status.allocated,
                status.journal
            )
        }
        VolumeStatus::Bucket(status) => {
            let user = match &status.owner {
                Some(owner) => format!("{} since {}", owner.host, utc(owner.since)),
                None => "nobody".to_owned(),
            };
            let stored = &status.stored;
            let kinds = [
                ("log", stored.log),
                ("old_log", stored.old_log),
                ("segments", stored.segments),
                ("checkpoints", stored.checkpoints),
            ];
            let mut told = format!(
                "volume {volume}\nuuid {}\nencryption {}\nused_by {user}\n{}snapshot_days {}\n",
                status.uuid,
                status.encryption.as_deref().unwrap_or("none"),
                limits(&status.quota),
                told_limit(status.snapshot_days.map(u64::from))
            );
            for (kind, amount) in kinds {
                told.push_str(&format!(
                    "{kind} {} objects, {} bytes\n",
                    amount.objects, amount.bytes
                ));
            }
            told
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_as_a_date_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(1_764_374_400), "2025-11-29T00:00:00Z");
        assert_eq!(utc(u64::MAX), u64::MAX.to_string());
        assert_eq!(utc(1 << 50), (1_u64 << 50).to_string());
    }

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!(Limit::of_bytes("20G"), Ok(Limit(Some(20 << 30))));
        assert_eq!(Limit::of_bytes("none"), Ok(Limit(None)));
        assert_eq!(Limit::of_files("1000"), Ok(Limit(Some(1000))));
        assert_eq!(Limit::of_files("none"), Ok(Limit(None)));
        assert_eq!(Limit::of_days("7").map(Limit::days), Ok(Some(7)));
        assert_eq!(Limit::of_days("none").map(Limit::days), Ok(None));
        for word in ["", "-1", "0", "3661", "week"] {
            assert!(Limit::of_days(word).is_err(), "{word}");
        }
        for word in ["", "-1", "many", "1.5"] {
            assert!(Limit::of_bytes(word).is_err(), "{word}");
            assert!(Limit::of_files(word).is_err(), "{word}");
        }
    }
}
