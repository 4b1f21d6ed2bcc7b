//! What hostile input is thrown at: each target is a function of bytes that panics when something is
//! wrong, and does nothing else.
//!
//! `cargo test -p vfsd-fuzz` throws a bounded number of inputs, which a seed repeats, at each of them
//! on any toolchain. `fuzz/` has the same functions as targets of cargo-fuzz, for hours.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a target tells what it finds by a panic"
)]

mod contents;
mod device;
mod exchange;
mod image;
mod index;
mod plugin;
mod reader;
mod rules;
mod session;
mod tar;
mod wire;

/// A target of fuzzing.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// What is done with an input.
    pub run: fn(&[u8]),
    /// Inputs that are well formed, or nearly so, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs take some seconds.
    pub bounded: u64,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "decode",
        run: wire::decode,
        seeds: wire::seeds,
        bounded: 200_000,
    },
    Target {
        name: "session",
        run: session::run,
        seeds: session::seeds,
        bounded: 1_500,
    },
    Target {
        name: "ring",
        run: device::ring,
        seeds: device::ring_seeds,
        bounded: 300,
    },
    Target {
        name: "connection",
        run: device::connection,
        seeds: device::connection_seeds,
        bounded: 300,
    },
    Target {
        name: "rules",
        run: rules::run,
        seeds: rules::seeds,
        bounded: 100_000,
    },
    Target {
        name: "tar",
        run: tar::run,
        seeds: tar::seeds,
        bounded: 20_000,
    },
    Target {
        name: "image",
        run: image::run,
        seeds: image::seeds,
        bounded: 20_000,
    },
    Target {
        name: "index",
        run: index::run,
        seeds: index::seeds,
        bounded: 2_000,
    },
    Target {
        name: "contents",
        run: contents::run,
        seeds: contents::seeds,
        bounded: 4_000,
    },
    Target {
        name: "plugin",
        run: plugin::run,
        seeds: plugin::seeds,
        bounded: 300,
    },
];

/// Runs the target of a name.
///
/// # Panics
/// When there is none, and when the target finds something.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of that name").run)(data);
}
