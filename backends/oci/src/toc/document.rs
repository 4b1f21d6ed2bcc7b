//! The JSON of a table, entry by entry, so that it takes no more memory than what becomes of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::TocError;
use super::assembly::Assembly;

/// An entry as both formats have it. What is left out is zero or empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) r#type: String,
    pub(super) name: String,
    pub(super) link_name: String,
    pub(super) mode: i64,
    pub(super) size: u64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    /// RFC 3339; eStargz has whole seconds.
    pub(super) modtime: Option<String>,
    pub(super) dev_major: i64,
    pub(super) dev_minor: i64,
    /// Values in base64.
    pub(super) xattrs: Option<BTreeMap<String, String>>,
    /// Of the whole file.
    pub(super) digest: Option<String>,
    /// Where the chunk's member or frame begins in the layer.
    pub(super) offset: u64,
    /// Where the last chunk of the file ends, in zstd:chunked.
    pub(super) end_offset: u64,
    /// Where the chunk begins in its member, in eStargz.
    pub(super) inner_offset: u64,
    /// 0 for a chunk that goes to the end of the file.
    pub(super) chunk_size: u64,
    pub(super) chunk_offset: u64,
    pub(super) chunk_digest: Option<String>,
    /// In zstd:chunked `zeros` for a chunk that is a hole.
    pub(super) chunk_type: String,
}

/// Gives all entries of a table to `assembly`.
pub(super) fn read(json: &[u8], assembly: &mut Assembly) -> Result<(), TocError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.deserialize_map(Document(assembly))?;
    Ok(deserializer.end()?)
}

struct Document<'a>(&'a mut Assembly);

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut version, mut had_entries) = (None, false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "version" => version = Some(map.next_value::<u64>()?),
                "entries" if had_entries => return Err(A::Error::duplicate_field("entries")),
                "entries" => {
                    map.next_value_seed(Entries(&mut *self.0))?;
                    had_entries = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match (version, had_entries) {
            (Some(1), true) => Ok(()),
            (Some(1), false) => Err(A::Error::missing_field("entries")),
            _ => Err(A::Error::custom("it is of another version than 1")),
        }
    }
}

struct Entries<'a>(&'a mut Assembly);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(record) = entries.next_element::<Record>()? {
            self.0.take(record).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}
