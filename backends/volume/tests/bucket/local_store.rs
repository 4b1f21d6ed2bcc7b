//! A bucket that is a directory, for processes that are killed. The conditions that keep writers apart hold within one
//! process.

use std::fmt;
use std::path::Path as FsPath;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use tokio::sync::Mutex;

#[derive(Debug)]
pub(crate) struct LocalStore {
    files: LocalFileSystem,
    turn: Mutex<()>,
}

impl LocalStore {
    pub(crate) fn new(directory: &FsPath) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        Self {
            files: LocalFileSystem::new_with_prefix(directory).unwrap(),
            turn: Mutex::new(()),
        }
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let _turn = self.turn.lock().await;
        // Files keep none.
        options.attributes = object_store::Attributes::new();
        if let PutMode::Update(version) = &options.mode {
            let found = self.files.head(location).await?;
            if found.e_tag != version.e_tag {
                return Err(Error::Precondition {
                    path: location.to_string(),
                    source: "another etag".into(),
                });
            }
            options.mode = PutMode::Overwrite;
        }
        self.files.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}
