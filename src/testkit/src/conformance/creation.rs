//! New files and directories.

use vfsd_backend::{
    Caller, Device, Errno, FileKind, Identity, LinkTarget, Name, NewInode, OpenFlags,
    SecurityContext, XattrName,
};

use super::{Row, refused, rows};
use crate::place::{Place, caller, superuser, wait, with_permissions};

pub(super) const ROWS: &[Row] = rows! {
    a_new_file_is_empty_and_has_one_name,
    a_new_directory_is_empty,
    a_new_file_has_the_permissions_asked_for,
    a_new_file_belongs_to_the_caller needs PRIVILEGED,
    a_new_directory_belongs_to_the_caller needs PRIVILEGED,
    a_new_symbolic_link_belongs_to_the_caller needs PRIVILEGED,
    a_caller_without_an_identity_can_create,
    a_new_file_in_a_setgid_directory_belongs_to_its_group needs PRIVILEGED,
    a_new_directory_in_a_setgid_directory_is_setgid_too needs PRIVILEGED,
    a_stranger_makes_no_setgid_programs_in_a_setgid_directory needs PRIVILEGED,
    a_member_by_supplementary_group_makes_setgid_programs needs PRIVILEGED,
    mkdir_takes_no_set_id_bits,
    mkdir_takes_the_sticky_bit,
    the_umask_takes_permissions_away needs ACL,
    the_umask_of_mkdir_takes_permissions_away needs ACL,
    exclusive_creation_of_an_existing_name_is_refused,
    creation_of_an_existing_file_opens_it,
    creation_with_truncation_empties_an_existing_file,
    creation_of_a_name_that_is_a_directory_is_refused,
    creation_in_a_file_is_refused,
    creation_in_a_removed_directory_is_refused,
    a_file_created_without_permissions_can_be_written_by_its_creator,
    mkdir_of_an_existing_name_is_refused,
    mkdir_in_a_removed_directory_is_refused,
    symlink_of_an_existing_name_is_refused,
    mknod_of_an_existing_name_is_refused needs SPECIAL_FILES,
    a_symbolic_link_keeps_its_target,
    a_symbolic_link_may_point_to_nothing,
    the_longest_target_of_a_symbolic_link_works,
    a_symbolic_link_grants_all_permissions,
    readlink_of_a_file_is_refused,
    mknod_makes_a_regular_file,
    mknod_makes_fifos_and_sockets needs SPECIAL_FILES,
    mknod_makes_devices_with_their_numbers needs DEVICE_NODES,
    mknod_makes_a_whiteout needs WHITEOUT,
    special_files_are_not_opened needs SPECIAL_FILES,
    a_subdirectory_counts_as_a_link_of_its_parent needs DIRECTORY_LINKS,
    the_answer_to_a_creation_tells_the_attributes needs BIRTH_TIME_IN_ENTRIES,
    a_label_is_there_with_a_new_file needs LABELS + PRIVILEGED,
};

fn both() -> OpenFlags {
    OpenFlags::READ | OpenFlags::WRITE
}

/// A directory where everyone may create, with a group of its own.
fn shared_directory(root: &Place, permissions: u32) -> Place {
    root.chmod(0o755).unwrap();
    let dir = root.mkdir("shared").unwrap();
    dir.chown(0, 500).unwrap();
    dir.chmod(permissions).unwrap();
    dir
}

fn a_new_file_is_empty_and_has_one_name(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    let attributes = file.attributes().unwrap();
    assert_eq!(attributes.kind, FileKind::Regular);
    assert_eq!(file.0.kind(), FileKind::Regular);
    assert_eq!((attributes.size, attributes.links), (0, 1));
    assert_eq!(handle.content().unwrap(), b"");
}

fn a_new_directory_is_empty(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    assert_eq!(dir.attributes().unwrap().kind, FileKind::Directory);
    assert_eq!(dir.names().unwrap(), [""; 0]);
}

fn a_new_file_has_the_permissions_asked_for(root: &Place) {
    for permissions in [0o600, 0o000, 0o777, 0o4755, 0o2755, 0o1644] {
        let name = format!("file{permissions:o}");
        let flags = both() | OpenFlags::EXCLUSIVE;
        let inode = with_permissions(permissions);
        let (file, _) = root.create_as(superuser(), &name, flags, inode).unwrap();
        assert_eq!(file.attributes().unwrap().permissions, permissions);
    }
}

