//! Attributes and their changes.

use vfsd_backend::{
    AttributeChanges, Attributes, Device, Errno, FileKind, OpenFlags, SetTime, Timestamp,
};

use super::{Row, let_time_pass, refused, rows};
use crate::place::{Outcome, Place};

pub(super) const ROWS: &[Row] = rows! {
    chmod_sets_the_permissions,
    chmod_sets_set_id_and_sticky_bits,
    chmod_of_a_symbolic_link_is_refused,
    chown_sets_owner_and_group needs PRIVILEGED,
    chown_of_the_owner_alone_leaves_the_group needs PRIVILEGED,
    chown_of_a_symbolic_link_does_not_follow_it needs PRIVILEGED,
    setattr_answers_the_new_attributes needs BIRTH_TIME_IN_ENTRIES,
    setattr_without_changes_changes_nothing needs BIRTH_TIME_IN_ENTRIES,
    several_attributes_change_at_once,
    an_open_file_tells_and_changes_its_attributes,
    truncation_through_a_read_only_handle_is_refused,
    truncation_cuts_the_content,
    truncation_extends_with_zeros,
    what_was_cut_does_not_come_back,
    truncation_of_a_directory_is_refused,
    truncation_of_a_symbolic_link_is_refused,
    truncation_of_a_fifo_is_refused needs SPECIAL_FILES,
    truncation_over_the_largest_size_is_refused needs EXT4_LIMITS,
    a_refused_change_changes_nothing,
    times_are_kept_with_nanoseconds,
    times_before_1970_are_kept,
    times_after_2038_are_kept,
    one_time_can_be_set_alone,
    times_can_be_set_to_now,
    times_of_a_symbolic_link_can_be_set,
    times_of_a_special_file_can_be_set needs SPECIAL_FILES,
    a_change_of_attributes_moves_only_the_change_time,
    truncation_moves_modification_and_change_time,
    truncation_to_the_same_size_moves_the_modification_time,
    a_write_moves_modification_and_change_time,
    a_read_of_changed_content_moves_the_access_time needs RELATIME,
    a_second_read_leaves_the_access_time needs RELATIME,
    a_read_with_noatime_leaves_the_access_time needs RELATIME + PRIVILEGED,
    a_listing_moves_the_access_time_of_the_directory needs RELATIME,
    a_readlink_moves_the_access_time needs RELATIME,
    creation_moves_the_times_of_the_directory,
    a_new_file_has_the_present_time,
    the_time_of_creation_stays needs BIRTH_TIME,
    allocated_blocks_follow_the_content,
    inode_numbers_stay_and_are_unique,
};

fn long_ago() -> Timestamp {
    Timestamp::new(1_000_000, 0).unwrap()
}

fn set_times(place: &Place, accessed: SetTime, modified: SetTime) -> Outcome<Attributes> {
    place.set(AttributeChanges {
        accessed: Some(accessed),
        modified: Some(modified),
        ..AttributeChanges::default()
    })
}

/// Makes the times of content old, so that any change of them is seen.
fn age(place: &Place) -> Attributes {
    set_times(place, SetTime::At(long_ago()), SetTime::At(long_ago())).unwrap()
}

fn chmod_sets_the_permissions(root: &Place) {
    let file = root.put("file", b"").unwrap();
    for permissions in [0o000, 0o640, 0o777] {
        assert_eq!(file.chmod(permissions).unwrap().permissions, permissions);
        assert_eq!(file.attributes().unwrap().permissions, permissions);
    }
    root.mkdir("dir").unwrap().chmod(0o700).unwrap();
    let dir = root.lookup("dir").unwrap();
    assert_eq!(dir.attributes().unwrap().permissions, 0o700);
}

fn chmod_sets_set_id_and_sticky_bits(root: &Place) {
    let file = root.put("file", b"").unwrap();
    assert_eq!(file.chmod(0o7755).unwrap().permissions, 0o7755);
    let dir = root.mkdir("dir").unwrap();
    assert_eq!(dir.chmod(0o3777).unwrap().permissions, 0o3777);
    assert_eq!(dir.chmod(0o755).unwrap().permissions, 0o755);
}

