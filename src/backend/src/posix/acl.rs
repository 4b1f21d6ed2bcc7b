//! POSIX access control lists: the form in `system.posix_acl_*`, and what they mean.
//!
//! The rules are those of the kernel's fs/posix_acl.c, which follows POSIX 1003.1e draft 17.

use crate::{AccessMask, Errno, Identity};

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
const NO_ID: u32 = u32::MAX;

/// Whom an entry is about. The order is the one that entries must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    UserObject,
    User,
    GroupObject,
    Group,
    Mask,
    Other,
}

const TAGS: [(Tag, u16); 6] = [
    (Tag::UserObject, 0x01),
    (Tag::User, 0x02),
    (Tag::GroupObject, 0x04),
    (Tag::Group, 0x08),
    (Tag::Mask, 0x10),
    (Tag::Other, 0x20),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AclEntry {
    tag: Tag,
    /// 0 to 7.
    permissions: u32,
    id: u32,
}

/// A valid list: owner, group and other are there once each, and a mask when anyone is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<AclEntry>,
}

fn shift(tag: Tag) -> u32 {
    match tag {
        Tag::UserObject => 6,
        Tag::GroupObject | Tag::Mask => 3,
        _ => 0,
    }
}

/// Replaces one class of the permission bits.
fn set_class(mode: u32, class: Tag, permissions: u32) -> u32 {
    (mode & !(7 << shift(class))) | (permissions << shift(class))
}

/// One class of the permission bits.
fn class_of(mode: u32, class: Tag) -> u32 {
    (mode >> shift(class)) & 7
}

impl Acl {
    /// Reads the value of an extended attribute. `None`: a list without entries, which removes.
    ///
    /// # Errors
    /// EOPNOTSUPP for an unknown version, EINVAL for what is not a valid list.
    pub fn decode(value: &[u8]) -> Result<Option<Self>, Errno> {
        if value.is_empty() {
            return Ok(None);
        }
        let (header, body) = value
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(Errno::INVAL)?;
        if u32::from_le_bytes(*header) != VERSION {
            return Err(Errno::OPNOTSUPP);
        }
        let (records, rest) = body.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(Errno::INVAL);
        }
        if records.is_empty() {
            return Ok(None);
        }
        let entries = records.iter().map(decode_entry).collect::<Result<_, _>>()?;
        let acl = Self { entries };
        if acl.is_valid() {
            Ok(Some(acl))
        } else {
            Err(Errno::INVAL)
        }
    }

    /// The value of the extended attribute.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            let tag = TAGS
                .iter()
                .find(|(tag, _)| *tag == entry.tag)
                .map_or(0, |(_, number)| *number);
            value.extend_from_slice(&tag.to_le_bytes());
            // At most 7: the upper half of the field is empty.
            value.extend(entry.permissions.to_le_bytes().iter().take(2));
            value.extend_from_slice(&entry.id.to_le_bytes());
        }
        value
    }

    /// Length of the value in bytes.
    pub fn encoded_bytes(&self) -> u64 {
        let bytes = self
            .entries
            .len()
            .saturating_mul(ENTRY_BYTES)
            .saturating_add(HEADER_BYTES);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.entries.iter().filter(|entry| entry.tag == tag).count();
        let named = self.names_someone();
        self.entries.is_sorted_by_key(|entry| entry.tag)
            && count(Tag::UserObject) == 1
            && count(Tag::GroupObject) == 1
            && count(Tag::Other) == 1
            && (count(Tag::Mask) == 1 || (count(Tag::Mask) == 0 && !named))
    }

    fn names_someone(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| matches!(entry.tag, Tag::User | Tag::Group))
    }

    fn get(&self, tag: Tag) -> Option<u32> {
        self.entries
            .iter()
            .find(|entry| entry.tag == tag)
            .map(|entry| entry.permissions)
    }

    fn set(&mut self, tag: Tag, permissions: u32) {
        for entry in &mut self.entries {
            if entry.tag == tag {
                entry.permissions = permissions;
            }
        }
    }

    /// Which entry stands for the group bits of the mode.
    fn group_class(&self) -> Tag {
        match self.get(Tag::Mask) {
            Some(_) => Tag::Mask,
            None => Tag::GroupObject,
        }
    }

    /// Whether the permission bits alone say the same.
    pub fn is_minimal(&self) -> bool {
        self.get(Tag::Mask).is_none() && !self.names_someone()
    }

    /// `mode` with the permission bits that this list has.
    pub fn apply_to_mode(&self, mode: u32) -> u32 {
        [Tag::UserObject, self.group_class(), Tag::Other]
            .into_iter()
            .fold(mode, |mode, class| {
                set_class(mode, class, self.get(class).unwrap_or(0))
            })
    }

    /// Takes over the permission bits of `mode`, after chmod(2).
    pub fn apply_mode(&mut self, mode: u32) {
        for class in [Tag::UserObject, self.group_class(), Tag::Other] {
            self.set(class, class_of(mode, class));
        }
    }

    /// Makes this default list the access list of a new file: bits that `mode` does not ask for
    /// go from the list, and bits that the list does not have go from the mode. Answers the mode.
    pub fn restrict(&mut self, mode: u32) -> u32 {
        let mut mode = mode;
        for class in [Tag::UserObject, self.group_class(), Tag::Other] {
            let both = self.get(class).unwrap_or(0) & class_of(mode, class);
            self.set(class, both);
            mode = set_class(mode, class, both);
        }
        mode
    }

    /// Whether the list lets `caller` do what `mask` says with a file of `owner` and `group`.
    pub fn permits(&self, caller: &Identity, owner: u32, group: u32, mask: AccessMask) -> bool {
        let wanted = mask.bits();
        let grants = |permissions: u32| permissions & wanted == wanted;
        let bound = self.get(Tag::Mask).unwrap_or(7);
        if caller.uid == owner {
            return grants(self.get(Tag::UserObject).unwrap_or(0));
        }
        let named = |entry: &&AclEntry| entry.tag == Tag::User && entry.id == caller.uid;
        if let Some(entry) = self.entries.iter().find(named) {
            return grants(entry.permissions & bound);
        }
        let mut in_group = false;
        for entry in &self.entries {
            let of_entry = match entry.tag {
                Tag::GroupObject => group,
                Tag::Group => entry.id,
                _ => continue,
            };
            if is_member(caller, of_entry) {
                in_group = true;
                if grants(entry.permissions & bound) {
                    return true;
                }
            }
        }
        !in_group && grants(self.get(Tag::Other).unwrap_or(0))
    }
}

