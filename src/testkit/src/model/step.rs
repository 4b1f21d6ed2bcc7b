//! Operations, as data: they can be printed, repeated and left out.

use vfsd_backend::{FallocateMode, OpenFlags, RenameFlags, XattrFlags};

use super::random::Random;
use crate::conformance::Features;

/// Which of the known files, or of the open ones: a number whose remainder picks.
pub(super) type Pick = u8;

/// One operation. `dir` and `node` pick among the known files, whatever they are: operations in what
/// is no directory are refused, and the refusals are compared too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Lookup {
        dir: Pick,
        name: Pick,
    },
    Create {
        dir: Pick,
        name: Pick,
        flags: OpenFlags,
        permissions: u32,
        umask: u32,
    },
    Tmpfile {
        dir: Pick,
        flags: OpenFlags,
    },
    Mkdir {
        dir: Pick,
        name: Pick,
        permissions: u32,
        umask: u32,
    },
    Mkfifo {
        dir: Pick,
        name: Pick,
    },
    Symlink {
        dir: Pick,
        name: Pick,
        target: Pick,
    },
    Link {
        node: Pick,
        dir: Pick,
        name: Pick,
    },
    Unlink {
        dir: Pick,
        name: Pick,
    },
    Rmdir {
        dir: Pick,
        name: Pick,
    },
    Rename {
        dir: Pick,
        name: Pick,
        new_dir: Pick,
        new_name: Pick,
        flags: RenameFlags,
    },
    Forget {
        node: Pick,
    },
    Open {
        node: Pick,
        flags: OpenFlags,
    },
    Close {
        handle: Pick,
    },
    Read {
        handle: Pick,
        offset: u64,
        length: usize,
    },
    Write {
        handle: Pick,
        offset: u64,
        length: usize,
        fill: u8,
        kill_privileges: bool,
    },
    Allocate {
        handle: Pick,
        mode: FallocateMode,
        offset: u64,
        length: u64,
    },
    Copy {
        from: Pick,
        offset: u64,
        to: Pick,
        target_offset: u64,
        length: u64,
    },
    Sync {
        handle: Pick,
    },
    Truncate {
        node: Pick,
        size: u64,
        kill_privileges: bool,
    },
    TruncateOpen {
        handle: Pick,
        size: u64,
    },
    Chmod {
        node: Pick,
        permissions: u32,
    },
    Chown {
        node: Pick,
        uid: u32,
        gid: u32,
    },
    Age {
        node: Pick,
        seconds: u32,
    },
    Readlink {
        node: Pick,
    },
    List {
        dir: Pick,
    },
    GetXattr {
        node: Pick,
        name: Pick,
    },
    SetXattr {
        node: Pick,
        name: Pick,
        length: usize,
        fill: u8,
        flags: XattrFlags,
    },
    RemoveXattr {
        node: Pick,
        name: Pick,
    },
    SetAcl {
        node: Pick,
        default: bool,
        named: bool,
        bits: u16,
    },
    RemoveAcl {
        node: Pick,
        default: bool,
    },
}

/// Makes steps that the features allow.
#[derive(Debug)]
pub(super) struct Steps {
    random: Random,
    features: Features,
}

/// The part of a file that steps work on, in bytes.
const SPAN: u64 = 80_000;
const BLOCK: u64 = 4096;

impl Steps {
    pub(super) fn new(seed: u64, features: Features) -> Self {
        Self {
            random: Random::new(seed),
            features,
        }
    }

    fn pick(&mut self) -> Pick {
        self.random.next().to_le_bytes()[0]
    }

    /// An offset; often at, or next to, the border of a block.
    fn offset(&mut self) -> u64 {
        match self.random.below(4) {
            0 => self.random.below(SPAN),
            1 => self.random.below(SPAN / BLOCK) * BLOCK,
            2 => (self.random.below(SPAN / BLOCK) * BLOCK).saturating_sub(1),
            _ => self.random.below(200),
        }
    }