fn chmod_of_a_symbolic_link_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    let link = root.symlink("link", "file").unwrap();
    refused(link.chmod(0o600), Errno::OPNOTSUPP);
    let file = root.lookup("file").unwrap();
    assert_eq!(file.attributes().unwrap().permissions, 0o644);
}

fn chown_sets_owner_and_group(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let attributes = file.chown(1234, 70_000).unwrap();
    assert_eq!((attributes.uid, attributes.gid), (1234, 70_000));
}

fn chown_of_the_owner_alone_leaves_the_group(root: &Place) {
    let file = root.put("file", b"").unwrap();
    file.chown(1, 2).unwrap();
    let attributes = file
        .set(AttributeChanges {
            uid: Some(3),
            ..AttributeChanges::default()
        })
        .unwrap();
    assert_eq!((attributes.uid, attributes.gid), (3, 2));
}

fn chown_of_a_symbolic_link_does_not_follow_it(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let before = file.attributes().unwrap();
    let link = root.symlink("link", "file").unwrap();
    let attributes = link.chown(7, 8).unwrap();
    assert_eq!((attributes.uid, attributes.gid), (7, 8));
    assert_eq!(file.attributes().unwrap().uid, before.uid);
}

fn setattr_answers_the_new_attributes(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let answered = file.truncate(3).unwrap();
    assert_eq!(answered.size, 3);
    assert_eq!(answered, file.attributes().unwrap());
}

fn setattr_without_changes_changes_nothing(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let before = file.attributes().unwrap();
    let_time_pass();
    assert_eq!(file.set(AttributeChanges::default()).unwrap(), before);
}

fn several_attributes_change_at_once(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let attributes = file
        .set(AttributeChanges {
            permissions: Some(0o600),
            size: Some(2),
            modified: Some(SetTime::At(long_ago())),
            ..AttributeChanges::default()
        })
        .unwrap();
    assert_eq!(attributes.permissions, 0o600);
    assert_eq!(attributes.size, 2);
    assert_eq!(attributes.modified, long_ago());
}

fn an_open_file_tells_and_changes_its_attributes(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    handle.write_all(0, b"content").unwrap();
    let told = match handle.attributes() {
        // The server asks the node then.
        Err(Errno::OPNOTSUPP) => return,
        told => told.unwrap(),
    };
    assert_eq!(told, file.attributes().unwrap());
    handle.truncate(2).unwrap();
    assert_eq!(file.attributes().unwrap().size, 2);
}

fn truncation_through_a_read_only_handle_is_refused(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let handle = file.open(OpenFlags::READ).unwrap();
    assert!(handle.truncate(0).is_err());
    assert_eq!(file.content().unwrap(), b"content");
}

fn truncation_cuts_the_content(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    file.truncate(4).unwrap();
    assert_eq!(file.content().unwrap(), b"cont");
    file.truncate(0).unwrap();
    assert_eq!(file.content().unwrap(), b"");
}

fn truncation_extends_with_zeros(root: &Place) {
    let file = root.put("file", b"abc").unwrap();
    file.truncate(10_000).unwrap();
    let content = file.content().unwrap();
    assert_eq!(content.len(), 10_000);
    assert_eq!(&content[..3], b"abc");
    assert!(content[3..].iter().all(|&byte| byte == 0));
}

fn what_was_cut_does_not_come_back(root: &Place) {
    let file = root.put("file", &[7; 9000]).unwrap();
    file.truncate(4100).unwrap();
    file.truncate(9000).unwrap();
    let content = file.content().unwrap();
    assert!(content[..4100].iter().all(|&byte| byte == 7));
    assert!(content[4100..].iter().all(|&byte| byte == 0));
}

fn truncation_of_a_directory_is_refused(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    refused(dir.truncate(0), Errno::ISDIR);
}

fn truncation_of_a_symbolic_link_is_refused(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let link = root.symlink("link", "file").unwrap();
    assert!(link.truncate(0).is_err());
    assert_eq!(file.content().unwrap(), b"content");
}

