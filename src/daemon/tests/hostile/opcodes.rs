//! A well-formed request for every opcode, to be spoiled one way or another.

use vfsd_testkit::frontend::bodies::{SetAttr, init_body, read_body, write_body};
use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::guest::Guest;
use vfsd_testkit::frontend::wire::{self, Encoder, init, opcode, valid};

use crate::answer::{Answer, ENOSYS, Row};
use crate::scene::Scene;

/// The nodes and handles that well-formed requests refer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) dir: u64,
    pub(crate) file: u64,
    pub(crate) link: u64,
    pub(crate) fh: u64,
    pub(crate) dir_fh: u64,
    /// The flags of INIT, which decide the layout of SETXATTR.
    pub(crate) agreed: u64,
}

impl Target {
    /// Numbers that refer to nothing.
    pub(crate) const NONE: Self = Self {
        dir: 1,
        file: 1,
        link: 1,
        fh: 0,
        dir_fh: 0,
        agreed: 0,
    };

    /// Looks the parts of the share up and opens them.
    pub(crate) fn open(guest: &mut Guest) -> Self {
        let dir = guest.lookup(wire::ROOT, "dir").unwrap().node;
        let file = guest.lookup(wire::ROOT, "file").unwrap().node;
        let link = guest.lookup(wire::ROOT, "link-out").unwrap().node;
        let fh = guest.open(file, libc::O_RDWR as u32).unwrap().fh;
        let dir_fh = guest.opendir(dir).unwrap().fh;
        Self {
            dir,
            file,
            link,
            fh,
            dir_fh,
            agreed: guest.agreed,
        }
    }

    /// Gives back what [`Target::open`] took.
    pub(crate) fn close(self, guest: &mut Guest) {
        guest.release(self.file, self.fh).unwrap();
        guest.releasedir(self.dir, self.dir_fh).unwrap();
        for node in [self.dir, self.file, self.link] {
            guest.forget(node, 1).unwrap();
        }
    }
}

/// A piece of a request's body.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Bytes(Vec<u8>),
    /// A component of a path, its NUL not included.
    Name(&'static [u8]),
    /// Another string, its NUL not included.
    Text(&'static [u8]),
}

/// A well-formed request.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) opcode: u32,
    pub(crate) node: u64,
    pub(crate) parts: Vec<Part>,
    /// Where in the body a handle stands.
    pub(crate) handle: Option<usize>,
}

impl Sample {
    fn new(name: &'static str, opcode: u32, node: u64, parts: Vec<Part>) -> Self {
        Self {
            name,
            opcode,
            node,
            parts,
            handle: None,
        }
    }

    fn on_handle(mut self, at: usize) -> Self {
        self.handle = Some(at);
        self
    }

    pub(crate) fn request(&self) -> Request {
        let body = self.parts.iter().flat_map(part_bytes).collect();
        Request::new(self.opcode, self.node, body)
    }

    /// How many path components the request carries.
    pub(crate) fn name_count(&self) -> usize {
        self.parts
            .iter()
            .filter(|part| matches!(part, Part::Name(_)))
            .count()
    }

    /// The request with its `which`-th path component, NUL included, replaced by `bytes`.
    pub(crate) fn with_name(&self, which: usize, bytes: &[u8]) -> Request {
        let mut seen = 0;
        let mut body = Vec::new();
        for part in &self.parts {
            if matches!(part, Part::Name(_)) {
                seen += 1;
                if seen == which + 1 {
                    body.extend_from_slice(bytes);
                    continue;
                }
            }
            body.extend(part_bytes(part));
        }
        Request::new(self.opcode, self.node, body)
    }

    /// The request with another handle, if it carries one.
    pub(crate) fn with_handle(&self, fh: u64) -> Option<Request> {
        let at = self.handle?;
        let mut request = self.request();
        request.body[at..at + 8].copy_from_slice(&fh.to_le_bytes());
        Some(request)
    }
}

fn part_bytes(part: &Part) -> Vec<u8> {
    match part {
        Part::Bytes(bytes) => bytes.clone(),
        Part::Name(text) | Part::Text(text) => [text, &b"\0"[..]].concat(),
    }
}

fn bytes(encoder: Encoder) -> Part {
    Part::Bytes(encoder.bytes())
}

fn new() -> Encoder {
    Encoder::new()
}

/// One request for every opcode that has a reply and leaves the session alive. None of them
/// succeeds in changing the share when its names do not exist or exist already.
pub(crate) fn samples(to: &Target) -> Vec<Sample> {
    [names(to), attributes(to), files(to), directories(to)].concat()
}

