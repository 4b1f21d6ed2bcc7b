//! `vfsd image list`, `verify` and `prune`: what is kept of images.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use vfsd_oci::catalogue::{Catalogue, ListedImage, PruneOptions};

use crate::exit::Failure;
use crate::source::{CacheSettings, ImageSettings};

/// Which cache.
#[derive(Debug, Clone, Args)]
pub(super) struct CacheFolder {
    /// Where images are kept [default: /var/cache/vfsd for root, $XDG_CACHE_HOME/vfsd for others]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

impl CacheFolder {
    fn catalogue(&self) -> Result<Catalogue, Failure> {
        let settings = ImageSettings {
            cache: CacheSettings {
                dir: self.cache_dir.clone(),
                size: None,
            },
            ..ImageSettings::default()
        };
        settings.catalogue()
    }
}

/// `vfsd image list`.
#[derive(Debug, Clone, Args)]
pub(super) struct ListArguments {
    /// As JSON, with whole digests and exact sizes
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cache: CacheFolder,
}

/// `vfsd image verify`.
#[derive(Debug, Clone, Args)]
pub(super) struct VerifyArguments {
    /// Only this image: a name or a digest as `vfsd image list` shows them, or the beginning of a digest
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
    #[command(flatten)]
    cache: CacheFolder,
}

/// `vfsd image prune`.
#[derive(Debug, Clone, Args)]
pub(super) struct PruneArguments {
    /// All images that nobody uses now
    #[arg(long, conflicts_with = "unused_days")]
    all: bool,

    /// Images that were neither served nor pulled for so many days, and those that no name leads to any more
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    unused_days: u32,

    /// Say what would be removed
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    cache: CacheFolder,
}

impl ListArguments {
    /// What is there, as a table or as JSON.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub(super) fn run(&self) -> Result<String, Failure> {
        let images = self.cache.catalogue()?.images().map_err(unreadable)?;
        match self.json {
            true => json(&images),
            false => Ok(table(&images)),
        }
    }
}

impl VerifyArguments {
    /// What was looked at.
    ///
    /// # Errors
    /// When the cache cannot be read, there is no such image, or something was wrong.
    pub(super) fn run(&self) -> Result<String, Failure> {
        let catalogue = self.cache.catalogue()?;
        let only = match &self.image {
            Some(word) => {
                let images = catalogue.images().map_err(unreadable)?;
                Some(find(&images, word)?.digest)
            }
            None => None,
        };
        let verified = catalogue.verify(only).map_err(unreadable)?;
        for problem in &verified.problems {
            let used = match problem.in_use {
                true => "; a daemon that serves it has read it already: start that again",
                false => "",
            };
            eprintln!("{}: {}{used}", problem.digest, problem.what);
        }
        let right = format!(
            "{} blobs, {} spans of decoded layers, {} indexes and trees",
            verified.blobs, verified.spans, verified.indexes
        );
        match verified.problems.len() {
            0 => Ok(format!("all is right: {right}\n")),
            count => Err(Failure::run(format!(
                "{count} damaged pieces were removed, and will be fetched or made again; right are {right}"
            ))),
        }
    }
}

impl PruneArguments {
    /// What was removed.
    ///
    /// # Errors
    /// When the cache cannot be read, or something cannot be removed.
    pub(super) fn run(&self) -> Result<String, Failure> {
        let days = match self.all {
            true => 0,
            false => self.unused_days,
        };
        let pruned = self.cache.catalogue()?.prune(&PruneOptions {
            unused_for: Duration::from_secs(u64::from(days).saturating_mul(86_400)),
            dry_run: self.dry_run,
        });
        let pruned = pruned.map_err(unreadable)?;
        let done = match self.dry_run {
            true => "would be removed",
            false => "removed",
        };
        let mut text = String::new();
        for image in &pruned.images {
            let _ = writeln!(text, "{done}: {image}");
        }
        let _ = writeln!(text, "{} {done}", size(pruned.bytes));
        Ok(text)
    }
}

fn unreadable(error: std::io::Error) -> Failure {
    Failure::run(format!(
        "cannot use the cache of images: {error}; choose another with --cache-dir"
    ))
}

/// The image that a word means.
fn find<'a>(images: &'a [ListedImage], word: &str) -> Result<&'a ListedImage, Failure> {
    let named = images
        .iter()
        .find(|image| image.names.iter().any(|name| short(name) == short(word)));
    if let Some(image) = named {
        return Ok(image);
    }
    let digits = word.strip_prefix("sha256:").unwrap_or(word);
    let mut begins = images
        .iter()
        .filter(|image| digits.len() >= 4 && image.digest.hex().starts_with(digits));
    match (begins.next(), begins.next()) {
        (Some(image), None) => Ok(image),
        (Some(_), Some(_)) => Err(Failure::run(format!(
            "several images are called {word}: say more of the digest"
        ))),
        (None, _) => Err(Failure::run(format!(
            "no image {word} is in the cache: see vfsd image list"
        ))),
    }
}