fn a_new_file_belongs_to_the_caller(root: &Place) {
    let dir = shared_directory(root, 0o777);
    let (file, _) = dir
        .create_as(caller(1000, 1001), "file", both(), with_permissions(0o644))
        .unwrap();
    let attributes = file.attributes().unwrap();
    assert_eq!((attributes.uid, attributes.gid), (1000, 1001));
}

fn a_new_directory_belongs_to_the_caller(root: &Place) {
    let dir = shared_directory(root, 0o777);
    let made = dir
        .mkdir_as(caller(1000, 1001), "dir", with_permissions(0o755))
        .unwrap();
    let attributes = made.attributes().unwrap();
    assert_eq!((attributes.uid, attributes.gid), (1000, 1001));
}

fn a_new_symbolic_link_belongs_to_the_caller(root: &Place) {
    let dir = shared_directory(root, 0o777);
    let target = LinkTarget::new(b"target").unwrap();
    let name = Name::new(b"link").unwrap();
    let inode = with_permissions(0o777);
    let made = wait(dir.0.symlink(caller(1000, 1001), name, target, inode)).unwrap();
    assert_eq!((made.attributes.uid, made.attributes.gid), (1000, 1001));
}

fn a_caller_without_an_identity_can_create(root: &Place) {
    let nobody = Caller {
        identity: None,
        pid: 0,
    };
    root.mkdir_as(nobody, "dir", with_permissions(0o700))
        .unwrap();
    assert!(root.has("dir"));
}

fn a_new_file_in_a_setgid_directory_belongs_to_its_group(root: &Place) {
    let dir = shared_directory(root, 0o2777);
    let (file, _) = dir
        .create_as(caller(1000, 1001), "file", both(), with_permissions(0o644))
        .unwrap();
    let attributes = file.attributes().unwrap();
    assert_eq!((attributes.uid, attributes.gid), (1000, 500));
    assert_eq!(attributes.permissions, 0o644);
}

fn a_new_directory_in_a_setgid_directory_is_setgid_too(root: &Place) {
    let dir = shared_directory(root, 0o2777);
    let made = dir
        .mkdir_as(caller(1000, 1001), "dir", with_permissions(0o755))
        .unwrap();
    let attributes = made.attributes().unwrap();
    assert_eq!((attributes.gid, attributes.permissions), (500, 0o2755));
}

fn a_stranger_makes_no_setgid_programs_in_a_setgid_directory(root: &Place) {
    let dir = shared_directory(root, 0o2777);
    let stranger = caller(1000, 1001);
    let permissions = |name: &str, asked: u32| {
        let inode = with_permissions(asked);
        let (file, _) = dir.create_as(stranger, name, both(), inode).unwrap();
        file.attributes().unwrap().permissions
    };
    assert_eq!(permissions("program", 0o2755), 0o755);
    assert_eq!(permissions("no-program", 0o2644), 0o2644);
}

fn a_member_by_supplementary_group_makes_setgid_programs(root: &Place) {
    let dir = shared_directory(root, 0o2777);
    let member = Caller {
        identity: Some(Identity {
            uid: 1000,
            gid: 1001,
            supplementary: Some(500),
        }),
        pid: 1,
    };
    let inode = with_permissions(0o2755);
    let (file, _) = dir.create_as(member, "program", both(), inode).unwrap();
    assert_eq!(file.attributes().unwrap().permissions, 0o2755);
}

fn mkdir_takes_no_set_id_bits(root: &Place) {
    let dir = root
        .mkdir_as(superuser(), "dir", with_permissions(0o6755))
        .unwrap();
    assert_eq!(dir.attributes().unwrap().permissions, 0o755);
}

fn mkdir_takes_the_sticky_bit(root: &Place) {
    let dir = root
        .mkdir_as(superuser(), "dir", with_permissions(0o1777))
        .unwrap();
    assert_eq!(dir.attributes().unwrap().permissions, 0o1777);
}

fn masked(permissions: u32, umask: u32) -> NewInode<'static> {
    NewInode {
        umask,
        ..with_permissions(permissions)
    }
}

