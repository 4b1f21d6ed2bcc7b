//! Sizes, offsets, flags and values that do not fit.

use vfsd_testkit::frontend::bodies::{SetAttr, read_body, write_body};
use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::wire::{Encoder, ROOT, opcode, valid};

use crate::answer::{Answer, EINVAL, Row};
use crate::opcodes::{Target, samples};
use crate::scene::{Scene, Setting};

const TOO_BIG: Answer = Answer::Refused(&[libc::EFBIG]);
const INVALID_OR_TOO_BIG: Answer = Answer::Refused(&[libc::EINVAL, libc::EFBIG]);

/// The values a length field is tried with: `max` is the most the daemon takes, `body` what the
/// request really carries.
pub(crate) fn lengths(max: u32, body: u32) -> Vec<u32> {
    let mut all = vec![
        0,
        1,
        max - 1,
        max,
        max.wrapping_add(1),
        i32::MAX as u32,
        u32::MAX - 1,
        u32::MAX,
    ];
    all.extend([body.wrapping_sub(1), body, body.wrapping_add(1)]);
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn reads_of_any_size_are_bounded_by_the_room_for_the_reply() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    for size in lengths(1 << 20, 4096) {
        for room in [0, 1, 4096] {
            let file = Request::new(opcode::READ, target.file, read_body(target.fh, 0, size));
            let row = Row::new(
                format!("READ {size} into {room}"),
                file.with_room(room),
                Answer::Fine,
            );
            let len = scene.ask(&row).reply().unwrap().len();
            assert_eq!(len, 6.min(size as usize).min(room as usize), "{}", row.name);
            for number in [opcode::READDIR, opcode::READDIRPLUS] {
                let body = read_body(target.dir_fh, 0, size);
                let request = Request::new(number, target.dir, body).with_room(room);
                let name = format!("opcode {number}, {size} into {room}");
                scene.ask(&Row::new(name, request, Answer::FineOr(&[libc::EINVAL])));
            }
        }
        scene.check(&format!("size {size}"));
    }
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn a_write_whose_size_is_not_its_payload_writes_nothing() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    for payload in [0_u32, 1, 100, 4096] {
        let data = vec![0x55; payload as usize];
        let rows = lengths(1 << 20, payload)
            .into_iter()
            .filter(|size| *size != payload)
            .map(|size| {
                let body = write_body(target.fh, 0, size, &data);
                let name = format!("WRITE of {size} with {payload} bytes");
                Row::new(name, Request::new(opcode::WRITE, target.file, body), EINVAL)
            });
        scene.play_all("WRITE", rows);
        assert_eq!(
            scene.guest.read(target.file, target.fh, 0, 64).unwrap(),
            b"inside"
        );
    }
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn a_write_longer_than_agreed_writes_nothing() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    scene.guest.destroy().unwrap();
    let max = scene.guest.init().unwrap().max_write;
    assert!(max <= 1 << 20, "max_write {max}");
    let target = Target::open(&mut scene.guest);
    for extra in [1, 4096] {
        let size = max + extra;
        let body = write_body(target.fh, 0, size, &vec![1; size as usize]);
        let request = Request::new(opcode::WRITE, target.file, body);
        scene.ask(&Row::new("WRITE over max_write", request, EINVAL));
        assert_eq!(scene.guest.getattr(target.file).unwrap().size, 6);
    }
    let body = write_body(target.fh, 0, max, &vec![1; max as usize]);
    let request = Request::new(opcode::WRITE, target.file, body);
    scene.ask(&Row::new("WRITE of max_write", request, Answer::Fine));
    assert_eq!(
        scene.guest.getattr(target.file).unwrap().size,
        u64::from(max)
    );
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn offsets_beyond_what_a_file_can_have_are_refused() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let top = i64::MAX as u64;
    let (file, fh) = (target.file, target.fh);
    for offset in [top - 1, top, top + 1, u64::MAX - 4096, u64::MAX] {
        let read = Request::new(opcode::READ, file, read_body(fh, offset, 4096));
        let write = Request::new(opcode::WRITE, file, write_body(fh, offset, 8, b"overflow"));
        let allocate = Encoder::new()
            .u64(fh)
            .u64(offset)
            .u64(4096)
            .u32(0)
            .u32(0)
            .bytes();
        let huge = Encoder::new()
            .u64(fh)
            .u64(4096)
            .u64(offset)
            .u32(0)
            .u32(0)
            .bytes();
        let size = SetAttr {
            valid: valid::SIZE,
            size: offset,
            ..SetAttr::default()
        };
        let mut rows = vec![
            Row::new(format!("READ at {offset:#x}"), read, EINVAL),
            Row::new(format!("WRITE at {offset:#x}"), write, TOO_BIG),
            Row::new(
                format!("FALLOCATE at {offset:#x}"),
                Request::new(opcode::FALLOCATE, file, allocate),
                INVALID_OR_TOO_BIG,
            ),
            Row::new(
                format!("FALLOCATE of {offset:#x}"),
                Request::new(opcode::FALLOCATE, file, huge),
                INVALID_OR_TOO_BIG,
            ),
        ];
        if offset > top {
            let request = Request::new(opcode::SETATTR, file, size.bytes());
            rows.push(Row::new(
                format!("truncate to {offset:#x}"),
                request,
                INVALID_OR_TOO_BIG,
            ));
            let seek = Encoder::new().u64(fh).u64(offset).u32(0).u32(0).bytes();
            let request = Request::new(opcode::LSEEK, file, seek);
            rows.push(Row::new(format!("LSEEK to {offset:#x}"), request, EINVAL));
        }
        for number in [opcode::COPY_FILE_RANGE, opcode::COPY_FILE_RANGE_64] {
            let body = Encoder::new()
                .u64(fh)
                .u64(offset)
                .u64(file)
                .u64(fh)
                .u64(0)
                .u64(4096)
                .u64(0);
            let request = Request::new(number, file, body.bytes());
            rows.push(Row::new(
                format!("copy from {offset:#x}"),
                request,
                Answer::FineOr(&[libc::EINVAL, libc::EFBIG, libc::EOVERFLOW]),
            ));
        }
        scene.play(rows);
    }
    assert_eq!(scene.guest.read(file, fh, 0, 64).unwrap(), b"inside");
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn a_forged_directory_offset_is_refused_or_the_end() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let offsets = [
        3,
        1 << 31,
        1 << 32,
        i64::MAX as u64,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    for number in [opcode::READDIR, opcode::READDIRPLUS] {
        scene.play(offsets.map(|offset| {
            let body = read_body(target.dir_fh, offset, 4096);
            let name = format!("opcode {number} at {offset:#x}");
            Row::new(
                name,
                Request::new(number, target.dir, body),
                Answer::FineOr(&[libc::EINVAL]),
            )
        }));
    }
    let names = scene.guest.list(target.dir).unwrap();
    assert!(names.contains(&b"inner".to_vec()));
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn modes_flags_and_whences_nobody_knows_are_refused() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let (file, fh) = (target.file, target.fh);
    let allocate = |mode| {
        Encoder::new()
            .u64(fh)
            .u64(0)
            .u64(1)
            .u32(mode)
            .u32(0)
            .bytes()
    };
    let seek = |whence| Encoder::new().u64(fh).u64(0).u32(whence).u32(0).bytes();
    let rename = |flags| {
        let head = Encoder::new().u64(target.dir).u32(flags).u32(0);
        Request::new(
            opcode::RENAME2,
            target.dir,
            head.name(b"file").name(b"other").bytes(),
        )
    };
    let copy = |number, flags| {
        let body = Encoder::new()
            .u64(fh)
            .u64(0)
            .u64(file)
            .u64(fh)
            .u64(0)
            .u64(1)
            .u64(flags);
        Row::new(
            "copy with flags",
            Request::new(number, file, body.bytes()),
            EINVAL,
        )
    };
    let unsupported = Answer::Refused(&[libc::EOPNOTSUPP]);
    let mut rows = Vec::new();
    for mode in [1 << 8, 1 << 31, u32::MAX] {
        let request = Request::new(opcode::FALLOCATE, file, allocate(mode));
        rows.push(Row::new(
            format!("FALLOCATE mode {mode:#x}"),
            request,
            unsupported,
        ));
    }
    for whence in [5, 100, u32::MAX] {
        let request = Request::new(opcode::LSEEK, file, seek(whence));
        rows.push(Row::new(format!("LSEEK whence {whence}"), request, EINVAL));
    }
    for flags in [1 << 3, 1 << 31, 3, u32::MAX] {
        rows.push(Row::new(
            format!("RENAME2 flags {flags:#x}"),
            rename(flags),
            EINVAL,
        ));
    }
    rows.push(copy(opcode::COPY_FILE_RANGE, u64::MAX));
    rows.push(copy(opcode::COPY_FILE_RANGE_64, 1 << 20));
    scene.play(rows);
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn a_directory_cannot_be_moved_into_itself() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let inner = scene.guest.lookup(target.dir, "inner").unwrap().node;
    for (to, flags) in [(target.dir, 0), (inner, 0), (inner, 1), (inner, 2)] {
        let moved = scene.guest.rename((ROOT, "dir"), (to, "below"), flags);
        let refused = moved.unwrap_err().errno();
        assert!(
            matches!(refused, Some(libc::EINVAL | libc::ENOENT)),
            "{refused:?}"
        );
        scene.check("a directory into itself");
    }
    scene.finish();
}

#[test]
fn a_copy_of_everything_is_bounded() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let (to, opened) = scene
        .guest
        .create(ROOT, "copy", 0o100_644, libc::O_RDWR as u32)
        .unwrap();
    for (number, len) in [
        (opcode::COPY_FILE_RANGE, 8),
        (opcode::COPY_FILE_RANGE_64, 8),
    ] {
        let body = Encoder::new()
            .u64(target.fh)
            .u64(0)
            .u64(to.node)
            .u64(opened.fh)
            .u64(0)
            .u64(u64::MAX)
            .u64(0)
            .bytes();
        let request = Request::new(number, target.file, body);
        let row = Row::new(
            "a copy of u64::MAX bytes",
            request,
            Answer::FineOr(&[libc::EINVAL, libc::EOVERFLOW]),
        );
        let returned = scene.ask(&row);
        if let Ok(reply) = returned.reply() {
            assert_eq!(reply.len(), len);
            assert_eq!(reply[..4], [6, 0, 0, 0], "as many bytes as the file has");
        }
        scene.check(&row.name);
    }
    scene.finish();
}

