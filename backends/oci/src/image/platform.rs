//! What machine an image is for.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// What machine an image is for, in the words of Go: `linux/amd64`, `linux/arm64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The operating system.
    pub os: String,
    /// The processor.
    pub architecture: String,
    /// Which of them: `v7`.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on the processor that this program runs on.
    pub fn host() -> Self {
        let architecture = match (std::env::consts::ARCH, cfg!(target_endian = "little")) {
            ("powerpc64", true) => "powerpc64le",
            (other, _) => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
        .normal()
    }

    /// With the names that images use, and without a variant that says nothing.
    fn normal(&self) -> Self {
        let architecture = match self.architecture.as_str() {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "x86" | "i386" | "i686" => "386",
            "armhf" | "armv7l" => "arm",
            "powerpc64le" => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        let variant = match (architecture, self.variant.as_deref()) {
            ("arm64", Some("v8" | "8")) | ("amd64", Some("v1")) => None,
            ("arm", None | Some("7")) => Some("v7"),
            ("arm", Some("6")) => Some("v6"),
            (_, Some("")) => None,
            (_, variant) => variant,
        };
        Self {
            os: self.os.clone(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Whether an image for `self` runs on `machine`, and how well: more is better. An arm processor runs what is for
    /// older ones; an amd64 one that is not said to be newer runs the base alone.
    pub(super) fn fits(&self, machine: &Self) -> Option<u32> {
        let (image, machine) = (self.normal(), machine.normal());
        if image.os != machine.os || image.architecture != machine.architecture {
            return None;
        }
        let level = |platform: &Self| -> Option<u32> {
            let variant = platform.variant.as_deref();
            let digits = variant.map_or(Some("0"), |variant| variant.strip_prefix('v'));
            digits?.parse().ok()
        };
        match (level(&image), level(&machine)) {
            (Some(image), Some(machine)) => (image <= machine).then_some(image),
            _ => (image.variant == machine.variant).then_some(0),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// What is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no platform: write OS/ARCH or OS/ARCH/VARIANT, for instance linux/amd64")]
pub struct BadPlatform(String);

impl FromStr for Platform {
    type Err = BadPlatform;

    fn from_str(text: &str) -> Result<Self, BadPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match *parts {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(BadPlatform(text.to_owned())),
        };
        if parts.contains(&"") {
            return Err(BadPlatform(text.to_owned()));
        }
        let platform = Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        };
        Ok(platform.normal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platforms_are_read_and_written() {
        assert_eq!(platform("linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(platform("linux/arm64/v8").to_string(), "linux/arm64");
        assert_eq!(platform("linux/arm").to_string(), "linux/arm/v7");
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd64/"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_image_fits_its_machine_and_newer_ones() {
        let fits = |image: &str, machine: &str| platform(image).fits(&platform(machine));
        assert!(fits("linux/amd64", "linux/amd64").is_some());
        assert!(fits("linux/aarch64", "linux/arm64/v8").is_some());
        assert!(fits("linux/arm/v6", "linux/arm/v7") < fits("linux/arm/v7", "linux/arm/v7"));
        assert_eq!(fits("linux/arm/v7", "linux/arm/v6"), None);
        assert_eq!(fits("linux/amd64/v3", "linux/amd64"), None);
        assert_eq!(fits("windows/amd64", "linux/amd64"), None);
        assert_eq!(fits("linux/386", "linux/amd64"), None);
        assert!(Platform::host().fits(&Platform::host()).is_some());
    }
}
