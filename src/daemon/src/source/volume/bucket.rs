//! A volume in a bucket. On this host it has a directory of its own: what was read, and what is not in the bucket yet.

use std::fs::Permissions;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use vfsd_object_store::StoreUrl;
use vfsd_volume::{
    Amount, Bucket, CacheUse, CheckLevel, CheckReport, Cleaned, DumpOptions, DumpSummary, Lag,
    Quota, RemoteOptions, RemoteReport, RemoteStatus, Snapshot, Volume, VolumeError, VolumeOptions,
};

use super::VolumeSettings;
use super::reach::{Reach, Served};
use crate::exit::Failure;
use crate::figures::{Figure, Value, plain};
use crate::sandbox::{Needs, Share};
use crate::source::store::requests;
use crate::source::{Prepared, StorageOptions, folder};

/// Longer names are cut, and end with a checksum.
const MOST_OF_NAME: usize = 150;

pub(super) fn create(url: &StoreUrl, options: &VolumeOptions, how: &Reach) -> Result<(), Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    let created = runtime.block_on(Volume::create_remote(&bucket, url.prefix(), options));
    created.map_err(Failure::run)
}

pub(super) fn stat(url: &StoreUrl, how: &Reach) -> Result<RemoteStatus, Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    let looked = runtime.block_on(Volume::stat_remote(&bucket, url.prefix()));
    looked.map_err(Failure::run)
}

/// Reads everything: names and attributes into a directory of its own, and all content.
pub(super) fn check(url: &StoreUrl, how: &Reach) -> Result<CheckReport, Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    let report = with_scratch(|scratch| {
        let level = CheckLevel::Content;
        Volume::check_remote(&bucket, url.prefix(), scratch, level, runtime.handle())
    });
    let RemoteReport { mut rows, bucket } = report?;
    let damaged = u64::try_from(bucket.problems.len()).unwrap_or(u64::MAX);
    rows.problem_count = rows
        .problem_count
        .saturating_add(damaged)
        .saturating_add(bucket.more);
    rows.problems.extend(bucket.problems);
    Ok(rows)
}

/// Removes what is not needed any more.
pub(super) fn clean(
    url: &StoreUrl,
    min_age: Duration,
    dry: bool,
    how: &Reach,
) -> Result<Cleaned, Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    with_scratch(|scratch| {
        Volume::clean_remote(
            &bucket,
            url.prefix(),
            scratch,
            min_age,
            dry,
            runtime.handle(),
        )
    })
}

/// Keeps the volume as it is in the bucket now.
pub(super) fn snapshot(url: &StoreUrl, name: &str, how: &Reach) -> Result<Snapshot, Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    with_scratch(|scratch| {
        Volume::snapshot_remote(&bucket, url.prefix(), name, scratch, runtime.handle())
    })
}

pub(super) fn change_quota(
    url: &StoreUrl,
    change: impl Fn(&mut Quota),
    how: &Reach,
) -> Result<(), Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    let changed = Volume::change_remote_quota(&bucket, url.prefix(), change);
    runtime.block_on(changed).map_err(Failure::run)
}

pub(super) fn change_snapshot_days(
    url: &StoreUrl,
    days: Option<u32>,
    how: &Reach,
) -> Result<(), Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    let changed = Volume::change_remote_snapshot_days(&bucket, url.prefix(), days);
    runtime.block_on(changed).map_err(Failure::run)
}

pub(super) fn snapshots(url: &StoreUrl, how: &Reach) -> Result<Vec<Snapshot>, Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    let listed = runtime.block_on(Volume::snapshots_remote(&bucket, url.prefix()));
    listed.map_err(Failure::run)
}

pub(super) fn delete_snapshot(url: &StoreUrl, name: &str, how: &Reach) -> Result<(), Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    let deleted = Volume::delete_snapshot_remote(&bucket, url.prefix(), name);
    runtime.block_on(deleted).map_err(Failure::run)
}

/// Makes a volume of a snapshot of another one, or of what that one is now.
pub(super) fn copy(
    url: &StoreUrl,
    snapshot: Option<&str>,
    to: &StoreUrl,
    how: &Reach,
) -> Result<Amount, Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    let to_bucket = reach(to, how, &runtime)?;
    with_scratch(|scratch| {
        let (from, to) = ((&bucket, url.prefix()), (&to_bucket, to.prefix()));
        Volume::copy_remote(from, snapshot, to, scratch, runtime.handle())
    })
}

pub(super) fn dump(
    url: &StoreUrl,
    snapshot: Option<&str>,
    options: DumpOptions,
    to: &mut dyn Write,
    how: &Reach,
) -> Result<DumpSummary, Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    with_scratch(|scratch| {
        let from = (&bucket, url.prefix());
        Volume::dump_remote(from, snapshot, options, to, scratch, runtime.handle())
    })
}

/// Makes a volume of a dump.
pub(super) fn load(
    url: &StoreUrl,
    from: &mut dyn BufRead,
    how: &Reach,
) -> Result<DumpSummary, Failure> {
    let runtime = waiting()?;
    let bucket = reach(url, how, &runtime)?;
    with_scratch(|scratch| {
        Volume::load_remote(&bucket, url.prefix(), from, scratch, runtime.handle())
    })
}

/// Works with an empty directory, which is removed afterwards.
fn with_scratch<T>(work: impl FnOnce(&Path) -> Result<T, VolumeError>) -> Result<T, Failure> {
    let folder = scratch().map_err(|error| {
        Failure::run(format!(
            "cannot make a directory for a copy of the names: {error}; choose a place with TMPDIR"
        ))
    })?;
    let done = work(folder.path());
    let path = folder.path().to_owned();
    if let Err(error) = folder.close() {
        tracing::warn!(directory = %path.display(), %error, "it stays");
    }
    done.map_err(Failure::run)
}

