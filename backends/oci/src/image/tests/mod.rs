//! Images are found, or it is said why not.

use crate::testing::Layout;

use super::{Image, ImageError, ImageName, Platform};
use crate::registry::Settings;

mod archive;
mod layout;

/// What opening an image of a layout comes to.
fn open(layout: &Layout, tag: Option<&str>, platform: Option<&str>) -> Result<Image, ImageError> {
    let name = ImageName::Layout {
        path: layout.path().to_owned(),
        tag: tag.map(str::to_owned),
    };
    let platform = platform.map(|platform| platform.parse().unwrap());
    open_local(&name, platform.as_ref())
}

/// What opening an image on this machine comes to.
fn open_local(name: &ImageName, platform: Option<&Platform>) -> Result<Image, ImageError> {
    Image::open(
        name,
        platform,
        "/nonexistent".as_ref(),
        &Settings::default(),
    )
}

/// What is said of it.
#[track_caller]
fn refused(result: Result<Image, ImageError>) -> String {
    let message = result.unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}
