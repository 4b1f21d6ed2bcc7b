//! The archive format of an initrd: cpio, "newc" (the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Several archives may follow one another in one initrd; later entries win.

use std::io::{Result, Write};

/// Regular file, folder and character device as `st_mode` has them.
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Writes one archive.
#[derive(Debug)]
pub(crate) struct Archive<W: Write> {
    to: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// An archive written to `to`; finished by [`Archive::finish`].
    pub(crate) fn new(to: W) -> Self {
        Self { to, entries: 0 }
    }

    /// Adds a regular file with the permissions `mode`.
    ///
    /// # Errors
    /// The output cannot be written, or the file is 4 GiB or more.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(path, FILE | mode, (0, 0), content)
    }

    /// Adds a folder.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn folder(&mut self, path: &str) -> Result<()> {
        self.entry(path, FOLDER | 0o755, (0, 0), &[])
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn character_device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// Writes the end mark, padded so that another archive may follow.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.to)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).map_err(std::io::Error::other)?;
        let name_size = u32::try_from(path.len() + 1).map_err(std::io::Error::other)?;
        self.entries += 1;
        let (inode, links) = (self.entries, 1);
        write!(
            self.to,
            "070701{inode:08x}{mode:08x}{:08x}{:08x}{links:08x}",
            0, 0
        )?;
        write!(self.to, "{:08x}{size:08x}{:08x}{:08x}", 0, 0, 0)?;
        write!(
            self.to,
            "{:08x}{:08x}{name_size:08x}{:08x}",
            device.0, device.1, 0
        )?;
        self.to.write_all(path.as_bytes())?;
        self.to.write_all(b"\0")?;
        // The header is 110 bytes; name and content each end on a multiple of four.
        self.pad(110 + path.len() + 1)?;
        self.to.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> Result<()> {
        let padding: &[u8] = match written % 4 {
            0 => b"",
            1 => b"\0\0\0",
            2 => b"\0\0",
            _ => b"\0",
        };
        self.to.write_all(padding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_its_fields_where_the_format_puts_them() {
        let mut archive = Archive::new(Vec::new());
        archive.file("init", 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000081ed", "mode");
        assert_eq!(&bytes[54..62], b"00000005", "size");
        assert_eq!(
            &bytes[94..102],
            b"00000005",
            "length of the name with its NUL"
        );
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..121], b"hello");
        assert_eq!(&bytes[124..130], b"070701", "the next entry is aligned");
    }
}