    /// At least 1: guests do not ask for nothing.
    fn length(&mut self) -> u64 {
        match self.random.below(3) {
            0 => 1 + self.random.below(20_000),
            1 => (1 + self.random.below(4)) * BLOCK,
            _ => 1 + self.random.below(100),
        }
    }

    fn short_length(&mut self) -> usize {
        usize::try_from(self.length()).unwrap_or(0)
    }

    /// Where set-group-id is, the group may execute, whatever a umask or an ACL of these steps takes away.
    /// Elsewhere Linux clears the bit for callers outside the group, and a backend does not know who is.
    fn permissions(&mut self) -> u32 {
        self.random.of(&[
            0o644, 0o600, 0o755, 0o777, 0o000, 0o4755, 0o2755, 0o2711, 0o1777, 0o640,
        ])
    }

    fn umask(&mut self) -> u32 {
        if self.features.contains(Features::ACL) {
            self.random.of(&[0, 0o022, 0o026])
        } else {
            0
        }
    }

    fn open_flags(&mut self) -> OpenFlags {
        let both = OpenFlags::READ | OpenFlags::WRITE;
        self.random.of(&[
            both,
            both,
            both,
            both | OpenFlags::APPEND,
            both | OpenFlags::TRUNCATE,
            OpenFlags::READ,
            OpenFlags::WRITE,
        ])
    }

    fn allocate_mode(&mut self) -> FallocateMode {
        let keep = FallocateMode::KEEP_SIZE;
        let modes = [
            FallocateMode::PUNCH_HOLE | keep,
            FallocateMode::PUNCH_HOLE | keep,
            FallocateMode::ZERO_RANGE,
            FallocateMode::ZERO_RANGE | keep,
            FallocateMode::empty(),
            keep,
            FallocateMode::COLLAPSE_RANGE,
            FallocateMode::INSERT_RANGE,
        ];
        if self.features.contains(Features::SHIFT_RANGES) {
            self.random.of(&modes)
        } else {
            self.random.of(&modes[..6])
        }
    }

    fn rename_flags(&mut self) -> RenameFlags {
        let flags = self.random.of(&[
            RenameFlags::empty(),
            RenameFlags::empty(),
            RenameFlags::NOREPLACE,
            RenameFlags::EXCHANGE,
            RenameFlags::WHITEOUT,
        ]);
        let missing = (flags.contains(RenameFlags::EXCHANGE)
            && !self.features.contains(Features::EXCHANGE))
            || (flags.contains(RenameFlags::WHITEOUT)
                && !self.features.contains(Features::WHITEOUT));
        if missing { RenameFlags::empty() } else { flags }
    }

    /// The next step.
    pub(super) fn next(&mut self) -> Step {
        loop {
            let step = self.any();
            if self.features.contains(needs(&step)) {
                return step;
            }
        }
    }

    fn any(&mut self) -> Step {
        match self.random.below(100) {
            0..20 => self.io(),
            20..48 => self.naming(),
            48..62 => self.opening(),
            62..78 => self.space(),
            78..90 => self.attributes(),
            _ => self.xattrs(),
        }
    }

    fn io(&mut self) -> Step {
        let handle = self.pick();
        if self.random.one_in(3) {
            return Step::Read {
                handle,
                offset: self.offset(),
                length: self.short_length(),
            };
        }
        Step::Write {
            handle,
            offset: self.offset(),
            length: self.short_length(),
            fill: self.pick(),
            kill_privileges: self.features.contains(Features::KILL_PRIVILEGES)
                && self.random.one_in(4),
        }
    }

    fn naming(&mut self) -> Step {
        let (dir, name) = (self.pick(), self.pick());
        match self.random.below(14) {
            0 | 1 => Step::Lookup { dir, name },
            2 | 3 => Step::Mkdir {
                dir,
                name,
                permissions: self.permissions(),
                umask: self.umask(),
            },
            4 => Step::Mkfifo { dir, name },
            5 => Step::Symlink {
                dir,
                name,
                target: self.pick(),
            },
            6 | 7 => Step::Link {
                node: self.pick(),
                dir,
                name,
            },
            8 | 9 => Step::Unlink { dir, name },
            10 => Step::Rmdir { dir, name },
            _ => Step::Rename {
                dir,
                name,
                new_dir: self.pick(),
                new_name: self.pick(),
                flags: self.rename_flags(),
            },
        }
    }

