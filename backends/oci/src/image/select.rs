//! From an index to the manifest of one image.

use std::sync::Arc;

use super::blobs::{Blobs, Document, read_json};
use super::manifest::{Descriptor, Manifest, Parsed};
use super::{Config, Image, ImageError, Platform};
use crate::blob::Sha256Digest;

/// How deep indexes may lie in each other.
const DEPTH_MAX: usize = 4;

/// Where tools put an image's name in an index, the specification's first.
const NAME_ANNOTATIONS: [&str; 2] = [
    "org.opencontainers.image.ref.name",
    "io.containerd.image.name",
];

/// Opens the image that `tag` names in a layout's `index.json`.
///
/// # Errors
/// A tag that is not there, a choice that is open, a platform that none is for; whatever is wrong with what was
/// chosen.
pub(super) fn from_layout(
    index: &[u8],
    tag: Option<&str>,
    platform: Option<&Platform>,
    blobs: Arc<dyn Blobs>,
) -> Result<Image, ImageError> {
    let Parsed::Index(all) = Parsed::parse("index.json", index)? else {
        return Err(ImageError::Unsupported(
            "index.json is a manifest, not an index".to_owned(),
        ));
    };
    let named = named(all, tag)?;
    let chosen = match <[Descriptor; 1]>::try_from(named) {
        Ok([only]) => only,
        Err(several) => by_platform(several, platform)?,
    };
    image(chosen, platform, blobs)
}

/// The entries of an index that have this name, or that are all there is.
fn named(all: Vec<Descriptor>, tag: Option<&str>) -> Result<Vec<Descriptor>, ImageError> {
    let names = |descriptor: &Descriptor| -> Vec<String> {
        let names = NAME_ANNOTATIONS.into_iter();
        names
            .filter_map(|name| descriptor.annotation(name).map(str::to_owned))
            .collect()
    };
    let mut there: Vec<String> = all
        .iter()
        .filter_map(|entry| names(entry).into_iter().next())
        .collect();
    there.sort();
    there.dedup();
    let Some(tag) = tag else {
        if there.len() > 1 {
            return Err(ImageError::Choose {
                problem: "the layout has several images, add :TAG".to_owned(),
                there,
            });
        }
        if all.is_empty() {
            let problem = "the layout has no image".to_owned();
            return Err(ImageError::Choose { problem, there });
        }
        return Ok(all);
    };
    let digest: Option<Sha256Digest> = tag.parse().ok();
    let wanted = |entry: &Descriptor| {
        let same = digest.is_some() && entry.digest().ok() == digest;
        same || names(entry).iter().any(|name| name == tag)
    };
    let found: Vec<Descriptor> = all.into_iter().filter(wanted).collect();
    match found.is_empty() {
        true => Err(ImageError::Choose {
            problem: format!("the layout has no image \"{}\"", tag.escape_debug()),
            there,
        }),
        false => Ok(found),
    }
}

/// The entry of an index that fits best.
fn by_platform(
    entries: Vec<Descriptor>,
    platform: Option<&Platform>,
) -> Result<Descriptor, ImageError> {
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    let there: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(Platform::to_string)
        .collect();
    let mut best: Option<(u32, Descriptor)> = None;
    for entry in entries {
        let fits = entry
            .platform
            .as_ref()
            .and_then(|image| image.fits(&wanted));
        // The first of those that fit equally well.
        if let Some(fits) = fits
            && best.as_ref().is_none_or(|(before, _)| fits > *before)
        {
            best = Some((fits, entry));
        }
    }
    best.map(|(_, entry)| entry)
        .ok_or(ImageError::Platform { wanted, there })
}

/// The image that a descriptor leads to, through indexes if need be.
fn image(
    mut descriptor: Descriptor,
    platform: Option<&Platform>,
    blobs: Arc<dyn Blobs>,
) -> Result<Image, ImageError> {
    for _ in 0..DEPTH_MAX {
        let digest = descriptor.digest()?;
        let bytes = read_json(&*blobs, Document::Manifest, digest, descriptor.size)?;
        match Parsed::parse("manifest", &bytes)? {
            Parsed::Index(entries) => descriptor = by_platform(entries, platform)?,
            Parsed::Manifest(manifest) => return of_manifest(digest, &manifest, platform, blobs),
        }
    }
    Err(ImageError::Unsupported(format!(
        "the image's indexes lie more than {DEPTH_MAX} deep in each other"
    )))
}

fn of_manifest(
    digest: Sha256Digest,
    manifest: &Manifest,
    platform: Option<&Platform>,
    blobs: Arc<dyn Blobs>,
) -> Result<Image, ImageError> {
    let descriptor = &manifest.config;
    let config = read_json(
        &*blobs,
        Document::Configuration,
        descriptor.digest()?,
        descriptor.size,
    )?;
    let config = Config::parse(&config)?;
    check_platform(&config, platform)?;
    Ok(Image {
        digest,
        layers: manifest.layers(&config)?,
        config,
        notice: None,
        blobs,
    })
}

/// Whether an image is for a platform, if one was asked for.
pub(super) fn check_platform(
    config: &Config,
    platform: Option<&Platform>,
) -> Result<(), ImageError> {
    match (platform, config.platform()) {
        (Some(wanted), Some(own)) if own.fits(wanted).is_none() => Err(ImageError::Platform {
            wanted: wanted.clone(),
            there: vec![own.to_string()],
        }),
        _ => Ok(()),
    }
}