fn the_umask_takes_permissions_away(root: &Place) {
    let (file, _) = root
        .create_as(superuser(), "file", both(), masked(0o666, 0o027))
        .unwrap();
    assert_eq!(file.attributes().unwrap().permissions, 0o640);
}

fn the_umask_of_mkdir_takes_permissions_away(root: &Place) {
    let dir = root
        .mkdir_as(superuser(), "dir", masked(0o777, 0o077))
        .unwrap();
    assert_eq!(dir.attributes().unwrap().permissions, 0o700);
}

fn exclusive_creation_of_an_existing_name_is_refused(root: &Place) {
    root.put("file", b"content").unwrap();
    root.mkdir("dir").unwrap();
    root.symlink("link", "nothing").unwrap();
    for name in ["file", "dir", "link"] {
        refused(root.create(name), Errno::EXIST);
    }
    let file = root.lookup("file").unwrap();
    assert_eq!(file.content().unwrap(), b"content");
}

fn creation_of_an_existing_file_opens_it(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    file.chmod(0o640).unwrap();
    let (found, handle) = root
        .create_as(superuser(), "file", both(), with_permissions(0o777))
        .unwrap();
    assert_eq!(found.identity(), file.identity());
    assert_eq!(handle.content().unwrap(), b"content");
    assert_eq!(file.attributes().unwrap().permissions, 0o640);
}

fn creation_with_truncation_empties_an_existing_file(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let flags = both() | OpenFlags::TRUNCATE;
    root.create_as(superuser(), "file", flags, with_permissions(0o644))
        .unwrap();
    assert_eq!(file.attributes().unwrap().size, 0);
}

fn creation_of_a_name_that_is_a_directory_is_refused(root: &Place) {
    root.mkdir("dir").unwrap();
    let made = root.create_as(superuser(), "dir", both(), with_permissions(0o644));
    refused(made, Errno::ISDIR);
}

fn creation_in_a_file_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.create("name"), Errno::NOTDIR);
    refused(file.mkdir("name"), Errno::NOTDIR);
    refused(file.symlink("name", "target"), Errno::NOTDIR);
}

fn creation_in_a_removed_directory_is_refused(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    root.rmdir("dir").unwrap();
    refused(dir.create("name"), Errno::NOENT);
}

fn a_file_created_without_permissions_can_be_written_by_its_creator(root: &Place) {
    let flags = both() | OpenFlags::EXCLUSIVE;
    let (_, handle) = root
        .create_as(superuser(), "file", flags, with_permissions(0))
        .unwrap();
    handle.write_all(0, b"x").unwrap();
    assert_eq!(handle.content().unwrap(), b"x");
}

fn mkdir_of_an_existing_name_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    root.mkdir("dir").unwrap();
    root.symlink("link", "nothing").unwrap();
    for name in ["file", "dir", "link"] {
        refused(root.mkdir(name), Errno::EXIST);
    }
}

fn mkdir_in_a_removed_directory_is_refused(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    root.rmdir("dir").unwrap();
    refused(dir.mkdir("name"), Errno::NOENT);
    refused(dir.symlink("name", "target"), Errno::NOENT);
}

fn symlink_of_an_existing_name_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    root.mkdir("dir").unwrap();
    refused(root.symlink("file", "target"), Errno::EXIST);
    refused(root.symlink("dir", "target"), Errno::EXIST);
}

fn mknod_of_an_existing_name_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    let made = root.mknod("file", FileKind::Fifo, Device::default());
    refused(made, Errno::EXIST);
}

fn a_symbolic_link_keeps_its_target(root: &Place) {
    for (name, target) in [("a", "/etc/passwd"), ("b", "../.."), ("c", "x//y/./z")] {
        let link = root.symlink(name, target).unwrap();
        assert_eq!(link.readlink().unwrap(), target.as_bytes());
        let attributes = link.attributes().unwrap();
        assert_eq!(attributes.kind, FileKind::Symlink);
        assert_eq!(attributes.size, u64::try_from(target.len()).unwrap());
    }
}

fn a_symbolic_link_may_point_to_nothing(root: &Place) {
    root.symlink("link", "nothing").unwrap();
    let link = root.lookup("link").unwrap();
    assert_eq!(link.0.kind(), FileKind::Symlink);
    assert_eq!(link.readlink().unwrap(), b"nothing");
}

