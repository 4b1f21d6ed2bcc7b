//! Set-id bits and file capabilities, which go when content or owner change.

use vfsd_backend::{AttributeChanges, Errno, FallocateMode, OpenFlags, OpenRequest};

use super::{Row, refused, rows};
use crate::place::{Handle, Outcome, Place, superuser, wait, with_permissions};

pub(super) const ROWS: &[Row] = rows! {
    a_write_of_the_unprivileged_clears_set_id_bits needs KILL_PRIVILEGES,
    a_write_of_the_privileged_leaves_set_id_bits needs KILL_PRIVILEGES + PRIVILEGED,
    a_setgid_bit_without_group_execution_stays needs KILL_PRIVILEGES,
    each_change_of_content_takes_what_its_caller_loses_whatever_the_group needs KILL_PRIVILEGES + PRIVILEGED,
    an_allocation_clears_a_setgid_bit_without_group_execution needs KILL_PRIVILEGES + ALLOCATION + PRIVILEGED,
    a_truncation_of_the_unprivileged_clears_set_id_bits needs KILL_PRIVILEGES,
    a_truncation_of_the_privileged_leaves_set_id_bits needs KILL_PRIVILEGES + PRIVILEGED,
    an_open_with_truncation_of_the_unprivileged_clears_set_id_bits needs KILL_PRIVILEGES,
    a_creation_that_truncates_an_existing_file_clears_set_id_bits needs KILL_PRIVILEGES,
    an_allocation_clears_set_id_bits needs KILL_PRIVILEGES + ALLOCATION,
    an_allocation_of_the_privileged_leaves_set_id_bits needs KILL_PRIVILEGES + ALLOCATION + PRIVILEGED,
    a_copy_clears_set_id_bits needs KILL_PRIVILEGES + COPY_RANGE,
    a_copy_of_the_privileged_leaves_set_id_bits needs KILL_PRIVILEGES + COPY_RANGE + PRIVILEGED,
    a_change_of_owner_clears_set_id_bits needs KILL_PRIVILEGES + PRIVILEGED,
    a_change_of_group_clears_set_id_bits needs KILL_PRIVILEGES + PRIVILEGED,
    a_change_of_owner_leaves_a_setgid_bit_without_group_execution needs KILL_PRIVILEGES + PRIVILEGED,
    a_change_of_owner_of_a_directory_leaves_set_id_bits needs KILL_PRIVILEGES + PRIVILEGED,
    a_change_of_permissions_sets_set_id_bits_again needs KILL_PRIVILEGES,
    file_capabilities_are_kept needs KILL_PRIVILEGES + XATTR + PRIVILEGED,
    a_write_drops_file_capabilities needs KILL_PRIVILEGES + XATTR + PRIVILEGED,
    a_truncation_drops_file_capabilities needs KILL_PRIVILEGES + XATTR + PRIVILEGED,
    a_change_of_owner_drops_file_capabilities needs KILL_PRIVILEGES + XATTR + PRIVILEGED,
    an_allocation_drops_file_capabilities needs KILL_PRIVILEGES + XATTR + PRIVILEGED + ALLOCATION,
    a_copy_drops_file_capabilities needs KILL_PRIVILEGES + XATTR + PRIVILEGED + COPY_RANGE,
    a_change_of_permissions_leaves_file_capabilities needs KILL_PRIVILEGES + XATTR + PRIVILEGED,
};

const CAPABILITY: &str = "security.capability";
/// `struct vfs_cap_data` of revision 2: CAP_NET_RAW, permitted and effective.
const NET_RAW: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

fn program(root: &Place, permissions: u32) -> (Place, Handle) {
    let (file, handle) = root.create("program").unwrap();
    handle.write_all(0, b"content").unwrap();
    file.chmod(permissions).unwrap();
    (file, handle)
}

fn permissions(place: &Place) -> u32 {
    place.attributes().unwrap().permissions
}

fn truncate(place: &Place, size: u64, kill_privileges: bool) {
    place
        .set(AttributeChanges {
            size: Some(size),
            kill_privileges,
            ..AttributeChanges::default()
        })
        .unwrap();
}

fn a_write_of_the_unprivileged_clears_set_id_bits(root: &Place) {
    let (file, handle) = program(root, 0o6755);
    handle.write_with(0, b"x", true).unwrap();
    assert_eq!(permissions(&file), 0o755);
    assert_eq!(file.content().unwrap(), b"xontent");
}

fn a_write_of_the_privileged_leaves_set_id_bits(root: &Place) {
    let (file, handle) = program(root, 0o6755);
    handle.write_with(0, b"x", false).unwrap();
    assert_eq!(permissions(&file), 0o6755);
}

