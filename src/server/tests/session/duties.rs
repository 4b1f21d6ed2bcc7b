//! What was agreed because of one export holds on another whose backend does none of it.

use std::sync::{Arc, Mutex};

use vfsd_backend::{
    Answer, AttributeChanges, Attributes, Backend, Caller, Capabilities, CopyRange, Created,
    Device, Entry, Errno, FallocateRequest, File, FileCaching, FileKind, Lookup, Name, NewInode,
    Node, NodeIdentity, OpenFlags, OpenRequest, Opened, ReadRequest, ReadSink, Timestamp, Ttl,
    WriteRequest, WriteSource, XattrName,
};
use vfsd_fuse::wire::{
    AttrOut, CopyFileRangeIn, FallocateIn, HandleId, NodeId, OPEN_KILL_SUIDGID, OpenIn, OpenOut,
    SetattrIn, WRITE_KILL_SUIDGID, WriteIn, fattr,
};
use vfsd_fuse::{InitFlags, Opcode};
use vfsd_passthrough::{Options, Passthrough};
use vfsd_server::{Export, Exports, Offer, SessionOptions};
use zerocopy::{FromZeros, IntoBytes};

use crate::guest::{Guest, structure};

const O_WRONLY: u32 = 1;
const O_TRUNC: u32 = 0o1000;
/// The length of the file at first.
const LENGTH: u64 = 5;
/// Who may not keep set-id bits.
const SOMEBODY: u32 = 1000;

/// A backend with one file, which does what it is asked and nothing besides.
#[derive(Clone)]
struct Bare(Arc<Mutex<State>>);

struct State {
    permissions: u32,
    size: u64,
    uid: u32,
    /// It has file capabilities.
    capability: bool,
}

/// The directory with the file, or the file.
struct Thing(Bare, FileKind);

impl Bare {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            permissions: 0o6755,
            size: LENGTH,
            uid: 0,
            capability: true,
        })))
    }

    fn entry(&self) -> Entry {
        let file = Thing(self.clone(), FileKind::Regular);
        Entry {
            attributes: file.attributes(),
            node: Arc::new(file),
            entry_ttl: Ttl::Policy,
            attribute_ttl: Ttl::Policy,
        }
    }

    fn opened(&self) -> Opened {
        Opened {
            file: Arc::new(Thing(self.clone(), FileKind::Regular)),
            caching: FileCaching::Policy,
        }
    }
}

impl Thing {
    fn attributes(&self) -> Attributes {
        let state = self.0.0.lock().unwrap();
        Attributes {
            inode: match self.1 {
                FileKind::Directory => 1,
                _ => 2,
            },
            kind: self.1,
            permissions: state.permissions,
            links: 1,
            uid: state.uid,
            gid: 0,
            device: Device::default(),
            size: state.size,
            blocks: 0,
            block_size: 4096,
            accessed: Timestamp::default(),
            modified: Timestamp::default(),
            changed: Timestamp::default(),
            born: None,
            mount_root: false,
        }
    }
}

impl Backend for Bare {
    fn root(&self) -> Arc<dyn Node> {
        Arc::new(Thing(self.clone(), FileKind::Directory))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::XATTR
    }
}

impl Node for Thing {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: self.attributes().inode,
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        self.1
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(self.attributes())
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        let mut state = self.0.0.lock().unwrap();
        state.permissions = changes.permissions.unwrap_or(state.permissions);
        state.size = changes.size.unwrap_or(state.size);
        state.uid = changes.uid.unwrap_or(state.uid);
        drop(state);
        Answer::ok(self.attributes())
    }

    fn lookup<'a>(&'a self, _: Name<'a>) -> Answer<'a, Lookup> {
        Answer::ok(Lookup::Found(self.0.entry()))
    }

    fn create<'a>(
        &'a self,
        _: Caller,
        _: Name<'a>,
        _: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        assert_eq!(inode.umask, 0, "it cannot apply one");
        self.0.0.lock().unwrap().permissions = inode.permissions;
        Answer::ok(Created {
            entry: self.0.entry(),
            opened: self.0.opened(),
        })
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        assert!(!request.flags.contains(OpenFlags::TRUNCATE), "it cannot");
        Answer::ok(self.0.opened())
    }

    fn removexattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, ()> {
        let mut state = self.0.0.lock().unwrap();
        let was_there = name.as_bytes() == b"security.capability" && state.capability;
        state.capability &= !was_there;
        match was_there {
            true => Answer::ok(()),
            false => Answer::error(Errno::NODATA),
        }
    }
}

