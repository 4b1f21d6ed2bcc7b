//! Listings, page by page, with keys exactly as the service has them.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta, ObjectStore, Result};

use super::counters::Counters;
use super::keys;

/// What to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// What the keys begin with.
    pub prefix: String,
    /// Keys that go on with another `/` after the prefix are told as one common prefix.
    pub delimited: bool,
    /// Only keys after this one, in the order of their bytes.
    pub after: Option<String>,
    /// The [`next`](ListPage::next) of the page before this one, with the same prefix.
    pub token: Option<String>,
    /// How many keys and common prefixes at most; the service has a limit of its own, often 1000.
    pub limit: Option<usize>,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The whole key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Last written.
    pub modified: SystemTime,
    /// Which content it is. Services without ETags have none.
    pub etag: Option<String>,
}

/// A part of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Objects.
    pub objects: Vec<ListedObject>,
    /// Common prefixes, whole, each with its `/` at the end.
    pub prefixes: Vec<String>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// What lists a bucket.
#[async_trait]
pub trait Lister: fmt::Debug + Send + Sync {
    /// One page.
    ///
    /// # Errors
    /// What the service answered.
    async fn page(&self, request: &ListRequest) -> Result<ListPage>;
}

/// Lists with the requests of a service. Keys come [encoded](keys).
pub(super) struct PageLister(Arc<dyn PaginatedListStore>);

impl PageLister {
    pub(super) fn new(store: Arc<dyn PaginatedListStore>) -> Self {
        Self(store)
    }
}

impl fmt::Debug for PageLister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageLister")
    }
}

#[async_trait]
impl Lister for PageLister {
    async fn page(&self, request: &ListRequest) -> Result<ListPage> {
        let options = PaginatedListOptions {
            offset: request.after.clone(),
            delimiter: request.delimited.then_some("/".into()),
            max_keys: request.limit,
            page_token: request.token.clone(),
            ..PaginatedListOptions::default()
        };
        let prefix = Some(request.prefix.as_str()).filter(|prefix| !prefix.is_empty());
        let listed = self.0.list_paginated(prefix, options).await?;
        Ok(ListPage {
            next: listed.page_token,
            ..page(listed.result)
        })
    }
}

fn page(listed: ListResult) -> ListPage {
    let object = |meta: ObjectMeta| {
        Some(ListedObject {
            key: keys::decode(meta.location.as_ref())?,
            size: meta.size,
            modified: meta.last_modified.into(),
            etag: meta.e_tag,
        })
    };
    // The library takes the `/` from the end of a prefix, unless that was encoded.
    let prefix = |path: Path| {
        let mut raw = keys::decode(path.as_ref())?;
        if !raw.ends_with('/') {
            raw.push('/');
        }
        Some(raw)
    };
    ListPage {
        objects: listed.objects.into_iter().filter_map(object).collect(),
        prefixes: listed
            .common_prefixes
            .into_iter()
            .filter_map(prefix)
            .collect(),
        next: None,
    }
}

/// Lists a store that has no pages, such as one in memory: all is read each time.
#[derive(Debug)]
pub(super) struct PathLister(Arc<dyn ObjectStore>);

impl PathLister {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(store)
    }

    async fn everything(&self, request: &ListRequest) -> Result<ListPage> {
        use futures_util::TryStreamExt;
        let (folder, _) = request.prefix.rsplit_once('/').unwrap_or(("", ""));
        let folder = match folder {
            "" => None,
            folder => Some(Path::parse(folder)?),
        };
        let whole_folder = request.prefix.is_empty() || request.prefix.ends_with('/');
        if request.delimited && whole_folder {
            return Ok(page(self.0.list_with_delimiter(folder.as_ref()).await?));
        }
        let objects = self.0.list(folder.as_ref()).try_collect().await?;
        Ok(page(ListResult {
            objects,
            common_prefixes: Vec::new(),
            extensions: Default::default(),
        }))
    }
}

#[async_trait]
impl Lister for PathLister {
    async fn page(&self, request: &ListRequest) -> Result<ListPage> {
        let after = request.token.as_ref().or(request.after.as_ref());
        let wanted = |key: &str| {
            key.starts_with(&request.prefix) && after.is_none_or(|after| key > after.as_str())
        };
        let mut page = self.everything(request).await?;
        page.objects.retain(|object| wanted(&object.key));
        page.prefixes.retain(|prefix| wanted(prefix));
        let mut keys: Vec<String> = page.prefixes.clone();
        keys.extend(page.objects.iter().map(|object| object.key.clone()));
        keys.sort_unstable();
        let limit = request.limit.unwrap_or(1000).max(1);
        if keys.len() > limit
            && let Some(last) = keys.get(limit.saturating_sub(1))
        {
            page.objects.retain(|object| object.key <= *last);
            page.prefixes.retain(|prefix| prefix <= last);
            page.next = Some(last.clone());
        }
        Ok(page)
    }
}

/// Counts each page.
#[derive(Debug)]
pub(super) struct CountedLister {
    inner: Arc<dyn Lister>,
    counters: Arc<Counters>,
}

impl CountedLister {
    pub(super) fn new(inner: Arc<dyn Lister>, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }
}

#[async_trait]
impl Lister for CountedLister {
    async fn page(&self, request: &ListRequest) -> Result<ListPage> {
        self.counters.listed();
        self.inner.page(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn a_store_without_pages_is_listed_in_pages() {
        let store = Arc::new(InMemory::new());
        for key in ["a", "b/x", "b/y", "c", "d/z"] {
            store.put(&Path::from(key), "1".into()).await.unwrap();
        }
        let lister = PathLister::new(store);
        let mut request = ListRequest {
            delimited: true,
            limit: Some(2),
            ..ListRequest::default()
        };
        let mut seen = Vec::new();
        loop {
            let page = lister.page(&request).await.unwrap();
            assert!(page.objects.len() + page.prefixes.len() <= 2);
            seen.extend(page.objects.into_iter().map(|object| object.key));
            seen.extend(page.prefixes);
            request.token = page.next;
            if request.token.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["a", "b/", "c", "d/"]);
        let below = ListRequest {
            prefix: "b/".into(),
            limit: Some(1),
            ..ListRequest::default()
        };
        let page = lister.page(&below).await.unwrap();
        assert_eq!((page.objects.len(), page.next.as_deref()), (1, Some("b/x")));
    }
}
