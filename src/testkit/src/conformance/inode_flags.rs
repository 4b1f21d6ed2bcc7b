//! The inode flags of chattr(1).

use vfsd_backend::{AttributeChanges, Errno, FallocateMode, OpenFlags, SetTime, Timestamp};

use super::{Row, refused, rows};
use crate::place::{Outcome, Place, wait};

pub(super) const ROWS: &[Row] = rows! {
    flags_that_were_set_are_read needs INODE_FLAGS,
    flags_are_seen_as_extended_flags needs INODE_FLAGS,
    extended_flags_are_seen_as_flags needs INODE_FLAGS,
    unknown_flags_are_refused needs INODE_FLAGS,
    flags_of_a_symbolic_link_are_refused needs INODE_FLAGS,
    an_immutable_file_is_not_written needs INODE_FLAGS,
    an_immutable_file_keeps_its_attributes needs INODE_FLAGS,
    an_immutable_file_keeps_its_names needs INODE_FLAGS + HARD_LINKS,
    an_immutable_file_can_be_read needs INODE_FLAGS,
    an_immutable_file_refuses_handles_that_were_open needs INODE_FLAGS + ALLOCATION,
    an_immutable_directory_keeps_its_entries needs INODE_FLAGS,
    an_append_only_file_takes_appends_alone needs INODE_FLAGS,
    an_append_only_file_grows_and_loses_nothing needs INODE_FLAGS + ALLOCATION + HOLES,
    an_append_only_file_keeps_its_names needs INODE_FLAGS,
    an_append_only_directory_takes_new_entries_alone needs INODE_FLAGS,
    a_file_is_free_again_without_its_flags needs INODE_FLAGS,
    new_files_inherit_nodump needs INODE_FLAGS,
};

const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
const NODUMP: u32 = 0x40;
const XFLAG_IMMUTABLE: u32 = 0x8;
const XFLAG_NODUMP: u32 = 0x80;

/// Clears the flags at the end of a row, also of one that fails: else nobody could remove the files.
struct Flagged<'a>(&'a Place);

impl Drop for Flagged<'_> {
    fn drop(&mut self) {
        let _ = change(self.0, 0);
    }
}

/// Changes the flags that these rows use, and leaves those that the storage has of its own.
fn change(place: &Place, flags: u32) -> Outcome<()> {
    let others = wait(place.0.getflags())? & !(IMMUTABLE | APPEND | NODUMP);
    wait(place.0.setflags(others | flags))
}

fn flag(place: &Place, flags: u32) -> Flagged<'_> {
    change(place, flags).unwrap();
    Flagged(place)
}

fn flags_that_were_set_are_read(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let dir = root.mkdir("dir").unwrap();
    for place in [&file, &dir] {
        let _guard = flag(place, NODUMP | APPEND);
        let read = wait(place.0.getflags()).unwrap();
        assert_eq!(read & (IMMUTABLE | APPEND | NODUMP), NODUMP | APPEND);
    }
}

fn flags_are_seen_as_extended_flags(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let _guard = flag(&file, NODUMP | IMMUTABLE);
    let extended = wait(file.0.getfsxattr()).unwrap();
    assert_eq!(
        extended.xflags & (XFLAG_IMMUTABLE | XFLAG_NODUMP),
        XFLAG_IMMUTABLE | XFLAG_NODUMP
    );
}

fn extended_flags_are_seen_as_flags(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let mut extended = wait(file.0.getfsxattr()).unwrap();
    extended.xflags |= XFLAG_NODUMP;
    wait(file.0.setfsxattr(extended)).unwrap();
    assert_eq!(wait(file.0.getflags()).unwrap() & NODUMP, NODUMP);
}

fn unknown_flags_are_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let before = wait(file.0.getflags()).unwrap();
    refused(wait(file.0.setflags(before | 1 << 31)), Errno::OPNOTSUPP);
    assert_eq!(wait(file.0.getflags()).unwrap(), before);
}

fn flags_of_a_symbolic_link_are_refused(root: &Place) {
    let link = root.symlink("link", "target").unwrap();
    assert!(wait(link.0.getflags()).is_err());
    assert!(wait(link.0.setflags(NODUMP)).is_err());
}

fn an_immutable_file_is_not_written(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let _guard = flag(&file, IMMUTABLE);
    refused(file.open(OpenFlags::WRITE), Errno::PERM);
    refused(file.open(OpenFlags::WRITE | OpenFlags::APPEND), Errno::PERM);
    refused(file.truncate(0), Errno::PERM);
    assert_eq!(file.content().unwrap(), b"content");
}