impl File for Thing {
    fn read<'a>(&'a self, _: ReadRequest, _: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        Answer::ok(0)
    }

    fn write<'a>(&'a self, _: WriteRequest, source: &'a mut dyn WriteSource) -> Answer<'a, usize> {
        Answer::ok(source.remaining())
    }

    fn fsync(&self, _: bool) -> Answer<'_, ()> {
        Answer::ok(())
    }

    fn fallocate(&self, _: FallocateRequest) -> Answer<'_, ()> {
        Answer::ok(())
    }

    fn copy_range<'a>(&'a self, copy: CopyRange<'a>) -> Answer<'a, u64> {
        Answer::ok(copy.length)
    }
}

/// A guest of a bare export, and of a directory of the host beside it, which does everything.
struct Scene {
    guest: Guest,
    bare: Bare,
    root: u64,
    file: u64,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            kill_privileges: true,
            posix_acl: true,
            ..Options::default()
        };
        let host = Passthrough::open(directory.path(), options).unwrap();
        let bare = Bare::new();
        let exports = Exports::named(vec![
            Export::new("host", Arc::new(host), false),
            Export::new("bare", Arc::new(bare.clone()), false),
        ]);
        let options = SessionOptions {
            kill_privileges: true,
            posix_acl: Offer::Always,
            ..SessionOptions::default()
        };
        let guest = Guest::of(exports.unwrap(), options);
        let agreed = guest.init().unwrap();
        let agreed =
            InitFlags::from_bits_retain(u64::from(agreed.flags2) << 32 | u64::from(agreed.flags));
        for flag in [
            InitFlags::ATOMIC_O_TRUNC,
            InitFlags::HANDLE_KILLPRIV_V2,
            InitFlags::DONT_MASK,
        ] {
            assert!(agreed.contains(flag), "{flag:?}");
        }
        let root = guest.lookup(1, "bare").unwrap().nodeid.0;
        let file = guest.lookup(root, "file").unwrap().nodeid.0;
        Self {
            guest,
            bare,
            root,
            file,
            _directory: directory,
        }
    }

    fn open(&self, flags: u32, open_flags: u32) -> HandleId {
        let arg = OpenIn { flags, open_flags };
        let opened = self.guest.call(Opcode::Open, self.file, &[arg.as_bytes()]);
        structure::<OpenOut>(&opened.unwrap()).fh
    }

    fn setattr(&self, arg: SetattrIn) -> AttrOut {
        let changed = self
            .guest
            .call(Opcode::Setattr, self.file, &[arg.as_bytes()]);
        structure(&changed.unwrap())
    }

    /// Permissions, and whether it has file capabilities.
    fn privileges(&self) -> (u32, bool) {
        let state = self.bare.0.lock().unwrap();
        (state.permissions, state.capability)
    }
}

#[test]
fn an_open_truncates_where_the_backend_cannot() {
    let scene = Scene::new();
    scene.open(O_WRONLY, 0);
    assert_eq!(scene.bare.0.lock().unwrap().size, LENGTH);
    scene.open(O_WRONLY | O_TRUNC, 0);
    assert_eq!(scene.bare.0.lock().unwrap().size, 0);
    assert_eq!(scene.privileges(), (0o6755, true), "root keeps them");
    scene.open(O_WRONLY | O_TRUNC, OPEN_KILL_SUIDGID);
    assert_eq!(scene.privileges(), (0o755, false));
}

