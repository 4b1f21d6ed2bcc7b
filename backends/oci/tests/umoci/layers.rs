//! Layers made by hand.

use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

/// The time that entries have unless told otherwise.
pub(crate) const TIME: &str = "1000000000.123456789";

/// A layer, entry by entry.
#[derive(Default)]
pub(crate) struct Layer(Vec<u8>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds an entry: its header as `describe` leaves it, then `content`.
    pub(crate) fn entry(
        mut self,
        path: impl AsRef<[u8]>,
        kind: EntryType,
        content: &[u8],
        describe: impl FnOnce(&mut EntryBuilder),
    ) -> Self {
        let mut entry = EntryBuilder::new_ustar();
        entry.path(path).entry_type(kind);
        entry.size(content.len() as u64).unwrap();
        entry.mode(0o644).unwrap().uid(10).unwrap().gid(20).unwrap();
        describe(&mut entry);
        if !entry.needs_extension() {
            entry.add_pax("mtime", TIME);
        }
        self.0.extend(entry.finish_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: impl AsRef<[u8]>, content: &str) -> Self {
        self.entry(path, EntryType::Regular, content.as_bytes(), |_| {})
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(path, EntryType::Directory, b"", |entry| {
            entry.mode(mode).unwrap();
        })
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, b"", |entry| {
            entry.link_name(target);
        })
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, b"", |entry| {
            entry.link_name(target);
        })
    }

    pub(crate) fn device(self, path: &str, kind: EntryType, major: u32, minor: u32) -> Self {
        self.entry(path, kind, b"", |entry| {
            entry.device(major, minor).unwrap();
        })
    }

    /// A whiteout, or a mark.
    pub(crate) fn mark(self, path: &str) -> Self {
        self.file(path, "")
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}
