//! The program as whoever starts it sees it: exit codes and messages, sockets and files, what a
//! running daemon may do, and mounts on this host.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy allows them in test functions only, and these are helpers of tests"
)]

mod command_line;
mod confinement;
mod figures;
mod hung;
mod images;
mod managed;
mod mount_copies;
mod mount_locks;
mod mount_users;
mod mounting;
mod opening;
mod plugins;
mod process;
mod serving;
mod stopping;
mod store_figures;
mod strange_hosts;