#[test]
fn a_umask_is_applied_where_the_backend_knows_no_acls() {
    let scene = Scene::new();
    let arg = [O_WRONLY, 0o666, 0o027, 0];
    let body: [&[u8]; 2] = [arg.as_bytes(), b"new\0"];
    scene.guest.call(Opcode::Create, scene.root, &body).unwrap();
    assert_eq!(scene.bare.0.lock().unwrap().permissions, 0o640);
}

#[test]
fn set_id_bits_and_capabilities_go_where_the_backend_leaves_them() {
    let write = |scene: &Scene, write_flags| {
        let arg = WriteIn {
            fh: scene.open(O_WRONLY, 0),
            size: 3,
            write_flags,
            ..WriteIn::new_zeroed()
        };
        let written = scene
            .guest
            .call(Opcode::Write, scene.file, &[arg.as_bytes(), b"new"]);
        written.unwrap();
    };
    let change = |scene: &Scene, valid| {
        let arg = SetattrIn {
            valid,
            uid: SOMEBODY,
            ..SetattrIn::new_zeroed()
        };
        let told = scene.setattr(arg).attr.mode & 0o7777;
        assert_eq!(told, scene.privileges().0, "the reply has what is so now");
    };
    let allocate = |scene: &Scene| {
        let arg = FallocateIn {
            fh: scene.open(O_WRONLY, 0),
            length: 1,
            ..FallocateIn::new_zeroed()
        };
        let allocated = scene
            .guest
            .call(Opcode::Fallocate, scene.file, &[arg.as_bytes()]);
        allocated.unwrap();
    };
    let copy = |scene: &Scene| {
        let arg = CopyFileRangeIn {
            fh_in: scene.open(0, 0),
            nodeid_out: NodeId(scene.file),
            fh_out: scene.open(O_WRONLY, 0),
            len: 1,
            ..CopyFileRangeIn::new_zeroed()
        };
        let copied = scene
            .guest
            .call(Opcode::CopyFileRange, scene.file, &[arg.as_bytes()]);
        copied.unwrap();
    };
    // What is done, by whom, and whether the file keeps what gives privileges.
    type Row<'a> = (&'a str, u32, bool, &'a dyn Fn(&Scene));
    let rows: &[Row<'_>] = &[
        ("a write of root's", 0, true, &|scene| write(scene, 0)),
        ("a write", 0, false, &|scene| {
            write(scene, WRITE_KILL_SUIDGID)
        }),
        ("a truncation of root's", 0, true, &|scene| {
            change(scene, fattr::SIZE)
        }),
        ("a truncation", 0, false, &|scene| {
            change(scene, fattr::SIZE | fattr::KILL_SUIDGID);
        }),
        ("another owner", 0, false, &|scene| {
            change(scene, fattr::UID)
        }),
        ("another time", 0, true, &|scene| {
            change(scene, fattr::MTIME)
        }),
        ("space for root", 0, true, &allocate),
        ("space", SOMEBODY, false, &allocate),
        ("a copy of root's", 0, true, &copy),
        ("a copy", SOMEBODY, false, &copy),
    ];
    for (what, uid, kept, act) in rows {
        let mut scene = Scene::new();
        scene.guest.uid = *uid;
        act(&scene);
        let expected = match kept {
            true => (0o6755, true),
            false => (0o755, false),
        };
        assert_eq!(scene.privileges(), expected, "{what}");
    }
}

#[test]
fn a_set_gid_bit_of_what_no_group_executes_stays() {
    let scene = Scene::new();
    scene.bare.0.lock().unwrap().permissions = 0o6745;
    scene.open(O_WRONLY | O_TRUNC, OPEN_KILL_SUIDGID);
    assert_eq!(scene.privileges().0, 0o2745);
}
