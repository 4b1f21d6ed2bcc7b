//! A reply is exactly as long as it says.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A body that ended early, or did not end where it should.
#[derive(Debug, thiserror::Error)]
#[error("the reply holds {got} bytes where {expected} were announced")]
pub(super) struct WrongLength {
    pub(super) expected: u64,
    pub(super) got: u64,
}

/// Fails a read whose body is shorter or longer than its range.
#[derive(Debug)]
pub(super) struct CheckedStore(Arc<dyn ObjectStore>);

impl CheckedStore {
    pub(super) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self(inner)
    }
}

impl std::fmt::Display for CheckedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn wrong_length(expected: u64, got: u64) -> Error {
    Error::Generic {
        store: "checked",
        source: Box::new(WrongLength { expected, got }),
    }
}

/// The body, ended by an error where its length is wrong. What is too long is not handed out.
fn checked(
    body: BoxStream<'static, Result<Bytes>>,
    expected: u64,
) -> BoxStream<'static, Result<Bytes>> {
    stream::unfold(Some((body, 0_u64)), move |state| async move {
        let (mut body, got) = state?;
        match body.next().await {
            Some(Ok(chunk)) => {
                let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                let got = got.saturating_add(length);
                if got > expected {
                    return Some((Err(wrong_length(expected, got)), None));
                }
                Some((Ok(chunk), Some((body, got))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None if got < expected => Some((Err(wrong_length(expected, got)), None)),
            None => None,
        }
    })
    .boxed()
}

#[async_trait]
impl ObjectStore for CheckedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let mut result = self.0.get_opts(location, options).await?;
        let expected = result.range.end.saturating_sub(result.range.start);
        result.payload = match result.payload {
            GetResultPayload::Stream(body) if !head => {
                GetResultPayload::Stream(checked(body, expected))
            }
            payload => payload,
        };
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let parts = self.0.get_ranges(location, ranges).await?;
        let total = |lengths: &mut dyn Iterator<Item = u64>| lengths.fold(0, u64::saturating_add);
        let length = |range: &Range<u64>| range.end.saturating_sub(range.start);
        let right = parts.len() == ranges.len()
            && parts
                .iter()
                .zip(ranges)
                .all(|(part, range)| u64::try_from(part.len()) == Ok(length(range)));
        if !right {
            let got = parts
                .iter()
                .map(|part| u64::try_from(part.len()).unwrap_or(u64::MAX));
            return Err(wrong_length(
                total(&mut ranges.iter().map(length)),
                total(&mut got.into_iter()),
            ));
        }
        Ok(parts)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;

    async fn through(chunks: &[&'static str], expected: u64) -> (Vec<u8>, bool) {
        let body =
            stream::iter(chunks.to_vec()).map(|chunk| Ok(Bytes::from_static(chunk.as_bytes())));
        let mut seen = Vec::new();
        let mut checked = checked(body.boxed(), expected);
        loop {
            match checked.try_next().await {
                Ok(Some(chunk)) => seen.extend_from_slice(&chunk),
                Ok(None) => return (seen, true),
                Err(_) => return (seen, false),
            }
        }
    }

    #[tokio::test]
    async fn a_body_of_another_length_than_announced_fails() {
        assert_eq!(through(&["ab", "cd"], 4).await, (b"abcd".to_vec(), true));
        assert_eq!(through(&["ab", "c"], 4).await, (b"abc".to_vec(), false));
        assert_eq!(through(&["ab", "cde"], 4).await, (b"ab".to_vec(), false));
        assert_eq!(through(&[], 0).await, (Vec::new(), true));
        assert_eq!(through(&["a"], 0).await, (Vec::new(), false));
    }
}
