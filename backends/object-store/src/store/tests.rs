//! The whole stack over a store that fails.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion,
};

use super::{Ability, Fault, FaultStore, Faults, ListRequest, RetryPolicy, Store, probe};

fn failing(per_mille: &[(Fault, u32)], seed: u64) -> (Store, Arc<FaultStore>) {
    let faults = Faults {
        per_mille: per_mille.to_vec(),
        seed,
    };
    let below = Arc::new(FaultStore::new(Arc::new(InMemory::new()), faults));
    (Store::over(below.clone(), RetryPolicy::default()), below)
}

const EVERYTHING: [(Fault, u32); 7] = [
    (Fault::LostReply, 100),
    (Fault::Unavailable, 100),
    (Fault::Conflict, 50),
    (Fault::ShortBody, 100),
    (Fault::BrokenBody, 100),
    (Fault::Delay(Duration::from_secs(1)), 50),
    (Fault::Stall, 30),
];

async fn create(store: &Store, key: &str, body: &str) -> object_store::Result<()> {
    let options = PutOptions::from(PutMode::Create);
    let key = Path::from(key);
    store
        .objects()
        .put_opts(&key, body.to_owned().into(), options)
        .await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_own_write_whose_reply_was_lost_has_succeeded() {
    for seed in 0..4 {
        let (store, below) = failing(&EVERYTHING, seed);
        for number in 0..150 {
            create(&store, &format!("k{number}"), "own").await.unwrap();
        }
        assert!(below.met() > 30, "{}", below.met());
    }
}

#[tokio::test(start_paused = true)]
async fn anothers_object_is_never_taken_for_an_own_write() {
    let (store, below) = failing(&EVERYTHING, 5);
    for number in 0..100 {
        let key = format!("k{number}");
        below
            .inner()
            .put(&Path::from(key.as_str()), "other".into())
            .await
            .unwrap();
        let refused = create(&store, &key, "own").await.unwrap_err();
        assert!(matches!(refused, Error::AlreadyExists { .. }), "{refused}");
        let there = below.inner().get(&Path::from(key.as_str())).await.unwrap();
        assert_eq!(there.bytes().await.unwrap(), "other");
    }
}

#[tokio::test(start_paused = true)]
async fn a_conditional_write_is_applied_once_whatever_gets_lost() {
    let (store, below) = failing(&EVERYTHING, 9);
    let key = Path::from("head");
    create(&store, "head", "0").await.unwrap();
    for number in 1..150 {
        let meta = store.objects().head(&key).await.unwrap();
        let old = UpdateVersion {
            e_tag: meta.e_tag,
            version: None,
        };
        let update = |body: String, version| {
            let options = PutOptions::from(PutMode::Update(version));
            store.objects().put_opts(&key, body.into(), options)
        };
        let done = update(number.to_string(), old.clone()).await.unwrap();
        assert_ne!(done.e_tag, old.e_tag);
        let stale = update("stale".into(), old).await.unwrap_err();
        assert!(matches!(stale, Error::Precondition { .. }), "{stale}");
        let there = below
            .inner()
            .get(&key)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        assert_eq!(there, number.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_break_off_are_read_on() {
    let (store, below) = failing(&EVERYTHING, 3);
    let body: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let key = Path::from("large");
    below.inner().put(&key, body.clone().into()).await.unwrap();
    for number in 0..150 {
        let range = number * 1000..number * 4000 + 7;
        let read = store
            .objects()
            .get_range(&key, range.clone())
            .await
            .unwrap();
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        assert_eq!(read, body[range]);
    }
    assert!(below.met() > 30);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_not_read_on_in_another_content() {
    let (store, below) = failing(&[], 0);
    let key = Path::from("k");
    below
        .inner()
        .put(&key, "first content".into())
        .await
        .unwrap();
    below.next([Fault::BrokenBody]);
    let reading = store
        .objects()
        .get_opts(&key, GetOptions::default())
        .await
        .unwrap();
    below
        .inner()
        .put(&key, "other content".into())
        .await
        .unwrap();
    let refused = reading.bytes().await.unwrap_err();
    assert!(matches!(refused, Error::Precondition { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn deletions_reach_every_object() {
    use futures_util::{StreamExt, stream};
    let (store, below) = failing(&EVERYTHING, 11);
    let keys: Vec<_> = (0..50)
        .map(|number| Path::from(format!("k{number}")))
        .collect();
    for key in &keys {
        below.inner().put(key, "1".into()).await.unwrap();
    }
    let wanted = stream::iter(keys.clone()).map(Ok).boxed();
    let deleted: Vec<_> = store.objects().delete_stream(wanted).collect().await;
    assert!(deleted.iter().all(Result::is_ok));
    assert_eq!(deleted.len(), keys.len());
    assert_eq!(below.inner().list(None).count().await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_in_an_error_and_heals_by_itself() {
    let (store, below) = failing(&[], 0);
    below
        .inner()
        .put(&Path::from("k"), "1".into())
        .await
        .unwrap();
    below.outage(true);
    assert!(store.list(&ListRequest::default()).await.is_err());
    assert!(store.objects().head(&Path::from("k")).await.is_err());
    below.outage(false);
    assert_eq!(
        store
            .list(&ListRequest::default())
            .await
            .unwrap()
            .objects
            .len(),
        1
    );
    assert!(store.objects().head(&Path::from("k")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn every_request_is_counted_also_those_that_are_repeated() {
    let (store, below) = failing(&[], 0);
    create(&store, "k", "four").await.unwrap();
    below.next([Fault::Unavailable, Fault::ShortBody]);
    let body = store
        .objects()
        .get(&Path::from("k"))
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert_eq!(body, "four");
    let counted = store.counters().requests();
    assert_eq!((counted.puts, counted.gets, counted.heads), (1, 3, 0));
    assert_eq!((counted.bytes_written, counted.bytes_read), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn the_probe_finds_a_good_store_good_even_if_replies_get_lost() {
    let (store, below) = failing(&EVERYTHING, 7);
    for prefix in ["p/", "a%20b ~#[*]/"] {
        let report = probe(&store, prefix).await.unwrap();
        assert!(report.is_safe(), "{prefix}: {report}");
    }
    use futures_util::StreamExt;
    assert_eq!(below.inner().list(None).count().await, 0, "nothing is left");
}

#[tokio::test]
async fn the_probe_finds_a_store_without_conditions() {
    let dir = tempfile::tempdir().unwrap();
    let files = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let careless = Store::over(Arc::new(Careless(files)), RetryPolicy::default());
    let report = probe(&careless, "").await.unwrap();
    let all = [
        Ability::CreateOnly,
        Ability::Update,
        Ability::CreateRace,
        Ability::UpdateRace,
    ];
    assert_eq!(report.missing(), all);
    let shown = report.to_string();
    assert!(
        shown.contains("SeaweedFS") && !shown.contains('\n'),
        "{shown}"
    );
}

/// A store that takes conditions and does not keep them.
#[derive(Debug)]
pub(crate) struct Careless(pub(crate) object_store::local::LocalFileSystem);

impl std::fmt::Display for Careless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("careless")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Careless {
    async fn put_opts(
        &self,
        location: &Path,
        payload: object_store::PutPayload,
        options: PutOptions,
    ) -> object_store::Result<object_store::PutResult> {
        let options = PutOptions {
            mode: PutMode::Overwrite,
            attributes: Default::default(),
            ..options
        };
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: object_store::PutMultipartOptions,
    ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<object_store::GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: futures_util::stream::BoxStream<'static, object_store::Result<Path>>,
    ) -> futures_util::stream::BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(
        &self,
        prefix: Option<&Path>,
    ) -> futures_util::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>>
    {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&Path>,
    ) -> object_store::Result<object_store::ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: object_store::CopyOptions,
    ) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}
