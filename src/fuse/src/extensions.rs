//! What guests append to requests that create an inode: security labels and supplementary groups.

use vfsd_backend::{Errno, SecurityContext, XattrName};
use zerocopy::FromBytes;

use crate::arguments::{Argument, Arguments};
use crate::wire::{EXT_GROUPS, ExtHeader, Secctx};
use crate::{InitFlags, Layout};

/// The extensions of a request, checked. At most one of each kind is accepted, and only what was
/// negotiated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extensions<'a> {
    /// The new inode's label.
    pub security: Option<SecurityContext<'a>>,
    /// A group of the caller's that the parent directory belongs to.
    pub supplementary_group: Option<u32>,
}

impl<'a> Argument<'a> for Extensions<'a> {
    fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno> {
        let flags = arguments.flags();
        let labels = flags.contains(InitFlags::SECURITY_CTX);
        let mut bytes = match arguments.announces_extensions() {
            true if labels || flags.contains(InitFlags::CREATE_SUPP_GROUP) => {
                arguments.extension_bytes()?
            }
            true => return Err(Errno::INVAL),
            // Linux before 6.3 sends labels, and only those, without announcing them.
            false if labels => arguments.extension_bytes()?,
            false => return Ok(Self::default()),
        };
        let mut found = Self::default();
        let mut labels_seen = false;
        let mut groups_seen = false;
        while !bytes.is_empty() {
            let (header, _) = ExtHeader::read_from_prefix(bytes).map_err(|_| Errno::INVAL)?;
            let size = usize::try_from(header.size).map_err(|_| Errno::INVAL)?;
            if size < size_of::<ExtHeader>() {
                return Err(Errno::INVAL);
            }
            let padded = size.checked_next_multiple_of(8).ok_or(Errno::INVAL)?;
            let (record, rest) = bytes.split_at_checked(padded).ok_or(Errno::INVAL)?;
            let body = record
                .get(size_of::<ExtHeader>()..size)
                .ok_or(Errno::INVAL)?;
            bytes = rest;
            match header.r#type {
                0..EXT_GROUPS if labels && !labels_seen => {
                    labels_seen = true;
                    found.security = security_label(body, header.r#type)?;
                }
                EXT_GROUPS if flags.contains(InitFlags::CREATE_SUPP_GROUP) && !groups_seen => {
                    groups_seen = true;
                    found.supplementary_group = supplementary_group(body)?;
                }
                _ => return Err(Errno::INVAL),
            }
        }
        Ok(found)
    }
}

fn security_label(body: &[u8], count: u32) -> Result<Option<SecurityContext<'_>>, Errno> {
    match count {
        0 => return Ok(None),
        1 => {}
        _ => return Err(Errno::INVAL),
    }
    let layout = Layout::default();
    let mut arguments = Arguments::new(body, layout, 0, 0);
    let head: Secctx = arguments.structure()?;
    let name = XattrName::new(arguments.string()?).map_err(|_| Errno::INVAL)?;
    let size = usize::try_from(head.size).map_err(|_| Errno::INVAL)?;
    let value = arguments.rest().get(..size).ok_or(Errno::INVAL)?;
    Ok(Some(SecurityContext { name, value }))
}

/// The guest sends at most the one group that matters: the parent directory's.
fn supplementary_group(body: &[u8]) -> Result<Option<u32>, Errno> {
    let (count, rest) = u32::read_from_prefix(body).map_err(|_| Errno::INVAL)?;
    match count {
        0 => Ok(None),
        1 => {
            let (group, _) = u32::read_from_prefix(rest).map_err(|_| Errno::INVAL)?;
            if group == crate::wire::INVALID_ID {
                Err(Errno::INVAL)
            } else {
                Ok(Some(group))
            }
        }
        _ => Err(Errno::INVAL),
    }
}
