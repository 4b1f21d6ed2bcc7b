//! Bytes of redo records: integers in little-endian order, byte strings with their length before them.

use vfsd_backend::Timestamp;

/// A record that cannot be read: cut short, or of a kind that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRecord;

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Encoder(pub(crate) Vec<u8>);

impl Encoder {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn time(&mut self, value: Timestamp) {
        self.0.extend_from_slice(&value.seconds.to_le_bytes());
        self.u32(value.nanoseconds);
    }

    /// What is longer than 4 GiB is cut: names, values and targets are at most 64 KiB.
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.u32(length);
        let kept = usize::try_from(length).unwrap_or(usize::MAX);
        self.0.extend_from_slice(value.get(..kept).unwrap_or(value));
    }
}

/// Takes values from the start of a buffer.
#[derive(Debug)]
pub(crate) struct Decoder<'a>(pub(crate) &'a [u8]);

impl<'a> Decoder<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], BadRecord> {
        let (value, rest) = self.0.split_first_chunk::<N>().ok_or(BadRecord)?;
        self.0 = rest;
        Ok(*value)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, BadRecord> {
        self.array::<1>().map(|[value]| value)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, BadRecord> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, BadRecord> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, BadRecord> {
        let seconds = self.array().map(i64::from_le_bytes)?;
        Timestamp::new(seconds, self.u32()?).map_err(|_| BadRecord)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], BadRecord> {
        let length = usize::try_from(self.u32()?).map_err(|_| BadRecord)?;
        let (value, rest) = self.0.split_at_checked(length).ok_or(BadRecord)?;
        self.0 = rest;
        Ok(value)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), BadRecord> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(BadRecord)
        }
    }
}