fn a_setgid_bit_without_group_execution_stays(root: &Place) {
    let (file, handle) = program(root, 0o6745);
    handle.write_with(0, b"x", true).unwrap();
    assert_eq!(permissions(&file), 0o2745);
}

/// Makes each change of content, but for fallocate, to a file of a group, and tells what it leaves of `before`.
fn left_by_each(
    root: &Place,
    group: u32,
    before: u32,
    kill_privileges: bool,
) -> Vec<(&'static str, u32)> {
    let (file, handle) = program(root, 0o644);
    file.chown(group, group).unwrap();
    let source = root.put("source", b"other").unwrap().open_both().unwrap();
    let open = || {
        let opened = wait(file.0.open(OpenRequest {
            flags: OpenFlags::WRITE | OpenFlags::TRUNCATE,
            kill_privileges,
        }));
        opened.map(drop)
    };
    let changes: [(&str, &dyn Fn() -> Outcome<()>); 4] = [
        ("write", &|| {
            handle.write_with(0, b"x", kill_privileges).map(drop)
        }),
        ("truncate", &|| {
            truncate(&file, 2, kill_privileges);
            Ok(())
        }),
        ("open", &open),
        ("copy", &|| {
            let copied = source.copy_range_with(0, &handle, 0, 5, kill_privileges);
            copied.map(drop)
        }),
    ];
    let mut left = Vec::new();
    for (what, change) in changes {
        file.chmod(before).unwrap();
        match change() {
            // Not every storage copies.
            Err(Errno::OPNOTSUPP) if what == "copy" => {}
            other => {
                other.unwrap();
                left.push((what, permissions(&file)));
            }
        }
    }
    root.unlink("program").unwrap();
    root.unlink("source").unwrap();
    left
}

fn each_change_of_content_takes_what_its_caller_loses_whatever_the_group(root: &Place) {
    for group in [0, 1000] {
        for (before, after) in [
            (0o6755, 0o755),
            (0o6745, 0o2745),
            (0o2644, 0o2644),
            (0o4711, 0o711),
            (0o2010, 0o010),
        ] {
            for (kill, expected) in [(true, after), (false, before)] {
                for (what, left) in left_by_each(root, group, before, kill) {
                    assert_eq!(
                        left, expected,
                        "{what}, group {group}, {before:o}, unprivileged: {kill}"
                    );
                }
            }
        }
    }
}

fn an_allocation_clears_a_setgid_bit_without_group_execution(root: &Place) {
    for group in [0, 1000] {
        let (file, handle) = program(root, 0o644);
        file.chown(group, group).unwrap();
        for before in [0o6745, 0o2644, 0o6666] {
            file.chmod(before).unwrap();
            handle.fallocate(FallocateMode::empty(), 0, 10_000).unwrap();
            assert_eq!(permissions(&file), before & 0o777, "group {group}");
        }
        root.unlink("program").unwrap();
    }
}

fn a_truncation_of_the_unprivileged_clears_set_id_bits(root: &Place) {
    let (file, _) = program(root, 0o6755);
    truncate(&file, 2, true);
    assert_eq!(permissions(&file), 0o755);
    assert_eq!(file.content().unwrap(), b"co");
}

fn a_truncation_of_the_privileged_leaves_set_id_bits(root: &Place) {
    let (file, _) = program(root, 0o6755);
    truncate(&file, 2, false);
    assert_eq!(permissions(&file), 0o6755);
}

fn an_open_with_truncation_of_the_unprivileged_clears_set_id_bits(root: &Place) {
    let (file, _) = program(root, 0o6755);
    let opened = wait(file.0.open(OpenRequest {
        flags: OpenFlags::WRITE | OpenFlags::TRUNCATE,
        kill_privileges: true,
    }));
    drop(opened.unwrap());
    assert_eq!(permissions(&file), 0o755);
    assert_eq!(file.attributes().unwrap().size, 0);
}

// A guest does not say here whether the caller is privileged: the bits go to be safe.

fn a_creation_that_truncates_an_existing_file_clears_set_id_bits(root: &Place) {
    let (file, _) = program(root, 0o6755);
    let flags = OpenFlags::WRITE | OpenFlags::TRUNCATE;
    root.create_as(superuser(), "program", flags, with_permissions(0o644))
        .unwrap();
    assert_eq!(permissions(&file), 0o755);
}

fn an_allocation_clears_set_id_bits(root: &Place) {
    let (file, handle) = program(root, 0o6755);
    handle.fallocate(FallocateMode::empty(), 0, 10_000).unwrap();
    assert_eq!(permissions(&file), 0o755);
}

fn an_allocation_of_the_privileged_leaves_set_id_bits(root: &Place) {
    let (file, handle) = program(root, 0o6755);
    handle
        .fallocate_with(FallocateMode::empty(), 0, 10_000, false)
        .unwrap();
    assert_eq!(permissions(&file), 0o6755);
}

