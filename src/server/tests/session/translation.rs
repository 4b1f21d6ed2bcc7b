//! Ids: whose files are whose on the other side.

use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{AttrOut, HandleId, SetattrIn, fattr};
use vfsd_server::{IdMap, SessionOptions};
use zerocopy::{FromZeros, IntoBytes};

use crate::guest::{Guest, memory, structure};

const EPERM: i32 = 1;
const EINVAL: i32 = 22;

fn mapped() -> Guest {
    let rules = ["map:0:100000:1000", "forbid-guest:5000:1"];
    let map = IdMap::parse(&rules).unwrap();
    let (uid_map, gid_map) = (map.clone(), map);
    Guest::with(
        memory(),
        SessionOptions {
            uid_map,
            gid_map,
            ..SessionOptions::default()
        },
    )
}

#[test]
fn new_files_belong_to_the_caller_on_both_sides() {
    let mut guest = mapped();
    (guest.uid, guest.gid) = (7, 8);
    let entry = guest.mkdir(1, "a").unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid), (7, 8));
}

#[test]
fn a_forbidden_id_and_no_id_make_nothing() {
    let mut guest = mapped();
    guest.uid = 5000;
    assert_eq!(guest.mkdir(1, "a").unwrap_err(), EPERM);
    guest.uid = u32::MAX;
    assert_eq!(guest.mkdir(1, "a").unwrap_err(), EINVAL);
    assert_eq!(
        guest.lookup(1, "a").unwrap_err(),
        2,
        "what needs no identity is served"
    );
}

#[test]
fn a_change_of_owner_is_translated_and_checked() {
    let guest = mapped();
    let node = guest.mkdir(1, "a").unwrap().nodeid.0;
    let change = |uid| {
        let arg = SetattrIn {
            valid: fattr::UID,
            uid,
            ..SetattrIn::new_zeroed()
        };
        guest.call(Opcode::Setattr, node, &[arg.as_bytes()])
    };
    assert_eq!(structure::<AttrOut>(&change(42).unwrap()).attr.uid, 42);
    assert_eq!(change(5000), Err(EPERM));
    assert_eq!(change(u32::MAX), Err(EINVAL));
}

#[test]
fn a_change_that_means_nothing_changes_nothing() {
    let guest = Guest::on_memory();
    let node = guest.mkdir(1, "a").unwrap().nodeid.0;
    let setattr = |arg: SetattrIn| guest.call(Opcode::Setattr, node, &[arg.as_bytes()]);
    let zero = SetattrIn::new_zeroed();
    assert_eq!(
        setattr(SetattrIn {
            valid: 1 << 12,
            ..zero
        }),
        Err(EINVAL)
    );
    assert_eq!(
        setattr(SetattrIn {
            valid: fattr::FH,
            fh: HandleId(5),
            ..zero
        }),
        Err(9)
    );
    let late = SetattrIn {
        valid: fattr::MTIME,
        mtimensec: 1_000_000_000,
        ..zero
    };
    assert_eq!(setattr(late), Err(EINVAL));
    assert_eq!(
        setattr(SetattrIn {
            valid: fattr::SIZE,
            size: u64::MAX,
            ..zero
        }),
        Err(27)
    );
    let typed = SetattrIn {
        valid: fattr::MODE,
        mode: 0o100_700,
        ..zero
    };
    let reply = setattr(typed).unwrap();
    assert_eq!(
        structure::<AttrOut>(&reply).attr.mode,
        0o040_700,
        "a type is not changed"
    );
    assert!(setattr(zero).is_ok());
}