/// A directory of one's own, whatever commands that were killed have left.
fn scratch() -> std::io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("vfsd-volume-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
}

pub(super) fn prepare(url: &StoreUrl, options: &StorageOptions) -> Result<Prepared, Failure> {
    let served = Served::new(url, options)?;
    let directory = directory(&url.to_string(), served.store.identity(), &options.volume)?;
    let shown = format!("volume:{url}");
    let (uid, gid) = options.owner;
    let VolumeSettings {
        durability,
        takeover,
        ..
    } = options.volume;
    Ok(Prepared {
        shares: vec![Share::alone_at(directory.clone())],
        needs: Needs {
            network: true,
            ..Needs::default()
        },
        private: true,
        open: Box::new(move |mut given| {
            let root = given.root("use", &directory)?;
            let options = RemoteOptions {
                volume: VolumeOptions {
                    uid,
                    gid,
                    ..VolumeOptions::default()
                },
                durability,
                takeover,
                ..served.options(&given.runtime)
            };
            served.check(&given.runtime)?;
            let volume = Volume::open_remote(&served.bucket, &served.prefix, &root.path, &options);
            let volume = volume.map_err(|error| Failure::run(root.on_host(&directory, &error)))?;
            let (lag, cache) = (volume.watch_lag(), volume.watch_cache());
            let store = served.store;
            given.figures.add(&shown, move || {
                let mut figures = lag.look().map_or_else(Vec::new, lag_figures);
                figures.extend(cache.look().into_iter().flat_map(cache_figures));
                figures.extend(requests(&store));
                figures
            });
            Ok(Arc::new(volume))
        }),
    })
}

/// What is good for what is kept on this host.
pub(super) fn cache_figures(cache: CacheUse) -> Vec<Figure> {
    let reads = [("hit", cache.hits), ("miss", cache.misses)];
    let reads = reads.map(|(outcome, count)| Figure {
        name: "vfsd_volume_cache_reads_total",
        label: Some(("outcome", outcome)),
        value: Value::Counter(count),
    });
    let fetched = plain(
        "vfsd_volume_fetched_bytes_total",
        Value::Counter(cache.fetched),
    );
    let evicted = plain(
        "vfsd_volume_evicted_bytes_total",
        Value::Counter(cache.evicted),
    );
    reads.into_iter().chain([fetched, evicted]).collect()
}

/// The bucket, which can be read: what is wrong with it is said at once, and what to do.
fn reach(url: &StoreUrl, how: &Reach, runtime: &Runtime) -> Result<Bucket, Failure> {
    let bucket = how.open(url)?;
    let checked = runtime.block_on(bucket.store().check(url.prefix()));
    checked.map_err(Failure::run)?;
    Ok(bucket)
}

/// How far the bucket is behind.
fn lag_figures(lag: Lag) -> Vec<Figure> {
    vec![
        plain("vfsd_volume_lag_bytes", Value::Amount(lag.bytes)),
        plain(
            "vfsd_volume_lag_seconds",
            Value::Gauge(lag.age.as_secs_f64()),
        ),
        plain("vfsd_volume_rounds_total", Value::Counter(lag.rounds)),
        plain(
            "vfsd_volume_round_failures_total",
            Value::Counter(lag.failures),
        ),
        plain("vfsd_volume_fenced", Value::Amount(lag.fenced.into())),
    ]
}

/// What a command waits on. It has a thread of its own: the volume waits on its handle.
fn waiting() -> Result<Runtime, Failure> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.map_err(|error| Failure::run(format!("cannot wait for the network: {error}")))
}

/// The directory of what an address names, for it alone, made unless it is there.
pub(super) fn directory(
    address: &str,
    identity: &str,
    settings: &VolumeSettings,
) -> Result<PathBuf, Failure> {
    let state = match &settings.state {
        Some(state) => state.clone(),
        None => {
            folder::usual("/var/lib/vfsd", "XDG_STATE_HOME", ".local/state").ok_or_else(|| {
                Failure::run("there is no HOME to keep a volume's changes in: name a --state-dir")
            })?
        }
    };
    let directory = state.join("volumes").join(name(address, identity));
    folder::make(&directory).map_err(|error| {
        Failure::run(format!(
            "cannot use {}: {error}; choose another place with --state-dir",
            directory.display()
        ))
    })
}

/// A name for what is at an address of a service: the same at each start, and no other's.
fn name(address: &str, identity: &str) -> String {
    let whole = format!("{address} {identity}");
    let mut name = String::new();
    for byte in whole.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => name.push(byte.into()),
            _ => name.push_str(&format!("_{byte:02x}")),
        }
    }
    if name.len() > MOST_OF_NAME {
        name.truncate(MOST_OF_NAME);
        name.push_str(&format!("_{:016x}", fnv(whole.as_bytes())));
    }
    name
}

/// FNV-1a, which is the same in every version of this program.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_each_service_has_a_name_of_its_own() {
        assert_eq!(
            name("s3://bucket/a/b", "http://127.0.0.1:9000"),
            "s3_3a_2f_2fbucket_2fa_2fb_20http_3a_2f_2f127.0.0.1_3a9000"
        );
        let long = format!("s3://bucket/{}", "p/".repeat(200));
        let (one, two) = (name(&long, "x"), name(&long, "y"));
        assert_ne!(one, two);
        assert!(one.len() <= 255 && one.starts_with("s3_3a"), "{one}");
        assert_eq!(one, name(&long, "x"));
    }
}