fn an_immutable_file_keeps_its_attributes(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let _guard = flag(&file, IMMUTABLE);
    refused(file.chmod(0o600), Errno::PERM);
    refused(file.chown(0, 0), Errno::PERM);
    let times = |time| {
        file.set(AttributeChanges {
            accessed: Some(time),
            modified: Some(time),
            ..AttributeChanges::default()
        })
    };
    refused(times(SetTime::At(Timestamp::default())), Errno::PERM);
    refused(times(SetTime::Now), Errno::PERM);
    refused(file.setxattr("user.name", b"value"), Errno::PERM);
}

fn an_immutable_file_keeps_its_names(root: &Place) {
    let file = root.put("file", b"").unwrap();
    root.put("other", b"").unwrap();
    let _guard = flag(&file, IMMUTABLE);
    refused(root.unlink("file"), Errno::PERM);
    refused(root.rename("file", root, "moved"), Errno::PERM);
    refused(root.rename("other", root, "file"), Errno::PERM);
    refused(root.link(&file, "linked"), Errno::PERM);
    assert_eq!(root.names().unwrap(), ["file", "other"]);
}

fn an_immutable_file_can_be_read(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let _guard = flag(&file, IMMUTABLE);
    assert_eq!(file.content().unwrap(), b"content");
    assert_eq!(root.lookup("file").unwrap().identity(), file.identity());
}

fn an_immutable_file_refuses_handles_that_were_open(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    let _guard = flag(&file, IMMUTABLE);
    refused(handle.write(0, b"x"), Errno::PERM);
    refused(handle.fallocate(FallocateMode::empty(), 0, 10), Errno::PERM);
}

fn an_immutable_directory_keeps_its_entries(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.put("file", b"").unwrap();
    let _guard = flag(&dir, IMMUTABLE);
    refused(dir.create("new"), Errno::PERM);
    refused(dir.mkdir("new"), Errno::PERM);
    refused(dir.symlink("new", "target"), Errno::PERM);
    refused(dir.unlink("file"), Errno::PERM);
    refused(dir.rename("file", root, "moved"), Errno::PERM);
    refused(dir.create("file"), Errno::EXIST);
    // What the entries stand for is not the directory's.
    let file = dir.lookup("file").unwrap();
    file.open_both().unwrap().write_all(0, b"x").unwrap();
}

fn an_append_only_file_takes_appends_alone(root: &Place) {
    let file = root.put("file", b"begin").unwrap();
    let _guard = flag(&file, APPEND);
    refused(file.open(OpenFlags::WRITE), Errno::PERM);
    let flags = OpenFlags::WRITE | OpenFlags::APPEND;
    refused(file.open(flags | OpenFlags::TRUNCATE), Errno::PERM);
    refused(file.truncate(0), Errno::PERM);
    refused(file.chmod(0o600), Errno::PERM);
    let handle = file.open(flags).unwrap();
    handle.write_all(0, b" and end").unwrap();
    assert_eq!(file.content().unwrap(), b"begin and end");
}

fn an_append_only_file_grows_and_loses_nothing(root: &Place) {
    let file = root.put("file", b"begin").unwrap();
    let _guard = flag(&file, APPEND);
    let handle = file.open(OpenFlags::WRITE | OpenFlags::APPEND).unwrap();
    let punched = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
    for mode in [punched, FallocateMode::ZERO_RANGE] {
        refused(handle.fallocate(mode, 0, 5), Errno::PERM);
    }
    handle.fallocate(FallocateMode::KEEP_SIZE, 0, 10).unwrap();
    assert_eq!(file.content().unwrap(), b"begin");
    handle.fallocate(FallocateMode::empty(), 0, 8).unwrap();
    assert_eq!(file.content().unwrap(), b"begin\0\0\0");
}

fn an_append_only_file_keeps_its_names(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let _guard = flag(&file, APPEND);
    refused(root.unlink("file"), Errno::PERM);
    refused(root.rename("file", root, "moved"), Errno::PERM);
    refused(root.link(&file, "linked"), Errno::PERM);
}

fn an_append_only_directory_takes_new_entries_alone(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.put("file", b"").unwrap();
    let _guard = flag(&dir, APPEND);
    dir.put("new", b"").unwrap();
    refused(dir.unlink("file"), Errno::PERM);
    refused(dir.rename("file", root, "moved"), Errno::PERM);
    assert_eq!(dir.names().unwrap(), ["file", "new"]);
}

fn a_file_is_free_again_without_its_flags(root: &Place) {
    let file = root.put("file", b"").unwrap();
    drop(flag(&file, IMMUTABLE));
    file.open_both().unwrap().write_all(0, b"x").unwrap();
    root.unlink("file").unwrap();
}

fn new_files_inherit_nodump(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    let _guard = flag(&dir, NODUMP);
    for place in [dir.put("file", b"").unwrap(), dir.mkdir("sub").unwrap()] {
        assert_eq!(wait(place.0.getflags()).unwrap() & NODUMP, NODUMP);
    }
}
