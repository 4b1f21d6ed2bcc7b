//! Reading the lines of a dump.

use std::io::{BufRead, Read};

use super::line::{Beginning, FORMAT, Line};
use crate::error::VolumeError;

/// No line is longer: that of the longest value of an extended attribute, or part of a file's content.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// The lines that come, each with its number.
pub(super) struct Lines<'a> {
    from: &'a mut dyn BufRead,
    buffer: Vec<u8>,
    number: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(from: &'a mut dyn BufRead) -> Self {
        Self {
            from,
            buffer: Vec::new(),
            number: 0,
        }
    }

    /// That something is wrong with the last line that was read.
    pub(super) fn wrong(&self, what: impl ToString) -> VolumeError {
        VolumeError::Dump {
            line: self.number,
            what: what.to_string(),
        }
    }

    /// The next line; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<Line>, VolumeError> {
        self.buffer.clear();
        self.number = self.number.saturating_add(1);
        let mut limited = (&mut *self.from).take(MAX_LINE_BYTES);
        let read = limited.read_until(b'\n', &mut self.buffer);
        match read.map_err(|error| self.wrong(error))? {
            0 => Ok(None),
            _ if self.buffer.last() != Some(&b'\n') => {
                Err(self.wrong("it is too long, or the dump ends in the middle of it"))
            }
            _ => {
                let line = serde_json::from_slice(&self.buffer);
                line.map(Some).map_err(|error| self.wrong(error))
            }
        }
    }

    /// The first line.
    pub(super) fn beginning(&mut self) -> Result<Beginning, VolumeError> {
        match self.next() {
            Ok(Some(Line::Volume(beginning))) if beginning.format > FORMAT => Err(self.wrong(
                format!(
                    "the dump has format {}, this vfsd knows format {FORMAT}: use a newer vfsd",
                    beginning.format
                ),
            )),
            Ok(Some(Line::Volume(beginning))) if !beginning.content => Err(self.wrong(
                "the dump was made without content, which no volume can be made of: dump the volume again",
            )),
            Ok(Some(Line::Volume(beginning))) => Ok(beginning),
            _ => Err(self.wrong("this is no dump of `vfsd volume dump`")),
        }
    }
}