fn truncation_of_a_fifo_is_refused(root: &Place) {
    let fifo = root
        .mknod("fifo", FileKind::Fifo, Device::default())
        .unwrap();
    assert!(fifo.truncate(0).is_err());
}

fn truncation_over_the_largest_size_is_refused(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    refused(file.truncate(i64::MAX.unsigned_abs()), Errno::FBIG);
    let largest = 0xffff_ffff * 4096;
    refused(file.truncate(largest + 1), Errno::FBIG);
    assert_eq!(file.truncate(largest).unwrap().size, largest);
    let handle = file.open_both().unwrap();
    refused(handle.write(largest, b"x"), Errno::FBIG);
    assert_eq!(handle.write(largest - 1, b"xy"), Ok(1));
}

fn a_refused_change_changes_nothing(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    let before = dir.attributes().unwrap();
    let changed = dir.set(AttributeChanges {
        permissions: Some(0o700),
        size: Some(0),
        modified: Some(SetTime::At(long_ago())),
        ..AttributeChanges::default()
    });
    refused(changed, Errno::ISDIR);
    assert_eq!(dir.attributes().unwrap(), before);
}

fn times_are_kept_with_nanoseconds(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let accessed = Timestamp::new(1_700_000_000, 123_456_789).unwrap();
    let modified = Timestamp::new(1_600_000_000, 999_999_999).unwrap();
    set_times(&file, SetTime::At(accessed), SetTime::At(modified)).unwrap();
    let attributes = file.attributes().unwrap();
    assert_eq!(attributes.accessed, accessed);
    assert_eq!(attributes.modified, modified);
}

fn times_before_1970_are_kept(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let early = Timestamp::new(-1_000_000, 5).unwrap();
    let attributes = set_times(&file, SetTime::At(early), SetTime::At(early)).unwrap();
    assert_eq!(attributes.modified, early);
}

fn times_after_2038_are_kept(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let late = Timestamp::new(1 << 32, 0).unwrap();
    let attributes = set_times(&file, SetTime::At(late), SetTime::At(late)).unwrap();
    assert_eq!((attributes.accessed, attributes.modified), (late, late));
}

fn one_time_can_be_set_alone(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let before = file.attributes().unwrap();
    file.set(AttributeChanges {
        accessed: Some(SetTime::At(long_ago())),
        ..AttributeChanges::default()
    })
    .unwrap();
    let attributes = file.attributes().unwrap();
    assert_eq!(attributes.accessed, long_ago());
    assert_eq!(attributes.modified, before.modified);
}

fn times_can_be_set_to_now(root: &Place) {
    let file = root.put("file", b"").unwrap();
    age(&file);
    let attributes = set_times(&file, SetTime::Now, SetTime::Now).unwrap();
    assert!(attributes.accessed > long_ago());
    assert!(attributes.modified > long_ago());
}

fn times_of_a_symbolic_link_can_be_set(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let link = root.symlink("link", "file").unwrap();
    age(&link);
    assert_eq!(link.attributes().unwrap().modified, long_ago());
    assert!(file.attributes().unwrap().modified > long_ago());
}

fn times_of_a_special_file_can_be_set(root: &Place) {
    let fifo = root
        .mknod("fifo", FileKind::Fifo, Device::default())
        .unwrap();
    age(&fifo);
    assert_eq!(fifo.attributes().unwrap().modified, long_ago());
    assert_eq!(fifo.chmod(0o600).unwrap().permissions, 0o600);
}

fn a_change_of_attributes_moves_only_the_change_time(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let before = file.attributes().unwrap();
    let_time_pass();
    let after = file.chmod(0o600).unwrap();
    assert!(after.changed > before.changed);
    assert_eq!(after.modified, before.modified);
    assert_eq!(after.accessed, before.accessed);
}

fn truncation_moves_modification_and_change_time(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    for size in [3, 100] {
        let before = age(&file);
        let_time_pass();
        let after = file.truncate(size).unwrap();
        assert!(after.modified > before.modified);
        assert!(after.changed > before.changed);
    }
}