#[test]
fn what_files_here_cannot_do_is_said_so() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let ioctl = |command: u32, input: u32, output: u32| {
        let body = Encoder::new()
            .u64(target.fh)
            .u32(0)
            .u32(command)
            .u64(0)
            .u32(input)
            .u32(output);
        Request::new(opcode::IOCTL, target.file, body.bytes())
    };
    let poll = Encoder::new().u64(target.fh).u64(1).u32(0).u32(1).bytes();
    let bmap = Encoder::new().u64(0).u32(4096).u32(0).bytes();
    let unknown = Answer::Refused(&[libc::ENOTTY, libc::ENOSYS]);
    let enosys = Answer::Refused(&[libc::ENOSYS]);
    let odd = Answer::Refused(&[libc::ENOTTY, libc::ENOSYS, libc::EINVAL]);
    scene.play([
        Row::new("IOCTL FIONREAD", ioctl(0x541b, 0, 4), unknown),
        Row::new("IOCTL 0", ioctl(0, 0, 0), unknown),
        Row::new("IOCTL u32::MAX", ioctl(u32::MAX, 0, 0), unknown),
        Row::new("IOCTL with a huge output", ioctl(0x541b, 0, u32::MAX), odd),
        Row::new(
            "IOCTL with input that is not there",
            ioctl(0x541b, u32::MAX, 0),
            odd,
        ),
        Row::new(
            "FS_IOC_SETFLAGS without input",
            ioctl(0x4008_6602, 0, 0),
            odd,
        ),
        Row::new(
            "FS_IOC_GETFLAGS without output",
            ioctl(0x8008_6601, 0, 0),
            odd,
        ),
        Row::new(
            "POLL",
            Request::new(opcode::POLL, target.file, poll),
            enosys,
        ),
        Row::new(
            "BMAP",
            Request::new(opcode::BMAP, target.file, bmap),
            enosys,
        ),
    ]);
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn nothing_changes_on_a_read_only_share() {
    let mut scene = Scene::set(Setting::launched_with(&["--readonly"]));
    let before = crate::tree::fingerprint(&scene.ground.share());
    let dir = scene.guest.lookup(ROOT, "dir").unwrap().node;
    let file = scene.guest.lookup(ROOT, "file").unwrap().node;
    let fh = scene.guest.open(file, libc::O_RDONLY as u32).unwrap().fh;
    let dir_fh = scene.guest.opendir(dir).unwrap().fh;
    let agreed = scene.guest.agreed;
    let target = Target {
        dir,
        file,
        link: file,
        fh,
        dir_fh,
        agreed,
    };
    let changing = [
        "SYMLINK",
        "MKNOD",
        "MKDIR",
        "UNLINK",
        "RMDIR",
        "RENAME",
        "RENAME2",
        "LINK",
        "CREATE",
        "SETATTR",
        "SETATTR fh",
        "SETXATTR",
        "REMOVEXATTR",
        "WRITE",
        "FALLOCATE",
        "COPY_FILE_RANGE",
        "COPY_FILE_RANGE_64",
    ];
    const EROFS: Answer = Answer::Refused(&[libc::EROFS]);
    let rows: Vec<Row> = samples(&target)
        .iter()
        .filter(|sample| changing.contains(&sample.name))
        .map(|sample| {
            Row::new(
                format!("{}, read-only", sample.name),
                sample.request(),
                EROFS,
            )
        })
        .collect();
    assert_eq!(rows.len(), changing.len());
    scene.play(rows);
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        let refused = scene.guest.open(file, flags as u32).unwrap_err().errno();
        assert_eq!(refused, Some(libc::EROFS), "OPEN with {flags:#o}");
    }
    assert_eq!(scene.guest.read(file, fh, 0, 64).unwrap(), b"inside");
    assert_eq!(crate::tree::fingerprint(&scene.ground.share()), before);
    scene.finish();
}
