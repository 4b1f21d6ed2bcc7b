//! The table of an eStargz layer.

use std::cell::RefCell;

use crate::EntryKind;
use crate::blob::{BlobSource, Compression, Sha256Digest};
use crate::tar::{TarLimits, TarParser};

use super::{DECODED_MAX, TocError, TocLayer, decode, fetch};

/// What the table is called in the layer's tar.
pub(super) const TABLE: &[u8] = b"stargz.index.json";

/// Bytes of an empty gzip member with a subfield `SG` of 22 bytes: 16 hexadecimal digits and `STARGZ`.
const FOOTER: usize = 51;

/// The table, as JSON that was compared with its digest, and where what it speaks of ends.
pub(super) fn read(
    source: &dyn BlobSource,
    layer: TocLayer,
    digest: Sha256Digest,
) -> Result<(Vec<u8>, u64), TocError> {
    let mut footer = [0; FOOTER];
    let length = u64::try_from(FOOTER).unwrap_or(u64::MAX);
    let end = layer.size.checked_sub(length);
    let end = end.ok_or(TocError::Malformed("the layer is too short"))?;
    source.read_at(end, &mut footer).map_err(TocError::Read)?;
    let offset = place(&footer).ok_or(TocError::Malformed("it has no footer"))?;
    let length = end.checked_sub(offset);
    let length = length.ok_or(TocError::Malformed("its footer leads out of the layer"))?;
    // Decoded once where the bytes come from one place.
    let found = RefCell::new(None);
    let bytes = fetch(source, layer, offset, length, &|bytes| {
        let table = table(bytes, digest);
        let is_right = table.is_ok();
        *found.borrow_mut() = table.ok();
        is_right
    })?;
    match found.into_inner() {
        Some(table) => Ok((table, offset)),
        None => table(&bytes, digest).map(|table| (table, offset)),
    }
}

/// Where the footer says that the table's member begins.
fn place(footer: &[u8; FOOTER]) -> Option<u64> {
    let rest = footer.strip_prefix(&[0x1f, 0x8b, 8, 4])?;
    // A time and a system come before: they mean nothing.
    let extra = rest.get(6..)?.strip_prefix(&[26, 0, b'S', b'G', 22, 0])?;
    let (digits, rest) = extra.split_at_checked(16)?;
    rest.strip_prefix(b"STARGZ")?;
    // from_str_radix takes a sign, too.
    let is_number = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = str::from_utf8(digits).ok().filter(|_| is_number)?;
    u64::from_str_radix(digits, 16).ok()
}

/// The table in its member, if it is the one with this digest.
fn table(member: &[u8], digest: Sha256Digest) -> Result<Vec<u8>, TocError> {
    let tar = decode(Compression::Gzip, member, DECODED_MAX)?;
    let limits = TarLimits {
        entries: 16,
        ..TarLimits::default()
    };
    let mut parser = TarParser::new(limits);
    let contents = parser.push(&tar).and_then(|()| parser.finish());
    let contents = contents.map_err(|_| TocError::Malformed("it is in no tar"))?;
    let missing = TocError::Malformed("its member has another file");
    let entry = contents.entries.iter().find(|entry| entry.path == TABLE);
    let Some(EntryKind::Regular { data, .. }) = entry.map(|entry| &entry.kind) else {
        return Err(missing);
    };
    let [extent] = data.as_slice() else {
        return Err(missing);
    };
    let start = usize::try_from(extent.tar_offset).unwrap_or(usize::MAX);
    let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
    let json = tar.get(start..).and_then(|rest| rest.get(..length));
    let json = json.ok_or(missing)?;
    match Sha256Digest::of(json) == digest {
        true => Ok(json.to_vec()),
        false => Err(TocError::Digest),
    }
}