fn a_copy_of_the_privileged_leaves_set_id_bits(root: &Place) {
    let source = root.put("source", b"other").unwrap().open_both().unwrap();
    let (file, handle) = program(root, 0o6755);
    assert_eq!(source.copy_range_with(0, &handle, 0, 5, false), Ok(5));
    assert_eq!(permissions(&file), 0o6755);
}

fn a_change_of_owner_leaves_a_setgid_bit_without_group_execution(root: &Place) {
    let (file, _) = program(root, 0o644);
    // A group that the daemon is not in.
    file.chown(1000, 1000).unwrap();
    file.chmod(0o6644).unwrap();
    file.set(AttributeChanges {
        uid: Some(1001),
        gid: Some(1001),
        kill_privileges: true,
        ..AttributeChanges::default()
    })
    .unwrap();
    assert_eq!(permissions(&file), 0o2644);
}

fn a_copy_clears_set_id_bits(root: &Place) {
    let source = root.put("source", b"other").unwrap().open_both().unwrap();
    let (file, handle) = program(root, 0o6755);
    assert_eq!(source.copy_range(0, &handle, 0, 5), Ok(5));
    assert_eq!(permissions(&file), 0o755);
}

fn a_change_of_owner_clears_set_id_bits(root: &Place) {
    let (file, _) = program(root, 0o6755);
    file.set(AttributeChanges {
        uid: Some(1000),
        kill_privileges: true,
        ..AttributeChanges::default()
    })
    .unwrap();
    assert_eq!(permissions(&file), 0o755);
}

fn a_change_of_group_clears_set_id_bits(root: &Place) {
    let (file, _) = program(root, 0o6755);
    file.set(AttributeChanges {
        gid: Some(1000),
        kill_privileges: true,
        ..AttributeChanges::default()
    })
    .unwrap();
    assert_eq!(permissions(&file), 0o755);
}

fn a_change_of_owner_of_a_directory_leaves_set_id_bits(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    dir.chmod(0o2755).unwrap();
    dir.chown(1000, 1000).unwrap();
    assert_eq!(permissions(&dir), 0o2755);
}

fn a_change_of_permissions_sets_set_id_bits_again(root: &Place) {
    let (file, handle) = program(root, 0o6755);
    handle.write_with(0, b"x", true).unwrap();
    file.chmod(0o6755).unwrap();
    assert_eq!(permissions(&file), 0o6755);
}

fn capable(root: &Place) -> (Place, Handle) {
    let (file, handle) = program(root, 0o755);
    file.setxattr(CAPABILITY, &NET_RAW).unwrap();
    (file, handle)
}

fn file_capabilities_are_kept(root: &Place) {
    let (file, handle) = capable(root);
    assert_eq!(file.getxattr(CAPABILITY).unwrap(), NET_RAW);
    handle.content().unwrap();
    root.rename("program", root, "moved").unwrap();
    assert_eq!(file.getxattr(CAPABILITY).unwrap(), NET_RAW);
}

fn a_write_drops_file_capabilities(root: &Place) {
    let (file, handle) = capable(root);
    handle.write_with(0, b"x", true).unwrap();
    refused(file.getxattr(CAPABILITY), Errno::NODATA);
}

fn a_truncation_drops_file_capabilities(root: &Place) {
    let (file, _) = capable(root);
    truncate(&file, 2, true);
    refused(file.getxattr(CAPABILITY), Errno::NODATA);
}

fn a_change_of_owner_drops_file_capabilities(root: &Place) {
    let (file, _) = capable(root);
    file.set(AttributeChanges {
        uid: Some(1000),
        kill_privileges: true,
        ..AttributeChanges::default()
    })
    .unwrap();
    refused(file.getxattr(CAPABILITY), Errno::NODATA);
}

fn an_allocation_drops_file_capabilities(root: &Place) {
    let (file, handle) = capable(root);
    handle.fallocate(FallocateMode::empty(), 0, 10_000).unwrap();
    refused(file.getxattr(CAPABILITY), Errno::NODATA);
}

fn a_copy_drops_file_capabilities(root: &Place) {
    let source = root.put("source", b"other").unwrap().open_both().unwrap();
    let (file, handle) = capable(root);
    assert_eq!(source.copy_range(0, &handle, 0, 5), Ok(5));
    refused(file.getxattr(CAPABILITY), Errno::NODATA);
}

fn a_change_of_permissions_leaves_file_capabilities(root: &Place) {
    let (file, _) = capable(root);
    file.chmod(0o700).unwrap();
    assert_eq!(file.getxattr(CAPABILITY).unwrap(), NET_RAW);
}