fn the_longest_target_of_a_symbolic_link_works(root: &Place) {
    let target = "t".repeat(LinkTarget::MAX);
    let link = root.symlink("link", &target).unwrap();
    assert_eq!(link.readlink().unwrap(), target.as_bytes());
}

fn a_symbolic_link_grants_all_permissions(root: &Place) {
    let link = root.symlink("link", "target").unwrap();
    assert_eq!(link.attributes().unwrap().permissions, 0o777);
}

fn readlink_of_a_file_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.readlink(), Errno::INVAL);
    refused(root.readlink(), Errno::INVAL);
}

fn mknod_makes_a_regular_file(root: &Place) {
    let file = root
        .mknod("file", FileKind::Regular, Device::default())
        .unwrap();
    assert_eq!(file.attributes().unwrap().kind, FileKind::Regular);
    file.open_both().unwrap().write_all(0, b"x").unwrap();
    assert_eq!(file.content().unwrap(), b"x");
}

fn mknod_makes_fifos_and_sockets(root: &Place) {
    for (name, kind) in [("fifo", FileKind::Fifo), ("socket", FileKind::Socket)] {
        let node = root.mknod(name, kind, Device::default()).unwrap();
        let attributes = node.attributes().unwrap();
        assert_eq!((node.0.kind(), attributes.kind), (kind, kind));
        assert_eq!((attributes.permissions, attributes.size), (0o644, 0));
    }
}

fn mknod_makes_devices_with_their_numbers(root: &Place) {
    let devices = [
        ("null", FileKind::CharDevice, 1, 3),
        ("disk", FileKind::BlockDevice, 259, 70_000),
    ];
    for (name, kind, major, minor) in devices {
        let device = Device { major, minor };
        let node = root.mknod(name, kind, device).unwrap();
        let attributes = node.attributes().unwrap();
        assert_eq!((attributes.kind, attributes.device), (kind, device));
    }
}

fn mknod_makes_a_whiteout(root: &Place) {
    let none = Device::default();
    let node = root.mknod("whiteout", FileKind::CharDevice, none).unwrap();
    let attributes = node.attributes().unwrap();
    let shown = (attributes.kind, attributes.device);
    assert_eq!(shown, (FileKind::CharDevice, none));
}

fn special_files_are_not_opened(root: &Place) {
    let fifo = root
        .mknod("fifo", FileKind::Fifo, Device::default())
        .unwrap();
    refused(fifo.open(OpenFlags::READ), Errno::BADF);
    let socket = root
        .mknod("socket", FileKind::Socket, Device::default())
        .unwrap();
    refused(socket.open(both()), Errno::BADF);
}

fn a_subdirectory_counts_as_a_link_of_its_parent(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    assert_eq!(dir.attributes().unwrap().links, 2);
    dir.mkdir("sub").unwrap();
    dir.put("file", b"").unwrap();
    assert_eq!(dir.attributes().unwrap().links, 3);
}

fn the_answer_to_a_creation_tells_the_attributes(root: &Place) {
    let name = Name::new(b"file").unwrap();
    let inode = with_permissions(0o604);
    let created = wait(root.0.create(superuser(), name, both(), inode)).unwrap();
    let file = Place(created.entry.node);
    assert_eq!(created.entry.attributes, file.attributes().unwrap());
    let name = Name::new(b"dir").unwrap();
    let made = wait(root.0.mkdir(superuser(), name, with_permissions(0o705))).unwrap();
    assert_eq!(made.attributes, Place(made.node).attributes().unwrap());
}

fn a_label_is_there_with_a_new_file(root: &Place) {
    let label = b"system_u:object_r:tmp_t:s0\0";
    let inode = NewInode {
        security: Some(SecurityContext {
            name: XattrName::new(b"security.vfsd_test").unwrap(),
            value: label,
        }),
        ..with_permissions(0o644)
    };
    let (file, _) = root.create_as(superuser(), "file", both(), inode).unwrap();
    assert_eq!(file.getxattr("security.vfsd_test").unwrap(), label);
    let dir = root.mkdir_as(superuser(), "dir", inode).unwrap();
    assert_eq!(dir.getxattr("security.vfsd_test").unwrap(), label);
}
