//! Storages that live in a bucket of an object store: S3 and what speaks its protocol, Google Cloud
//! Storage, Azure Blob Storage.
//!
//! [`store`] makes of such a service something that can be relied on: requests are repeated
//! within limits, replies are checked, and what a conditional write answered is told apart from a
//! reply that got lost. [`flat`] shows the objects of a bucket as files.
//!
//! # What a process needs of its host
//!
//! Certificates and the AWS files are read when a store is opened. Later it needs the network; names are
//! resolved by the C library, which reads `/etc/resolv.conf`, `/etc/hosts` and `/etc/nsswitch.conf` then, too (where it can't,
//! the addresses found earlier go on being used). Credentials that expire are renewed from where they came: a token file that
//! the environment names must stay readable at its path.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::panic
    )
)]

pub mod flat;
pub mod store;

pub use flat::{DiskCache, DiskUse, FlatBucket, FlatOptions, Overwrite, Staging, WriteOptions};
pub use store::{OpenError, RetryPolicy, Store, StoreOptions, StoreUrl};
