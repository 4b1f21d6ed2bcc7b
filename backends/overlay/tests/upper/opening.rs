//! What is checked and cleaned before an upper is used.

use vfsd_overlay::{Namespace, OpenError, Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::place::Place;

use crate::Stack;
use crate::stack::every_store;

#[test]
fn an_upper_that_the_kernel_has_not_made_durable_is_refused() {
    every_store(|store| {
        let stack = Stack::new(store, &|_, _| ());
        stack.run(|root| root.put("file", b"").map(drop).unwrap());
        let work = Place(stack.tree.root()).lookup("work").unwrap();
        let incompatible = work.lookup("work").unwrap().mkdir("incompat").unwrap();
        incompatible.mkdir("volatile").unwrap();
        match block_on(Overlay::open(stack.options())) {
            Err(OpenError::Incompatible { feature }) => assert_eq!(feature, "volatile"),
            other => panic!("{other:?}"),
        }
        incompatible.rmdir("volatile").unwrap();
        stack.run(|root| assert_eq!(root.names().unwrap(), ["file"]));
    });
}

#[test]
fn what_an_earlier_run_has_left_in_the_work_directory_is_removed() {
    every_store(|store| {
        let stack = Stack::new(store, &|_, _| {});
        stack.run(|_| {});
        let work = Place(stack.tree.root()).lookup("work").unwrap();
        let inner = work.lookup("work").unwrap();
        inner.put("#1", b"left").unwrap();
        let dir = inner.mkdir("#2").unwrap();
        dir.mkdir("made").unwrap().put("x", b"").unwrap();
        stack.run(|root| assert!(root.put("file", b"").is_ok()));
        assert_eq!(inner.names().unwrap(), [""; 0]);
    });
}

#[test]
fn an_upper_belongs_to_its_lowers() {
    every_store(|store| {
        let stack = Stack::new(store, &|_, _| {});
        let open = |names: &[&str]| {
            block_on(Overlay::open(Options {
                lowers_names: names.iter().map(|&name| name.to_owned()).collect(),
                ..stack.options()
            }))
        };
        assert!(open(&["these", "as they are called, too"]).is_ok());
        let other = open(&["those"]).unwrap_err();
        assert!(matches!(other, OpenError::OtherLowers { .. }), "{other}");
        assert!(other.to_string().contains("overlay.vfsd.lowers"), "{other}");
        assert!(
            open(&["as they are called, too"]).is_err(),
            "it is not noted"
        );
        assert!(open(&["those", "these"]).is_ok());
        assert!(open(&["these"]).is_ok() && open(&[]).is_ok());
    });
}

#[test]
fn a_work_directory_without_the_copies_that_the_upper_has_is_refused() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            let file = lower.put("one", b"before").unwrap();
            lower.link(&file, "two").unwrap();
        });
        let tree = Place(stack.tree.root());
        let other = tree.mkdir("other").unwrap();
        let open_with = |work: &Place| {
            let mut options = stack.options();
            if let Some(upper) = &mut options.upper {
                upper.work = work.0.clone();
            }
            block_on(Overlay::open(options)).map(drop)
        };
        let is_other = |refused: OpenError, attribute: &str| {
            assert!(matches!(refused, OpenError::OtherWork { .. }), "{refused}");
            assert!(refused.to_string().contains(attribute), "{refused}");
        };
        stack.run(|root| assert!(root.put("file", b"").is_ok()));
        open_with(&other).unwrap();
        stack.run(|root| {
            let one = root.lookup("one").unwrap();
            one.open_both().unwrap().write_all(0, b"after!").unwrap();
        });
        is_other(open_with(&other).unwrap_err(), "overlay.vfsd.indexed");
        stack.run(|root| assert_eq!(root.lookup("two").unwrap().content().unwrap(), b"after!"));

        // As the kernel leaves it with `index=on`.
        let namespace = stack.options().namespace;
        let (indexed, origin) = match namespace {
            Namespace::Trusted => ("trusted.overlay.vfsd.indexed", "trusted.overlay.origin"),
            Namespace::User => ("user.overlay.vfsd.indexed", "user.overlay.origin"),
        };
        stack.upper().removexattr(indexed).unwrap();
        open_with(&other).unwrap();
        stack.upper().setxattr(origin, b"a handle").unwrap();
        is_other(open_with(&other).unwrap_err(), "overlay.origin");
        other.mkdir("index").unwrap();
        open_with(&other).unwrap();
    });
}

#[test]
fn a_work_directory_elsewhere_is_refused() {
    every_store(|store| {
        let stack = Stack::new(store, &|_, _| {});
        let mut options = stack.options();
        let elsewhere = store.tree("elsewhere");
        if let Some(upper) = &mut options.upper {
            upper.work = elsewhere.root();
        }
        let refused = block_on(Overlay::open(options)).unwrap_err();
        assert!(matches!(refused, OpenError::WorkElsewhere), "{refused}");
    });
}