/// A name without what is the same for most.
fn short(name: &str) -> &str {
    name.strip_prefix("docker://").unwrap_or(name)
}

fn json(images: &[ListedImage]) -> Result<String, Failure> {
    let images: Vec<_> = images
        .iter()
        .map(|image| {
            serde_json::json!({
                "names": image.names,
                "digest": image.digest.to_string(),
                "platform": image.platform,
                "created": image.created,
                "layers": image.layers,
                "size": image.size,
                "here": image.here,
                "disk": image.disk,
                "last_use": seconds(image.last_use),
                "in_use": image.in_use,
            })
        })
        .collect();
    let text = serde_json::to_string_pretty(&images)
        .map_err(|error| Failure::run(format!("cannot tell of the images: {error}")))?;
    Ok(text + "\n")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_secs())
}

fn table(images: &[ListedImage]) -> String {
    let now = SystemTime::now();
    let mut rows =
        vec![["NAME", "DIGEST", "PLATFORM", "SIZE", "HERE", "DISK", "USED"].map(str::to_owned)];
    for image in images {
        let names = match image.names.is_empty() {
            true => vec!["<none>"],
            false => image.names.iter().map(String::as_str).collect(),
        };
        for name in names {
            rows.push([
                name.to_owned(),
                image.digest.hex().chars().take(12).collect(),
                image.platform.clone(),
                size(image.size),
                share(image.here, image.size),
                size(image.disk),
                used(image, now),
            ]);
        }
    }
    let mut widths = [0_usize; 7];
    for row in &rows {
        for (width, word) in widths.iter_mut().zip(row) {
            *width = word.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let words = row.iter().zip(widths);
        let line: Vec<String> = words
            .map(|(word, width)| format!("{word:width$}"))
            .collect();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
    text
}

/// Bytes, as people read them.
pub(super) fn size(bytes: u64) -> String {
    let mut unit = 1_u64;
    let mut names = ["B", "kB", "MB", "GB", "TB"].into_iter();
    let mut name = names.next().unwrap_or_default();
    for next in names {
        if bytes < unit.saturating_mul(1000) {
            break;
        }
        unit = unit.saturating_mul(1000);
        name = next;
    }
    let tenths = bytes.saturating_mul(10).checked_div(unit).unwrap_or(bytes);
    match unit {
        1 => format!("{bytes} {name}"),
        _ => format!("{}.{} {name}", tenths / 10, tenths % 10),
    }
}

/// How much of an image is there.
fn share(here: u64, of: u64) -> String {
    let part = u128::from(here).saturating_mul(100);
    match part.checked_div(u128::from(of)) {
        // Almost all is not all.
        Some(percent) if here < of => format!("{} %", percent.min(99)),
        _ => "100 %".to_owned(),
    }
}

fn used(image: &ListedImage, now: SystemTime) -> String {
    if image.in_use {
        return "now".to_owned();
    }
    let age = now.duration_since(image.last_use).unwrap_or_default();
    let seconds = age.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7200 => (seconds / 60, "minutes"),
        7200..172_800 => (seconds / 3600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(names: &[&str], digit: &str) -> ListedImage {
        ListedImage {
            digest: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            platform: "linux/amd64".to_owned(),
            created: None,
            layers: 2,
            size: 1_500_000,
            here: 375_000,
            disk: 12_345,
            last_use: SystemTime::now(),
            in_use: true,
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_name_of_an_image() {
        let images = [
            image(&["docker://r/a:1", "docker://r/a:2"], "a"),
            image(&[], "b"),
        ];
        let text = table(&images);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("NAME            DIGEST        PLATFORM"),
            "{text}"
        );
        assert_eq!(
            lines[2],
            "docker://r/a:2  aaaaaaaaaaaa  linux/amd64  1.5 MB  25 %  12.3 kB  now"
        );
        assert!(lines[3].starts_with("<none> "), "{text}");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn an_image_is_found_by_name_digest_and_the_beginning_of_one() {
        let images = [image(&["docker://r/a:1"], "a"), image(&["oci:/x:t"], "b")];
        let whole = format!("sha256:{}", "a".repeat(64));
        for word in ["docker://r/a:1", "r/a:1", "aaaa", "sha256:aaaaaaa", &whole] {
            assert_eq!(
                find(&images, word).unwrap().digest,
                images[0].digest,
                "{word}"
            );
        }
        for word in ["a", "r/a", "", "cccc"] {
            assert!(find(&images, word).is_err(), "{word}");
        }
        let twice = [image(&[], "a"), image(&[], "a")];
        assert!(find(&twice, "aaaa").is_err());
    }

    #[test]
    fn sizes_and_shares_are_rounded_down() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_999_999, "1.9 MB"),
            (1_234_000_000_000_000, "1234.0 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(share(999, 1000), "99 %");
        assert_eq!(share(1000, 1000), "100 %");
        assert_eq!(share(0, 0), "100 %");
    }
}