fn names(to: &Target) -> Vec<Sample> {
    use Part::{Name, Text};
    let dir = to.dir;
    let rename = bytes(new().u64(dir));
    let rename2 = bytes(new().u64(dir).u32(0).u32(0));
    let create = bytes(new().u32(libc::O_RDWR as u32).u32(0o100_644).u32(0).u32(0));
    let mknod = bytes(new().u32(0o100_644).u32(0).u32(0).u32(0));
    let mkdir = bytes(new().u32(0o755).u32(0));
    let two = |first: Part| vec![first, Name(b"absent"), Name(b"other")];
    vec![
        Sample::new("LOOKUP", opcode::LOOKUP, dir, vec![Name(b"file")]),
        Sample::new(
            "SYMLINK",
            opcode::SYMLINK,
            dir,
            vec![Name(b"file"), Text(b"target")],
        ),
        Sample::new("MKNOD", opcode::MKNOD, dir, vec![mknod, Name(b"file")]),
        Sample::new("MKDIR", opcode::MKDIR, dir, vec![mkdir, Name(b"file")]),
        Sample::new("UNLINK", opcode::UNLINK, dir, vec![Name(b"absent")]),
        Sample::new("RMDIR", opcode::RMDIR, dir, vec![Name(b"absent")]),
        Sample::new("RENAME", opcode::RENAME, dir, two(rename)),
        Sample::new("RENAME2", opcode::RENAME2, dir, two(rename2)),
        Sample::new(
            "LINK",
            opcode::LINK,
            dir,
            vec![bytes(new().u64(to.file)), Name(b"file")],
        ),
        Sample::new("CREATE", opcode::CREATE, dir, vec![create, Name(b"inner")]),
    ]
}

fn attributes(to: &Target) -> Vec<Sample> {
    use Part::Text;
    let file = to.file;
    let change = SetAttr {
        valid: valid::MODE,
        mode: 0o644,
        ..SetAttr::default()
    };
    let fh_change = SetAttr {
        valid: valid::MODE | valid::FH,
        fh: to.fh,
        mode: 0o644,
        ..change
    };
    let statx = |flags, fh| bytes(new().u32(flags).u32(0).u64(fh).u32(0).u32(0xfff));
    let long = to.agreed & init::SETXATTR_EXT != 0;
    let head = bytes(new().u32(1).u32(0).raw(if long { &[0; 8] } else { &[] }));
    let setxattr = vec![head, Text(b"user.a"), bytes(new().raw(b"v"))];
    let getxattr = vec![bytes(new().u32(64).u32(0)), Text(b"user.a")];
    vec![
        Sample::new(
            "GETATTR",
            opcode::GETATTR,
            file,
            vec![bytes(new().raw(&[0; 16]))],
        ),
        Sample::new(
            "GETATTR fh",
            opcode::GETATTR,
            file,
            vec![bytes(new().u32(1).u32(0).u64(to.fh))],
        )
        .on_handle(8),
        Sample::new(
            "SETATTR",
            opcode::SETATTR,
            file,
            vec![Part::Bytes(change.bytes())],
        ),
        Sample::new(
            "SETATTR fh",
            opcode::SETATTR,
            file,
            vec![Part::Bytes(fh_change.bytes())],
        )
        .on_handle(8),
        Sample::new("STATX", opcode::STATX, file, vec![statx(0, 0)]),
        Sample::new("STATX fh", opcode::STATX, file, vec![statx(1, to.fh)]).on_handle(8),
        Sample::new("READLINK", opcode::READLINK, to.link, vec![]),
        Sample::new("STATFS", opcode::STATFS, file, vec![]),
        Sample::new(
            "ACCESS",
            opcode::ACCESS,
            file,
            vec![bytes(new().u32(4).u32(0))],
        ),
        Sample::new("SETXATTR", opcode::SETXATTR, file, setxattr),
        Sample::new("GETXATTR", opcode::GETXATTR, file, getxattr),
        Sample::new(
            "LISTXATTR",
            opcode::LISTXATTR,
            file,
            vec![bytes(new().u32(64).u32(0))],
        ),
        Sample::new(
            "REMOVEXATTR",
            opcode::REMOVEXATTR,
            file,
            vec![Text(b"user.absent")],
        ),
    ]
}

fn files(to: &Target) -> Vec<Sample> {
    let (file, fh) = (to.file, to.fh);
    let lock = || {
        bytes(
            new()
                .u64(fh)
                .u64(7)
                .u64(0)
                .u64(9)
                .u32(0)
                .u32(1)
                .u32(0)
                .u32(0),
        )
    };
    let release = bytes(new().u64(fh).u32(0).u32(0).u64(0));
    let flush = bytes(new().u64(fh).u32(0).u32(0).u64(7));
    let fallocate = bytes(new().u64(fh).u64(0).u64(6).u32(1).u32(0));
    let copy = || bytes(new().u64(fh).u64(0).u64(file).u64(fh).u64(0).u64(0).u64(0));
    let sample = |name, opcode, part| Sample::new(name, opcode, file, vec![part]).on_handle(0);
    vec![
        Sample::new("OPEN", opcode::OPEN, file, vec![bytes(new().u32(0).u32(0))]),
        sample("READ", opcode::READ, Part::Bytes(read_body(fh, 0, 64))),
        sample(
            "WRITE",
            opcode::WRITE,
            Part::Bytes(write_body(fh, 0, 6, b"inside")),
        ),
        sample("FLUSH", opcode::FLUSH, flush),
        sample("FSYNC", opcode::FSYNC, bytes(new().u64(fh).u32(0).u32(0))),
        sample("GETLK", opcode::GETLK, lock()),
        sample("SETLK", opcode::SETLK, lock()),
        sample("SETLKW", opcode::SETLKW, lock()),
        sample("FALLOCATE", opcode::FALLOCATE, fallocate),
        sample(
            "LSEEK",
            opcode::LSEEK,
            bytes(new().u64(fh).u64(0).u32(3).u32(0)),
        ),
        sample("COPY_FILE_RANGE", opcode::COPY_FILE_RANGE, copy()),
        sample("COPY_FILE_RANGE_64", opcode::COPY_FILE_RANGE_64, copy()),
        sample("RELEASE", opcode::RELEASE, release),
    ]
}

