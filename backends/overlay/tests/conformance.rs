//! The behaviour that every backend shows, in directories of the host over an empty one.

#![allow(clippy::expect_used, reason = "a test")]

mod stack;

use std::process::ExitCode;

use stack::{Store, fixture, host_namespace, passthrough, upper_of};
use vfsd_overlay::{Options, Overlay};
use vfsd_testkit::{block_on, conformance};

fn main() -> ExitCode {
    conformance::main(|| {
        let store = Store::host(host_namespace());
        let namespace = store.namespace;
        let writable = store.writable(&[&|_, _| {}]);
        let host = writable.host.as_ref().expect("on the host");
        let place = host.path().to_owned();
        fixture(writable).reopening(move |old| {
            drop(old);
            let tree = passthrough(&place.join("writable"));
            let options = Options {
                namespace,
                upper: Some(upper_of(&tree)),
                ..Options::new(vec![passthrough(&place.join("lower-0"))])
            };
            block_on(Overlay::open(options)).expect("an overlay")
        })
    })
}