/// Whether `caller` is known to be in `group`.
pub fn is_member(caller: &Identity, group: u32) -> bool {
    caller.gid == group || caller.supplementary == Some(group)
}

/// Whether permission bits let `caller` do what `mask` says.
pub fn mode_permits(
    mode: u32,
    caller: &Identity,
    owner: u32,
    group: u32,
    mask: AccessMask,
) -> bool {
    let class = if caller.uid == owner {
        Tag::UserObject
    } else if is_member(caller, group) {
        Tag::GroupObject
    } else {
        Tag::Other
    };
    class_of(mode, class) & mask.bits() == mask.bits()
}

fn decode_entry(record: &[u8; ENTRY_BYTES]) -> Result<AclEntry, Errno> {
    let [tag0, tag1, bits0, bits1, id @ ..] = *record;
    let number = u16::from_le_bytes([tag0, tag1]);
    let tag = TAGS
        .iter()
        .find(|(_, known)| *known == number)
        .map(|(tag, _)| *tag)
        .ok_or(Errno::INVAL)?;
    let permissions = u32::from(u16::from_le_bytes([bits0, bits1]));
    let id = u32::from_le_bytes(id);
    let named = matches!(tag, Tag::User | Tag::Group);
    if permissions > 7 || (named && id == NO_ID) {
        return Err(Errno::INVAL);
    }
    Ok(AclEntry {
        tag,
        permissions,
        id: if named { id } else { NO_ID },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    const MINIMAL: [(u16, u16, u32); 3] = [(0x01, 7, NO_ID), (0x04, 5, NO_ID), (0x20, 4, NO_ID)];
    const NAMED: [(u16, u16, u32); 6] = [
        (0x01, 7, NO_ID),
        (0x02, 6, 1000),
        (0x04, 5, NO_ID),
        (0x08, 7, 2000),
        (0x10, 4, NO_ID),
        (0x20, 0, NO_ID),
    ];

    #[test]
    fn what_is_decoded_encodes_to_the_same_bytes() {
        for entries in [&MINIMAL[..], &NAMED] {
            let bytes = value(entries);
            assert_eq!(Acl::decode(&bytes).unwrap().unwrap().encode(), bytes);
        }
    }

    #[test]
    fn lists_that_are_not_valid_are_refused() {
        let mut unsorted = NAMED;
        unsorted.swap(1, 2);
        let mut wide = MINIMAL;
        wide[0].1 = 8;
        let mut nobody = NAMED;
        nobody[1].2 = NO_ID;
        let unmasked = [NAMED[0], NAMED[1], NAMED[2], NAMED[5]];
        let twice = [MINIMAL[0], MINIMAL[0], MINIMAL[1], MINIMAL[2]];
        let unknown = [MINIMAL[0], MINIMAL[1], MINIMAL[2], (0x40, 0, 0)];
        for bad in [
            value(&unsorted),
            value(&wide),
            value(&nobody),
            value(&unmasked),
            value(&twice),
            value(&unknown),
            value(&MINIMAL[..2]),
            vec![2, 0, 0],
            [value(&MINIMAL), vec![0]].concat(),
        ] {
            assert_eq!(Acl::decode(&bad), Err(Errno::INVAL), "{bad:?}");
        }
        assert_eq!(Acl::decode(&[1, 0, 0, 0]), Err(Errno::OPNOTSUPP));
    }

    #[test]
    fn the_mask_bounds_named_users_and_groups_but_not_the_owner() {
        let acl = Acl::decode(&value(&NAMED)).unwrap().unwrap();
        let who = |uid, gid| Identity {
            uid,
            gid,
            supplementary: None,
        };
        let (owner, group) = (1, 2);
        let permits = |caller: Identity, mask| acl.permits(&caller, owner, group, mask);
        assert!(permits(who(1, 9), AccessMask::all()));
        assert!(permits(who(1000, 9), AccessMask::READ));
        assert!(!permits(who(1000, 9), AccessMask::WRITE));
        assert!(permits(who(9, 2000), AccessMask::READ));
        assert!(!permits(who(9, 2000), AccessMask::EXECUTE));
        assert!(!permits(who(9, 9), AccessMask::READ));
    }

    #[test]
    fn a_default_list_and_the_asked_mode_restrict_each_other() {
        let mut acl = Acl::decode(&value(&NAMED)).unwrap().unwrap();
        assert_eq!(acl.restrict(0o2666), 0o2640);
        assert_eq!(acl.get(Tag::Mask), Some(4));
        assert_eq!(acl.get(Tag::GroupObject), Some(5));
        assert_eq!(acl.get(Tag::UserObject), Some(6));
    }
}
