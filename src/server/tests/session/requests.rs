//! Requests that a guest's kernel would not send, or sends in a race.

use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{
    AttrOut, CopyFileRangeIn, EntryOut, HandleId, IoctlIn, IoctlOut, NodeId, ReleaseIn, WriteIn,
};
use vfsd_server::SessionOptions;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::guest::{Guest, memory, structure};

const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;
const O_RDWR: u32 = 2;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;

const FMODE_EXEC: u32 = 0x20;

const EPERM: i32 = 1;
const EEXIST: i32 = 17;
const ETXTBSY: i32 = 26;
const ESTALE: i32 = 116;

#[test]
fn a_file_that_is_there_is_not_opened_by_its_creation() {
    let guest = Guest::on_memory();
    guest.create(1, "file").unwrap();
    let create = |flags: u32| {
        let arg = [flags, 0o644, 0, 0];
        guest.call(Opcode::Create, 1, &[arg.as_bytes(), b"file\0"])
    };
    let (nodes, handles) = (guest.nodes(), guest.handles());
    for flags in [O_RDWR, O_RDONLY, O_WRONLY | O_TRUNC] {
        assert_eq!(create(flags).unwrap_err(), ESTALE);
    }
    assert_eq!(create(O_RDWR | O_EXCL).unwrap_err(), EEXIST);
    assert_eq!((guest.nodes(), guest.handles()), (nodes, handles));
}

#[test]
fn a_program_that_is_run_is_not_truncated_by_an_open_to_read() {
    let guest = Guest::on_memory();
    let (program, _) = guest.create(1, "program").unwrap();
    let (other, _) = guest.create(1, "other").unwrap();
    let open = |node: u64, flags: u32| guest.open(Opcode::Open, node, flags);
    let run = open(program.nodeid.0, O_RDONLY | FMODE_EXEC).unwrap();
    assert_eq!(
        open(program.nodeid.0, O_RDONLY | O_TRUNC).unwrap_err(),
        ETXTBSY
    );
    open(program.nodeid.0, O_RDONLY).unwrap();
    open(other.nodeid.0, O_RDONLY | O_TRUNC).unwrap();
    let release = ReleaseIn {
        fh: run.fh,
        ..ReleaseIn::new_zeroed()
    };
    guest
        .call(Opcode::Release, program.nodeid.0, &[release.as_bytes()])
        .unwrap();
    open(program.nodeid.0, O_RDONLY | O_TRUNC).unwrap();
}

#[test]
fn an_ioctl_that_may_touch_any_memory_of_the_caller_is_refused() {
    const GETFLAGS: u32 = 0x8008_6601;
    let guest = Guest::on_memory();
    let (file, open) = guest.create(1, "file").unwrap();
    let ioctl = |flags: u32| {
        let arg = IoctlIn {
            fh: HandleId(open.fh.0),
            flags,
            cmd: GETFLAGS,
            arg: 0,
            in_size: 0,
            out_size: 4,
        };
        guest.call(Opcode::Ioctl, file.nodeid.0, &[arg.as_bytes()])
    };
    let answer: [u8; size_of::<IoctlOut>() + 4] = structure(&ioctl(0).unwrap());
    assert_eq!(answer, [0; _]);
    assert_eq!(ioctl(1 << 1).unwrap_err(), EPERM);
}

#[test]
fn one_copy_moves_no_more_than_64_mib_and_the_guest_asks_for_the_rest() {
    const LIMIT: u64 = 64 << 20;
    let guest = Guest::on_memory();
    let (source, from) = guest.create(1, "source").unwrap();
    let (target, to) = guest.create(1, "target").unwrap();
    let end = LIMIT + (32 << 20);
    let write = WriteIn {
        fh: HandleId(from.fh.0),
        offset: end - 4,
        size: 4,
        write_flags: 0,
        lock_owner: 0,
        flags: 0,
        padding: 0,
    };
    let body = [write.as_bytes(), b"last"];
    guest.call(Opcode::Write, source.nodeid.0, &body).unwrap();
    let copy = |offset: u64, len: u64| {
        let arg = CopyFileRangeIn {
            fh_in: HandleId(from.fh.0),
            off_in: offset,
            nodeid_out: NodeId(target.nodeid.0),
            fh_out: HandleId(to.fh.0),
            off_out: offset,
            len,
            flags: 0,
        };
        let reply = guest.call(Opcode::CopyFileRange64, source.nodeid.0, &[arg.as_bytes()]);
        u64::from_le_bytes(structure(&reply.unwrap()))
    };
    assert_eq!(copy(0, 1 << 40), LIMIT);
    assert_eq!(copy(LIMIT, 1 << 40), end - LIMIT);
    assert_eq!(copy(end, 1 << 40), 0);
}

#[test]
fn the_attributes_of_a_set_id_program_are_not_believed_where_the_daemon_clears_its_bits() {
    for (kill_privileges, valid) in [(true, 0), (false, 1)] {
        let options = SessionOptions {
            kill_privileges,
            ..SessionOptions::default()
        };
        let guest = Guest::with(memory(), options);
        for (name, mode, valid) in [
            ("program", 0o4755, valid),
            ("group", 0o2755, valid),
            ("plain", 0o755, 1),
        ] {
            let arg = [O_RDWR, mode, 0, 0];
            let body = [arg.as_bytes(), name.as_bytes(), b"\0"];
            let made = guest.call(Opcode::Create, 1, &body).unwrap();
            let (made, _) = EntryOut::read_from_prefix(&made).unwrap();
            let found = guest.lookup(1, name).unwrap();
            let asked = guest.call(Opcode::Getattr, found.nodeid.0, &[&[0; 16]]);
            let asked: AttrOut = structure(&asked.unwrap());
            assert_eq!(asked.attr.mode & 0o7777, mode);
            let told = [made.attr_valid, found.attr_valid, asked.attr_valid];
            assert_eq!(told, [valid; 3], "{name}, {kill_privileges}");
            assert_eq!(found.entry_valid, 1);
        }
        guest.mkdir(1, "directory").unwrap();
        assert_eq!(guest.lookup(1, "directory").unwrap().attr_valid, 1);
    }
}

#[test]
fn an_allocation_leaves_set_id_bits_to_root_only() {
    let mut guest = Guest::on_memory();
    let (entry, open) = guest.create(1, "program").unwrap();
    let mut change = [0; 88];
    // FATTR_MODE, and the mode.
    change[0] = 1;
    change[68..72].copy_from_slice(&0o106_755_u32.to_le_bytes());
    guest
        .call(Opcode::Setattr, entry.nodeid.0, &[&change])
        .unwrap();
    for (uid, left) in [(0, 0o6755), (1000, 0o755)] {
        guest.uid = uid;
        let range = [open.fh.0, 0, 4096, 0].map(u64::to_le_bytes).concat();
        guest
            .call(Opcode::Fallocate, entry.nodeid.0, &[&range])
            .unwrap();
        let reply = guest
            .call(Opcode::Getattr, entry.nodeid.0, &[&[0; 16]])
            .unwrap();
        let mode = u32::from_le_bytes(reply[76..80].try_into().unwrap());
        assert_eq!(mode & 0o7777, left, "user {uid}");
    }
}
