//! Copying the content of a file, holes left as holes.

use vfsd_backend::{
    AttributeChanges, BufferSink, Errno, Extent, ExtentSource, File, ReadRequest, Result, SeekFrom,
    SliceSource, WriteRequest,
};

/// Bytes that go through memory at once where a layer has no file of the host behind the content.
const PIECE: usize = 1 << 20;

/// Copies the first `length` bytes of a file to one that is empty.
///
/// # Errors
/// Those of the layers.
pub(crate) async fn copy(from: &dyn File, to: &dyn File, length: u64) -> Result<()> {
    let mut at = 0;
    let mut copied = 0;
    while at < length {
        let (start, end) = match next_data(from, at, length).await? {
            Some(range) => range,
            None => break,
        };
        let mut rest = Range {
            from: start,
            to: start,
            length: end.saturating_sub(start),
            kill_privileges: false,
        };
        // A file that ends early is no copy.
        while rest.length > 0 {
            match copy_some(from, to, rest).await? {
                0 => return Err(Errno::IO.into()),
                count => {
                    rest.from = rest.from.saturating_add(count);
                    rest.to = rest.from;
                    rest.length = rest.length.saturating_sub(count);
                }
            }
        }
        (at, copied) = (end, end);
    }
    if copied < length {
        // A hole at the end.
        let changes = AttributeChanges {
            size: Some(length),
            ..AttributeChanges::default()
        };
        to.setattr(changes).await?;
    }
    Ok(())
}

/// Where the next data begin and end; `None` when only holes are left. What cannot tell its holes is all
/// data.
async fn next_data(from: &dyn File, at: u64, length: u64) -> Result<Option<(u64, u64)>> {
    let start = match from.seek(SeekFrom::Data, at).await {
        Ok(start) => start,
        Err(error) if error.is(Errno::NXIO) => return Ok(None),
        Err(_) => return Ok(Some((at, length))),
    };
    if start >= length {
        return Ok(None);
    }
    let end = from.seek(SeekFrom::Hole, start).await;
    let end = end.map_or(length, |end| end.min(length));
    match end > start && start >= at {
        true => Ok(Some((start, end))),
        false => Ok(Some((at, length))),
    }
}

/// Bytes of one file, and where they go in another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) length: u64,
    /// Clear set-id bits of the other file.
    pub(crate) kill_privileges: bool,
}

/// Copies a range, and says how much of it that was: less at the end of the file.
///
/// # Errors
/// Those of the layers, before anything was copied.
pub(crate) async fn copy_range(from: &dyn File, to: &dyn File, range: Range) -> Result<u64> {
    let mut done: u64 = 0;
    while done < range.length {
        let rest = Range {
            from: range.from.saturating_add(done),
            to: range.to.saturating_add(done),
            length: range.length.saturating_sub(done),
            ..range
        };
        match copy_some(from, to, rest).await {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Copies the beginning of a range; nothing at the end of the file.
async fn copy_some(from: &dyn File, to: &dyn File, range: Range) -> Result<u64> {
    let request = WriteRequest {
        offset: range.to,
        kill_privileges: range.kill_privileges,
        // Also in a file that is appended to.
        cached: true,
    };
    let count = match from.extent(range.from, range.length).await? {
        Some(extent) => {
            let length = extent.length.min(range.length);
            let mut source = ExtentSource::new(Extent { length, ..extent });
            to.write(request, &mut source).await?
        }
        None => {
            let length = usize::try_from(range.length).unwrap_or(PIECE).min(PIECE);
            let mut buffer = vec![0; length];
            let offset = range.from;
            let read = ReadRequest { offset, length };
            let read = from.read(read, &mut BufferSink::new(&mut buffer)).await?;
            if read == 0 {
                return Ok(0);
            }
            let bytes = buffer.get(..read).ok_or(Errno::IO)?;
            to.write(request, &mut SliceSource::new(bytes)).await?
        }
    };
    match count {
        0 => Err(Errno::IO.into()),
        count => Ok(u64::try_from(count).unwrap_or(u64::MAX)),
    }
}