fn truncation_to_the_same_size_moves_the_modification_time(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let before = age(&file);
    let after = file.truncate(7).unwrap();
    assert!(after.modified > before.modified);
}

fn a_write_moves_modification_and_change_time(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let handle = file.open_both().unwrap();
    let before = age(&file);
    let_time_pass();
    handle.write_all(2, b"x").unwrap();
    let after = file.attributes().unwrap();
    assert!(after.modified > before.modified);
    assert!(after.changed > before.changed);
    assert_eq!(after.accessed, before.accessed);
}

fn a_read_of_changed_content_moves_the_access_time(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    age(&file);
    file.content().unwrap();
    assert!(file.attributes().unwrap().accessed > long_ago());
}

fn a_second_read_leaves_the_access_time(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let_time_pass();
    file.content().unwrap();
    let first = file.attributes().unwrap().accessed;
    let_time_pass();
    file.content().unwrap();
    assert_eq!(file.attributes().unwrap().accessed, first);
}

fn a_read_with_noatime_leaves_the_access_time(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    age(&file);
    let handle = file.open(OpenFlags::READ | OpenFlags::NOATIME).unwrap();
    assert_eq!(handle.content().unwrap(), b"content");
    assert_eq!(file.attributes().unwrap().accessed, long_ago());
}

fn a_listing_moves_the_access_time_of_the_directory(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    age(&dir);
    dir.list().unwrap();
    assert!(dir.attributes().unwrap().accessed > long_ago());
}

fn a_readlink_moves_the_access_time(root: &Place) {
    let link = root.symlink("link", "target").unwrap();
    age(&link);
    link.readlink().unwrap();
    assert!(link.attributes().unwrap().accessed > long_ago());
}

fn creation_moves_the_times_of_the_directory(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    for what in ["create", "mkdir", "symlink"] {
        let before = age(&dir);
        let_time_pass();
        match what {
            "create" => dir.put("file", b""),
            "mkdir" => dir.mkdir("sub"),
            _ => dir.symlink("link", "target"),
        }
        .unwrap();
        let after = dir.attributes().unwrap();
        assert!(after.modified > before.modified, "{what}");
        assert!(after.changed > before.changed, "{what}");
    }
}

fn a_new_file_has_the_present_time(root: &Place) {
    // The clock of a file system may be some milliseconds behind.
    let begin = Timestamp::now().seconds - 1;
    let file = root.put("file", b"").unwrap();
    let attributes = file.attributes().unwrap();
    let end = Timestamp::now().seconds;
    for time in [attributes.accessed, attributes.modified, attributes.changed] {
        assert!((begin..=end).contains(&time.seconds));
    }
}

fn the_time_of_creation_stays(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let born = file.attributes().unwrap().born.unwrap();
    let_time_pass();
    file.open_both().unwrap().write_all(0, b"x").unwrap();
    file.chmod(0o600).unwrap();
    root.rename("file", root, "other").unwrap();
    let after = file.attributes().unwrap();
    assert_eq!(after.born, Some(born));
    assert!(after.modified > born);
}

fn allocated_blocks_follow_the_content(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    assert_eq!(file.attributes().unwrap().blocks, 0);
    handle.write_all(0, &[1; 65_536]).unwrap();
    handle.fsync().unwrap();
    assert!(file.attributes().unwrap().blocks >= 128);
    file.truncate(0).unwrap();
    assert_eq!(file.attributes().unwrap().blocks, 0);
}

fn inode_numbers_stay_and_are_unique(root: &Place) {
    let one = root.put("one", b"").unwrap();
    let two = root.mkdir("two").unwrap();
    let number = |place: &Place| place.attributes().unwrap().inode;
    assert_ne!(number(&one), number(&two));
    assert_ne!(number(&one), number(root));
    let before = number(&one);
    root.rename("one", &two, "moved").unwrap();
    assert_eq!(number(&two.lookup("moved").unwrap()), before);
}
