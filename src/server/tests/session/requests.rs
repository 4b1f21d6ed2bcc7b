//! Requests that a guest's kernel would not send, or sends in a race.

use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{IoctlIn, IoctlOut};
use zerocopy::IntoBytes;

use crate::guest::{Guest, structure};

const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;
const O_RDWR: u32 = 2;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;

const EPERM: i32 = 1;
const EEXIST: i32 = 17;
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
fn an_ioctl_that_may_touch_any_memory_of_the_caller_is_refused() {
    const GETFLAGS: u32 = 0x8008_6601;
    let guest = Guest::on_memory();
    let (file, open) = guest.create(1, "file").unwrap();
    let ioctl = |flags: u32| {
        let arg = IoctlIn {
            fh: open.fh,
            flags,
            cmd: GETFLAGS,
            arg: 0,
            in_size: 0,
            out_size: 4,
        };
        guest.call(Opcode::Ioctl, file.nodeid, &[arg.as_bytes()])
    };
    let answer: [u8; size_of::<IoctlOut>() + 4] = structure(&ioctl(0).unwrap());
    assert_eq!(answer, [0; _]);
    assert_eq!(ioctl(1 << 1).unwrap_err(), EPERM);
}
