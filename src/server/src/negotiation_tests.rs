use super::*;

/// Offers seen from Debian's 7.2 kernel.
fn offer(minor: u32) -> InitIn {
    InitIn {
        major: 7,
        minor,
        max_readahead: 131_072,
        flags: InitFlags::all(),
    }
}

fn agreed(init: &InitIn, capabilities: Capabilities, options: &SessionOptions) -> InitFlags {
    match negotiate(init, capabilities, false, options, true) {
        Ok(Negotiation::Agreed { layout, reply }) => {
            assert_eq!(layout.flags.words(), (reply.flags, reply.flags2));
            layout.flags
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_storage_without_features_is_offered_without_them() {
    let options = SessionOptions {
        writeback: true,
        kill_privileges: true,
        posix_acl: Offer::Auto,
        security_label: Offer::Auto,
        ..SessionOptions::default()
    };
    let flags = agreed(&offer(45), Capabilities::empty(), &options);
    let absent = InitFlags::POSIX_ACL
        | InitFlags::POSIX_LOCKS
        | InitFlags::FLOCK_LOCKS
        | InitFlags::WRITEBACK_CACHE
        | InitFlags::HANDLE_KILLPRIV_V2
        | InitFlags::SECURITY_CTX
        | InitFlags::SUBMOUNTS
        | InitFlags::ATOMIC_O_TRUNC
        | InitFlags::HAS_INODE_DAX
        | InitFlags::MAP_ALIGNMENT;
    assert_eq!(flags & absent, InitFlags::empty());
    let flags = agreed(&offer(45), Capabilities::all(), &options);
    let dax = InitFlags::HAS_INODE_DAX | InitFlags::MAP_ALIGNMENT;
    assert!(flags.contains(absent - dax));
    assert!(!flags.intersects(dax));
}

#[test]
fn nothing_is_agreed_that_the_guest_did_not_offer() {
    let options = SessionOptions {
        writeback: true,
        ..SessionOptions::default()
    };
    for bit in 0..64 {
        let flags = InitFlags::from_bits_retain(1 << bit) | InitFlags::INIT_EXT;
        let init = InitIn { flags, ..offer(45) };
        assert!(
            flags.contains(agreed(&init, Capabilities::all(), &options)),
            "bit {bit}"
        );
    }
    let init = InitIn {
        flags: InitFlags::all() - InitFlags::INIT_EXT,
        ..offer(45)
    };
    let flags = agreed(&init, Capabilities::all(), &options);
    assert_eq!(
        flags.words().1,
        0,
        "the upper word counts only with INIT_EXT"
    );
}

#[test]
fn versions_from_7_31_to_7_45_are_spoken() {
    let options = SessionOptions::default();
    for (minor, expected) in [(31, 31), (38, 38), (45, 45), (46, 45), (u32::MAX, 45)] {
        match negotiate(&offer(minor), Capabilities::all(), false, &options, true) {
            Ok(Negotiation::Agreed { reply, .. }) => assert_eq!(reply.minor, expected),
            other => panic!("{minor}: {other:?}"),
        }
    }
    for (major, minor) in [(7, 30), (7, 0), (6, 45), (0, 0)] {
        let init = InitIn {
            major,
            ..offer(minor)
        };
        assert_eq!(
            negotiate(&init, Capabilities::all(), false, &options, true).unwrap_err(),
            Errno::PROTO
        );
    }
    let init = InitIn {
        major: 8,
        ..offer(0)
    };
    match negotiate(&init, Capabilities::all(), false, &options, true) {
        Ok(Negotiation::TryAgain { reply }) => assert_eq!(reply.major, 7),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guest_without_acls_is_refused_only_if_they_are_demanded() {
    let init = InitIn {
        flags: InitFlags::all() - InitFlags::SETXATTR_EXT,
        ..offer(45)
    };
    let options = |posix_acl| SessionOptions {
        posix_acl,
        ..SessionOptions::default()
    };
    let flags = agreed(&init, Capabilities::all(), &options(Offer::Auto));
    assert!(!flags.intersects(ACL_FLAGS));
    let refused = negotiate(
        &init,
        Capabilities::all(),
        false,
        &options(Offer::Always),
        true,
    );
    assert_eq!(refused.unwrap_err(), Errno::PROTO);
}

#[test]
fn requests_of_a_mebibyte_are_agreed() {
    match negotiate(
        &offer(45),
        Capabilities::empty(),
        false,
        &SessionOptions::default(),
        true,
    ) {
        Ok(Negotiation::Agreed { reply, .. }) => {
            assert_eq!((reply.max_write, reply.max_pages), (1 << 20, 256));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_open_truncates_only_where_set_id_bits_are_cleared_here() {
    for kill_privileges in [true, false] {
        let options = SessionOptions {
            kill_privileges,
            ..SessionOptions::default()
        };
        for offered in [
            InitFlags::all(),
            InitFlags::all().difference(InitFlags::HANDLE_KILLPRIV_V2),
        ] {
            let mut init = offer(45);
            init.flags = offered;
            let flags = agreed(&init, Capabilities::all(), &options);
            assert_eq!(
                flags.contains(InitFlags::ATOMIC_O_TRUNC),
                kill_privileges && offered.contains(InitFlags::HANDLE_KILLPRIV_V2)
            );
        }
    }
}

#[test]
fn a_guest_is_spared_open_where_the_tree_is_its_own_and_its_locks_stay_with_it() {
    let options = SessionOptions {
        kill_privileges: true,
        ..SessionOptions::default()
    };
    let spared = InitFlags::NO_OPEN_SUPPORT | InitFlags::NO_OPENDIR_SUPPORT;
    let flags = |capabilities, own, offered| {
        let mut init = offer(45);
        init.flags = offered;
        match negotiate(&init, capabilities, own, &options, true) {
            Ok(Negotiation::Agreed { layout, .. }) => layout.flags,
            other => panic!("{other:?}"),
        }
    };
    let locks = Capabilities::POSIX_LOCKS | Capabilities::FLOCK;
    let alone = Capabilities::all() - locks;
    let agreed = flags(alone, true, InitFlags::all());
    assert!(agreed.contains(spared));
    assert!(!agreed.contains(InitFlags::ATOMIC_O_TRUNC));
    assert!(agreed.contains(InitFlags::DO_READDIRPLUS));
    assert!(!agreed.contains(InitFlags::READDIRPLUS_AUTO));
    for (capabilities, own) in [
        (alone, false),
        (alone | Capabilities::FLOCK, true),
        (alone | Capabilities::POSIX_LOCKS, true),
    ] {
        let agreed = flags(capabilities, own, InitFlags::all());
        assert!(!agreed.intersects(spared));
        assert!(agreed.contains(InitFlags::ATOMIC_O_TRUNC));
        assert!(agreed.contains(InitFlags::DO_READDIRPLUS | InitFlags::READDIRPLUS_AUTO));
    }
    let names = SessionOptions {
        readdirplus: false,
        ..SessionOptions::default()
    };
    match negotiate(&offer(45), alone, true, &names, true) {
        Ok(Negotiation::Agreed { layout, .. }) => {
            assert!(!layout.flags.contains(InitFlags::DO_READDIRPLUS));
        }
        other => panic!("{other:?}"),
    }
    let old = flags(alone, true, InitFlags::all() - spared);
    assert!(!old.intersects(spared));
    assert!(old.contains(InitFlags::ATOMIC_O_TRUNC));
}
