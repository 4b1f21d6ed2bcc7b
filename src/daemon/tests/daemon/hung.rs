//! An export whose storage does not answer, beside one that does.

use rustix::process::{Pid, Signal, kill_process};
use vfsd_testkit::frontend::bodies::{SetAttr, read_body, write_body};
use vfsd_testkit::frontend::channel::{Channel, Request};
use vfsd_testkit::frontend::device::{Device, Options};
use vfsd_testkit::frontend::guest::Guest;
use vfsd_testkit::frontend::wire::{Encoder, opcode, valid};

use crate::mounting::{Mounted, cannot_mount};
use crate::process::{Daemon, Place, text, vfsd};

/// A process that is held, until this is dropped.
struct Held(Pid);

impl Held {
    fn new(pid: Pid) -> Self {
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Files of the export that is going to hang.
struct Files {
    root: u64,
    file: u64,
    fh: u64,
    /// Open, too, to be released.
    other_fh: u64,
    link: u64,
    directory: u64,
    directory_fh: u64,
    other_directory_fh: u64,
    /// Known and not open, to be forgotten.
    forgotten: [u64; 2],
}

impl Files {
    fn new(guest: &mut Guest, root: u64) -> Self {
        let file = guest.put(root, "file", b"content").unwrap().node;
        let directory = guest.mkdir(root, "directory", 0o755).unwrap().node;
        let forgotten = ["one", "two"].map(|name| guest.put(root, name, b"x").unwrap().node);
        for name in ["unlinked", "renamed"] {
            guest.put(root, name, b"x").unwrap();
        }
        guest.mkdir(root, "removed", 0o755).unwrap();
        Self {
            root,
            file,
            fh: guest.open(file, 2).unwrap().fh,
            other_fh: guest.open(file, 2).unwrap().fh,
            link: guest.symlink(root, "link", "target").unwrap().node,
            directory,
            directory_fh: guest.opendir(directory).unwrap().fh,
            other_directory_fh: guest.opendir(directory).unwrap().fh,
            forgotten,
        }
    }

    /// A request of each kind that reaches the storage.
    fn requests(&self) -> Vec<(&'static str, Request)> {
        let Self { root, file, fh, .. } = *self;
        let body = Encoder::new;
        let name = |name: &str| body().name(name.as_bytes()).bytes();
        let two_names = |one: &str, two: &str| body().name(one.as_bytes()).name(two.as_bytes());
        let lock = |opcode, kind: i32| {
            let body = body().u64(fh).u64(1).u64(0).u64(9).u32(kind as u32).u32(1);
            Request::new(opcode, file, body.u32(0).u32(0).bytes())
        };
        let handle = |fh: u64| body().u64(fh).u32(0).u32(0).u64(0).bytes();
        let new = |opcode, given: &[u32], name: &str| {
            let body = given.iter().fold(body(), |body, word| body.u32(*word));
            Request::new(opcode, root, body.name(name.as_bytes()).bytes())
        };
        let xattr = |name: &str| {
            let body = body().u32(1).u32(0).u32(0).u32(0).name(name.as_bytes());
            Request::new(opcode::SETXATTR, file, body.raw(b"v").bytes())
        };
        let copy = body()
            .u64(fh)
            .u64(0)
            .u64(file)
            .u64(self.other_fh)
            .u64(0)
            .u64(7)
            .u64(0);
        let mode = SetAttr {
            valid: valid::MODE,
            mode: 0o600,
            ..SetAttr::default()
        };
        let size = SetAttr {
            valid: valid::SIZE | valid::FH,
            fh,
            size: 3,
            ..SetAttr::default()
        };
        let forget = |node| {
            let body = body().u64(1).bytes();
            Request::new(opcode::FORGET, node, body).without_reply()
        };
        let [one, two] = self.forgotten;
        let batch = body().u32(1).u32(0).u64(two).u64(1).bytes();
        let flags = body()
            .u64(fh)
            .u32(0)
            .u32(0x8008_6601)
            .u64(0)
            .u32(0)
            .u32(8)
            .bytes();
        let attributes = |flags: u32| body().u32(flags).u32(0).u64(fh).bytes();
        let lookup =
            |name: &str| Request::new(opcode::LOOKUP, root, body().name(name.as_bytes()).bytes());
        let plain = |opcode, node, body| Request::new(opcode, node, body);
        vec![
            ("LOOKUP", lookup("file")),
            ("LOOKUP, missing", lookup("missing")),
            ("GETATTR", plain(opcode::GETATTR, file, attributes(0))),
            ("GETATTR, open", plain(opcode::GETATTR, file, attributes(1))),
            (
                "STATX",
                plain(
                    opcode::STATX,
                    file,
                    body().raw(&[0; 24]).u32(0).u32(0xfff).bytes(),
                ),
            ),
            ("SETATTR", plain(opcode::SETATTR, file, mode.bytes())),
            ("SETATTR, open", plain(opcode::SETATTR, file, size.bytes())),
            ("READLINK", plain(opcode::READLINK, self.link, Vec::new())),
            (
                "ACCESS",
                plain(opcode::ACCESS, file, body().u32(4).u32(0).bytes()),
            ),
            ("STATFS", plain(opcode::STATFS, root, Vec::new())),
            ("SYNCFS", plain(opcode::SYNCFS, root, body().u64(0).bytes())),
            (
                "OPEN",
                plain(opcode::OPEN, file, body().u32(2).u32(0).bytes()),
            ),
            (
                "OPEN, truncating",
                plain(opcode::OPEN, file, body().u32(0o1002).u32(0).bytes()),
            ),
            (
                "OPENDIR",
                plain(
                    opcode::OPENDIR,
                    self.directory,
                    body().u32(0).u32(0).bytes(),
                ),
            ),
            ("CREATE", new(opcode::CREATE, &[2, 0o644, 0, 0], "created")),
            (
                "TMPFILE",
                new(opcode::TMPFILE, &[2, 0o644, 0, 0], "temporary"),
            ),
            ("MKDIR", new(opcode::MKDIR, &[0o755, 0], "made")),
            ("MKNOD", new(opcode::MKNOD, &[0o100_644, 0, 0, 0], "node")),
            (
                "SYMLINK",
                plain(
                    opcode::SYMLINK,
                    root,
                    two_names("symlink", "target").bytes(),
                ),
            ),
            (
                "LINK",
                plain(opcode::LINK, root, body().u64(file).name(b"linked").bytes()),
            ),
            ("UNLINK", plain(opcode::UNLINK, root, name("unlinked"))),
            ("RMDIR", plain(opcode::RMDIR, root, name("removed"))),
            (
                "RENAME",
                plain(
                    opcode::RENAME,
                    root,
                    body().u64(root).name(b"renamed").name(b"moved").bytes(),
                ),
            ),
            (
                "READ",
                plain(opcode::READ, file, read_body(fh, 0, 4096)).with_room(4096),
            ),
            (
                "WRITE",
                plain(opcode::WRITE, file, write_body(fh, 0, 1, b"w")),
            ),
            (
                "FSYNC",
                plain(opcode::FSYNC, file, body().u64(fh).u32(0).u32(0).bytes()),
            ),
            (
                "FALLOCATE",
                plain(
                    opcode::FALLOCATE,
                    file,
                    body().u64(fh).u64(0).u64(9).u32(0).u32(0).bytes(),
                ),
            ),
            (
                "LSEEK",
                plain(
                    opcode::LSEEK,
                    file,
                    body().u64(fh).u64(0).u32(4).u32(0).bytes(),
                ),
            ),
            (
                "COPY_FILE_RANGE",
                plain(opcode::COPY_FILE_RANGE, file, copy.bytes()),
            ),
            (
                "READDIR",
                plain(
                    opcode::READDIR,
                    self.directory,
                    read_body(self.directory_fh, 0, 4096),
                )
                .with_room(4096),
            ),
            (
                "READDIRPLUS",
                plain(
                    opcode::READDIRPLUS,
                    self.directory,
                    read_body(self.directory_fh, 0, 4096),
                )
                .with_room(4096),
            ),
            (
                "FSYNCDIR",
                plain(
                    opcode::FSYNCDIR,
                    self.directory,
                    body().u64(self.directory_fh).u32(0).u32(0).bytes(),
                ),
            ),
            ("SETXATTR", xattr("user.set")),
            (
                "GETXATTR",
                plain(
                    opcode::GETXATTR,
                    file,
                    body().u32(64).u32(0).name(b"user.a").bytes(),
                ),
            ),
            (
                "LISTXATTR",
                plain(opcode::LISTXATTR, file, body().u32(4096).u32(0).bytes()),
            ),
            (
                "REMOVEXATTR",
                plain(opcode::REMOVEXATTR, file, name("user.b")),
            ),
            ("IOCTL", plain(opcode::IOCTL, file, flags)),
            ("GETLK", lock(opcode::GETLK, libc::F_WRLCK)),
            ("SETLK", lock(opcode::SETLK, libc::F_WRLCK)),
            ("SETLKW", lock(opcode::SETLKW, libc::F_WRLCK)),
            (
                "FLUSH",
                plain(
                    opcode::FLUSH,
                    file,
                    body().u64(fh).u32(0).u32(0).u64(1).bytes(),
                ),
            ),
            (
                "RELEASE",
                plain(opcode::RELEASE, file, handle(self.other_fh)),
            ),
            (
                "RELEASEDIR",
                plain(
                    opcode::RELEASEDIR,
                    self.directory,
                    handle(self.other_directory_fh),
                ),
            ),
            ("FORGET", forget(one)),
            (
                "BATCH_FORGET",
                Request::new(opcode::BATCH_FORGET, 0, batch).without_reply(),
            ),
        ]
    }
}

/// Asks for a file of the other export, and collects what else is answered meanwhile.
fn other_export_answers(channel: &mut Channel, root: u64, returned: &mut Vec<u64>) {
    let body = Encoder::new().name(b"file").bytes();
    let asked = channel
        .submit(&Request::new(opcode::LOOKUP, root, body))
        .unwrap();
    loop {
        let answer = channel.wait_any().unwrap();
        if answer.unique == asked {
            answer.reply().unwrap();
            return;
        }
        returned.push(answer.unique);
    }
}

#[test]
fn an_export_that_hangs_in_any_call_holds_up_no_other() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let mounted = Mounted::new(&place, &["--cache", "never", "--sandbox=none"], "memory:");
    std::fs::write(place.share().join("file"), b"here").unwrap();
    let (socket, file) = (place.socket(), place.path("vfsd.toml"));
    std::fs::write(
        &file,
        format!(
            "[[export]]\nname = 'hung'\nsource = '{}'\n[[export]]\nname = 'well'\nsource = '{}'\n",
            text(&mounted.path("")),
            text(&place.share()),
        ),
    )
    .unwrap();
    let words = [
        "serve",
        "--sandbox=none",
        "--config",
        text(&file),
        "--socket-path",
        text(&socket),
    ];
    let _daemon = Daemon::listening(&mut vfsd(words), &socket);
    let options = Options {
        queue_size: 1024,
        ..Options::default()
    };
    let device = Device::connect(&socket, &options).unwrap();
    let mut guest = Guest::new(Channel::new(device.ring(1).unwrap(), 1 << 32));
    guest.init().unwrap();
    let hung = guest.lookup(1, "hung").unwrap().node;
    let well = guest.lookup(1, "well").unwrap().node;
    let files = Files::new(&mut guest, hung);
    let mut returned = Vec::new();
    let mut asked = Vec::new();
    {
        let _held = Held::new(mounted.serving());
        // Twice: the first of a kind may be held up where the next are not tried any more.
        for (kind, request) in files.requests().into_iter().chain(files.requests()) {
            asked.push((kind, guest.channel.submit(&request).unwrap()));
            for _ in 0..3 {
                other_export_answers(&mut guest.channel, well, &mut returned);
            }
        }
        let waiting = asked
            .iter()
            .filter(|(_, unique)| !returned.contains(unique));
        assert!(
            waiting.count() > 40,
            "it did hang: {returned:?} of {asked:?}"
        );
    }
    while returned.len() < asked.len() {
        returned.push(guest.channel.wait_any().unwrap().unique);
    }
    guest.lookup(hung, "file").unwrap();
}
