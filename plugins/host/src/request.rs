//! Requests as they go to a plugin.

use vfsd_backend::{Caller, Identity, LinkTarget, Name, NewInode, XattrName};
use vfsd_fuse::wire::{EXT_GROUPS, ExtHeader, INVALID_ID, InHeader, LkIn, NodeId, Secctx, Unique};
use vfsd_fuse::{InitFlags, Opcode, RequestHeader};
use vfsd_plugin_protocol::AreaIn;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::area::Range;

/// How long the body of a reply may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Exactly this.
    Exactly(usize),
    /// Up to this.
    AtMost(usize),
    /// Up to this, or an extent of a descriptor that is no longer.
    Data(usize),
}

impl Expected {
    pub(crate) fn allows(self, length: usize) -> bool {
        match self {
            Self::Exactly(expected) => length == expected,
            Self::AtMost(most) | Self::Data(most) => length <= most,
        }
    }
}

/// What has to be given back when a reply comes that nobody waits for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undo {
    Nothing,
    /// A node: the body is an entry.
    Entry,
    /// A handle of this node.
    Open {
        node: NodeId,
        directory: bool,
    },
    /// Both: an entry and a handle.
    Created,
    /// A lock.
    Lock {
        node: NodeId,
        lock: LkIn,
    },
}

/// A request without its number.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) opcode: Opcode,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
    pub(crate) undo: Undo,
    /// Bytes of payload, here or in the reply.
    pub(crate) payload: usize,
    /// What holds its data, if that is not `bytes`.
    pub(crate) range: Option<Range>,
}

impl Request {
    /// A request about a node, of nobody in particular.
    pub(crate) fn new(opcode: Opcode, node: NodeId) -> Self {
        let header = InHeader {
            opcode: opcode.number(),
            nodeid: node,
            uid: INVALID_ID,
            gid: INVALID_ID,
            ..InHeader::new_zeroed()
        };
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(header.as_bytes());
        Self {
            opcode,
            bytes,
            expected: Expected::Exactly(0),
            undo: Undo::Nothing,
            payload: 0,
            range: None,
        }
    }

    /// Who asks.
    pub(crate) fn from(mut self, caller: Caller) -> Self {
        self.header(|header| {
            header.pid = caller.pid;
            if let Some(identity) = caller.identity {
                header.uid = identity.uid;
                header.gid = identity.gid;
            }
        });
        self
    }

    /// Who makes a file. Where nobody is told, it is the daemon.
    pub(crate) fn by(self, caller: Caller) -> Self {
        let daemon = || Identity {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            supplementary: None,
        };
        self.from(Caller {
            identity: Some(caller.identity.unwrap_or_else(daemon)),
            ..caller
        })
    }

    /// Whether whoever changes content loses set-id bits, where the opcode has no flag for it: those of user 0 stay.
    pub(crate) fn kills_privileges(mut self, kills: bool) -> Self {
        if !kills {
            self.header(|header| {
                header.uid = 0;
                header.gid = 0;
            });
        }
        self
    }

    pub(crate) fn arg(mut self, arg: &(impl IntoBytes + Immutable)) -> Self {
        self.bytes.extend_from_slice(arg.as_bytes());
        self
    }

    fn string(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.push(0);
        self
    }

    pub(crate) fn name(self, name: Name<'_>) -> Self {
        self.string(name.as_bytes())
    }

    pub(crate) fn target(self, target: LinkTarget<'_>) -> Self {
        self.string(target.as_bytes())
    }

    pub(crate) fn xattr(self, name: XattrName<'_>) -> Self {
        self.string(name.as_bytes())
    }

    /// The name that TMPFILE carries.
    pub(crate) fn no_name(self) -> Self {
        self.string(b"/")
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// What comes with a new inode, as far as it was agreed on.
    pub(crate) fn extensions(
        mut self,
        agreed: InitFlags,
        caller: Caller,
        inode: &NewInode<'_>,
    ) -> Self {
        let start = self.bytes.len();
        if let Some(label) = inode
            .security
            .filter(|_| agreed.contains(InitFlags::SECURITY_CTX))
        {
            let (name, value) = (label.name.as_bytes(), label.value);
            let head = Secctx {
                size: u32::try_from(value.len()).unwrap_or(0),
                padding: 0,
            };
            self.extension(1, &[head.as_bytes(), name, b"\0", value]);
        }
        let group = caller.identity.and_then(|identity| identity.supplementary);
        if let Some(group) = group.filter(|_| agreed.contains(InitFlags::CREATE_SUPP_GROUP)) {
            self.extension(EXT_GROUPS, &[1_u32.as_bytes(), group.as_bytes()]);
        }
        let length = self.bytes.len().saturating_sub(start) >> 3;
        self.header(|header| header.total_extlen = u16::try_from(length).unwrap_or(0));
        self
    }

    fn extension(&mut self, kind: u32, parts: &[&[u8]]) {
        let body: usize = parts.iter().map(|part| part.len()).sum();
        let size = body.saturating_add(size_of::<ExtHeader>());
        let header = ExtHeader {
            size: u32::try_from(size).unwrap_or(0),
            r#type: kind,
        };
        self.bytes.extend_from_slice(header.as_bytes());
        parts
            .iter()
            .for_each(|part| self.bytes.extend_from_slice(part));
        let padding = size.next_multiple_of(8).saturating_sub(size);
        self.bytes.extend(std::iter::repeat_n(0, padding));
    }

    /// The reply is one structure.
    pub(crate) fn fixed<T>(mut self) -> Self {
        self.expected = Expected::Exactly(size_of::<T>());
        self
    }

    pub(crate) fn expects(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    pub(crate) fn undo(mut self, undo: Undo) -> Self {
        self.undo = undo;
        self
    }

    /// Bytes of payload that go there or come back.
    pub(crate) fn weighs(mut self, payload: usize) -> Self {
        self.payload = payload;
        self
    }

    /// The data are in the area.
    pub(crate) fn data_in(mut self, range: Range) -> Self {
        let offset = range.offset();
        self.range = Some(range);
        self.arg(&AreaIn { offset })
    }

    /// The whole message, with its number.
    pub(crate) fn numbered(mut self, unique: Unique) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.header(|header| {
            header.len = length;
            header.unique = unique;
        });
        self.bytes
    }

    fn header(&mut self, change: impl FnOnce(&mut InHeader)) {
        let Some(bytes) = self.bytes.get_mut(..RequestHeader::SIZE) else {
            return;
        };
        if let Ok(mut header) = InHeader::read_from_bytes(bytes) {
            change(&mut header);
            bytes.copy_from_slice(header.as_bytes());
        }
    }
}