    fn opening(&mut self) -> Step {
        match self.random.below(7) {
            0..3 => {
                let exclusive = if self.random.one_in(3) {
                    OpenFlags::EXCLUSIVE
                } else {
                    OpenFlags::empty()
                };
                Step::Create {
                    dir: self.pick(),
                    name: self.pick(),
                    flags: self.open_flags() | exclusive,
                    permissions: self.permissions(),
                    umask: self.umask(),
                }
            }
            3 => Step::Tmpfile {
                dir: self.pick(),
                flags: self.random.of(&[OpenFlags::empty(), OpenFlags::EXCLUSIVE]),
            },
            4 | 5 => Step::Open {
                node: self.pick(),
                flags: self.open_flags(),
            },
            _ => Step::Close {
                handle: self.pick(),
            },
        }
    }

    fn space(&mut self) -> Step {
        let handle = self.pick();
        match self.random.below(8) {
            0..3 => Step::Allocate {
                handle,
                mode: self.allocate_mode(),
                offset: self.offset(),
                length: self.length(),
            },
            3 => Step::Copy {
                from: handle,
                offset: self.offset(),
                to: self.pick(),
                target_offset: self.offset(),
                length: self.length(),
            },
            4 => Step::Sync { handle },
            5 => Step::TruncateOpen {
                handle,
                size: self.offset(),
            },
            _ => Step::Truncate {
                node: self.pick(),
                size: self.offset(),
                kill_privileges: self.features.contains(Features::KILL_PRIVILEGES)
                    && self.random.one_in(3),
            },
        }
    }

    fn attributes(&mut self) -> Step {
        let node = self.pick();
        match self.random.below(8) {
            0 | 1 => Step::Chmod {
                node,
                permissions: self.permissions(),
            },
            2 => Step::Chown {
                node,
                uid: self.random.of(&[0, 1000, 2000]),
                gid: self.random.of(&[0, 1000, 2000]),
            },
            3 | 4 => Step::Age {
                node,
                seconds: u32::from(self.pick()),
            },
            5 => Step::Readlink { node },
            6 => Step::Forget { node },
            _ => Step::List { dir: node },
        }
    }

    fn xattrs(&mut self) -> Step {
        let (node, name) = (self.pick(), self.pick());
        match self.random.below(7) {
            0 => Step::GetXattr { node, name },
            1 | 2 => Step::SetXattr {
                node,
                name,
                length: self.random.of(&[0, 1, 20, 150]),
                fill: self.pick(),
                flags: self.random.of(&[
                    XattrFlags::empty(),
                    XattrFlags::empty(),
                    XattrFlags::CREATE,
                    XattrFlags::REPLACE,
                ]),
            },
            3 => Step::RemoveXattr { node, name },
            4 | 5 => Step::SetAcl {
                node,
                default: self.random.one_in(2),
                named: !self.random.one_in(3),
                bits: u16::from(self.pick()) << 4 | u16::from(self.pick()),
            },
            _ => Step::RemoveAcl {
                node,
                default: self.random.one_in(2),
            },
        }
    }
}

/// What a step needs beyond what every storage has.
fn needs(step: &Step) -> Features {
    match step {
        Step::Tmpfile { .. } => Features::TMPFILE,
        Step::Mkfifo { .. } => Features::SPECIAL_FILES,
        Step::Link { .. } => Features::HARD_LINKS,
        Step::Allocate { .. } => Features::ALLOCATION,
        Step::Copy { .. } => Features::COPY_RANGE,
        Step::Chown { .. } => Features::PRIVILEGED,
        Step::GetXattr { .. } | Step::SetXattr { .. } | Step::RemoveXattr { .. } => Features::XATTR,
        Step::SetAcl { .. } | Step::RemoveAcl { .. } => Features::ACL,
        _ => Features::empty(),
    }
}
