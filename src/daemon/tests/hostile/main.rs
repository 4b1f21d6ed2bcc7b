//! What a guest or a front end may send, and what it must not achieve.
//!
//! Each test starts the real daemon, connects to its vhost-user socket as a front end would and
//! plays the rows of one table. After each row the daemon lives, the chain came back exactly once
//! (or its ring is stopped), other guests are served, nothing outside the share has changed, and
//! at the end of a table the daemon holds the descriptors and the memory it held at the start.
//!
//! Rules of replies stand in [`vfsd_testkit::frontend::channel::Returned::reply`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answer;
mod attributes;
mod chains;
mod config_space;
mod daemon;
mod data;
mod descriptors;
mod handles;
mod identity;
mod leaks;
mod lifecycle;
mod listener;
mod locks;
mod memory;
mod names;
mod nodes;
mod opcodes;
mod raw;
mod regions;
mod rings;
mod scene;
mod session;
mod special_files;
mod tables;
mod traffic;
mod tree;
mod vhost_user;
mod vrings;