fn directories(to: &Target) -> Vec<Sample> {
    let (dir, fh) = (to.dir, to.dir_fh);
    let release = bytes(new().u64(fh).u32(0).u32(0).u64(0));
    let sample = |name, opcode, part| Sample::new(name, opcode, dir, vec![part]).on_handle(0);
    vec![
        Sample::new(
            "OPENDIR",
            opcode::OPENDIR,
            dir,
            vec![bytes(new().u32(0).u32(0))],
        ),
        sample(
            "READDIR",
            opcode::READDIR,
            Part::Bytes(read_body(fh, 0, 4096)),
        ),
        sample(
            "READDIRPLUS",
            opcode::READDIRPLUS,
            Part::Bytes(read_body(fh, 0, 4096)),
        ),
        sample(
            "FSYNCDIR",
            opcode::FSYNCDIR,
            bytes(new().u64(fh).u32(0).u32(0)),
        ),
        sample("RELEASEDIR", opcode::RELEASEDIR, release),
        Sample::new("SYNCFS", opcode::SYNCFS, dir, vec![bytes(new().u64(0))]),
    ]
}

#[test]
fn an_opcode_nobody_knows_is_answered_with_enosys() {
    let mut scene = Scene::new();
    let numbers = [
        0,
        7,
        19,
        54,
        55,
        63,
        64,
        255,
        4096,
        1 << 20,
        26 << 24,
        u32::MAX,
    ];
    scene.play(numbers.into_iter().flat_map(|number| {
        [0, 8, 40, 4000].map(|len| {
            let name = format!("opcode {number} with {len} bytes");
            Row::new(name, Request::new(number, wire::ROOT, vec![0; len]), ENOSYS)
        })
    }));
    scene.finish();
}

#[test]
fn a_device_without_dax_window_does_not_know_its_mappings() {
    let mut scene = Scene::new();
    let map = new().u64(0).u64(0).u64(4096).u64(3).u64(0).bytes();
    let unmap = |count| new().u32(count).u64(0).u64(4096).bytes();
    scene.play([
        Row::new(
            "SETUPMAPPING",
            Request::new(opcode::SETUPMAPPING, 1, map),
            ENOSYS,
        ),
        Row::new(
            "REMOVEMAPPING",
            Request::new(opcode::REMOVEMAPPING, 1, unmap(1)),
            ENOSYS,
        ),
        Row::new(
            "more than there are",
            Request::new(opcode::REMOVEMAPPING, 1, unmap(9)),
            ENOSYS,
        ),
    ]);
    scene.finish();
}

#[test]
fn a_body_cut_off_anywhere_is_an_errno_to_that_request() {
    const CUT: Answer = Answer::Refused(&[libc::EINVAL, libc::EIO]);
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    for sample in samples(&target) {
        // All of its body is padding.
        if sample.opcode == opcode::SYNCFS {
            continue;
        }
        let whole = sample.request();
        let rows = (0..whole.body.len()).map(|len| {
            let mut request = whole.clone();
            request.body.truncate(len);
            Row::new(format!("{} with {len} bytes", sample.name), request, CUT)
        });
        scene.play_all(sample.name, rows);
    }
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn an_init_cut_off_anywhere_below_its_oldest_form_is_refused() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    scene.guest.destroy().unwrap();
    let whole = init_body(7, 45, init::LINUX_7_2);
    scene.play((0..16).map(|len| {
        let request = Request::new(opcode::INIT, 0, whole[..len].to_vec());
        Row::new(
            format!("INIT with {len} bytes"),
            request,
            crate::answer::EINVAL,
        )
    }));
    scene.guest.init().unwrap();
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn a_device_ring_serves_every_opcode_whichever_it_is() {
    let mut scene = Scene::new();
    let mut urgent = scene.guest_on(0);
    let target = Target::open(&mut urgent);
    for sample in samples(&target) {
        // Whatever the answer is on a request ring, the high-priority ring gives one as well.
        if !matches!(sample.name, "RELEASE" | "RELEASEDIR") {
            let returned = urgent.channel.exchange(&sample.request()).unwrap();
            let broken = matches!(returned.reply(), Err(error) if error.errno().is_none());
            assert!(!broken, "{}: {:?}", sample.name, returned.reply());
            scene.check(sample.name);
        }
    }
    target.close(&mut scene.guest);
    scene.finish();
}
