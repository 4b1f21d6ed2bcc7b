//! Images as `umoci unpack` unpacks them, compared entry by entry with what is served.
//!
//! Each row is an image of hand-made layers. All rows are reported as ignored without `umoci`, or without the rights
//! to make devices and owners.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod compare;
mod layers;
mod rows;

use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use vfsd_oci::image::ImageName;
use vfsd_oci::{OciImage, Options};

use layers::Layer;

fn main() -> ExitCode {
    let missing = match Command::new("umoci").arg("--version").output() {
        Err(_) => Some("not installed: umoci"),
        Ok(_) if !rustix::process::geteuid().is_root() => Some("needs root"),
        Ok(_) => None,
    };
    let trials = rows::rows().into_iter().map(|(name, layers)| {
        let test = move || is_unpacked_alike(layers);
        match missing {
            None => Trial::test(name, test),
            Some(why) => Trial::test(format!("{name} ({why})"), test).with_ignored_flag(true),
        }
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Unpacks an image of these layers both ways.
fn is_unpacked_alike(layers: Vec<Layer>) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let layout = folder.path().join("image");
    let image = format!("{}:t", layout.display());
    umoci(&["init", "--layout"], &[&layout])?;
    umoci(&["new", "--image", &image], &[])?;
    let tar = folder.path().join("layer.tar");
    for layer in layers {
        std::fs::write(&tar, layer.finish())?;
        umoci(&["raw", "add-layer", "--image", &image], &[&tar])?;
    }
    let bundle = folder.path().join("bundle");
    let begun = vfsd_backend::Timestamp::now().seconds;
    umoci(&["unpack", "--image", &image], &[&bundle])?;
    let cache = folder.path().join("cache");
    let name = ImageName::layout(image.as_ref());
    let served = OciImage::open(&Options::new(name, cache))?;
    let differences = compare::differences(&served, &bundle.join("rootfs"), begun);
    match differences.is_empty() {
        true => Ok(()),
        false => Err(differences.join("\n").into()),
    }
}

fn umoci(arguments: &[&str], paths: &[&Path]) -> Result<(), Failed> {
    let output = Command::new("umoci").args(arguments).args(paths).output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("umoci {}: {said}", arguments.join(" ")).into())
        }
    }
}
