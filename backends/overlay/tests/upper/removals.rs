//! Names that are removed, and what is left of them.

use vfsd_backend::Errno;

use crate::stack::every_store;
use crate::{Stack, is_whiteout, refused};

#[test]
fn a_whiteout_stays_only_where_a_lower_layer_has_the_name() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            lower.put("below", b"").unwrap();
            lower.mkdir("dir").unwrap().put("inner", b"").unwrap();
        });
        stack.run(|root| {
            root.put("above", b"").unwrap();
            root.unlink("above").unwrap();
            root.unlink("below").unwrap();
            let dir = root.lookup("dir").unwrap();
            refused(root.rmdir("dir"), Errno::NOTEMPTY);
            dir.unlink("inner").unwrap();
            root.rmdir("dir").unwrap();
            root.mkdir("new").unwrap();
            root.rmdir("new").unwrap();
            assert_eq!(root.names().unwrap(), [""; 0]);
        });
        let upper = stack.upper();
        assert_eq!(upper.names().unwrap(), ["below", "dir"]);
        assert!(is_whiteout(&upper, "below") && is_whiteout(&upper, "dir"));
        stack.run(|root| assert_eq!(root.names().unwrap(), [""; 0]));
        assert_eq!(stack.lower().names().unwrap(), ["below", "dir"]);
    });
}

#[test]
fn what_was_removed_does_not_come_back_in_a_new_directory_of_that_name() {
    every_store(|store| {
        let stack = Stack::new(store, &|lower, _| {
            let dir = lower.mkdir("d").unwrap();
            dir.put("file", b"").unwrap();
            dir.mkdir("sub").unwrap();
        });
        stack.run(|root| {
            let dir = root.lookup("d").unwrap();
            dir.unlink("file").unwrap();
            dir.rmdir("sub").unwrap();
            root.rmdir("d").unwrap();
            let again = root.mkdir("d").unwrap();
            assert_eq!(again.names().unwrap(), [""; 0]);
            again.put("mine", b"").unwrap();
        });
        stack.run(|root| assert_eq!(root.lookup("d").unwrap().names().unwrap(), ["mine"]));
    });
}
