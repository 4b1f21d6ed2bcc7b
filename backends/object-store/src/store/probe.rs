//! What a store really does with conditional writes. Several servers accept the conditions and
//! overwrite all the same, or check them and write in two steps: nothing short of trying tells.

use std::fmt;

use futures_util::StreamExt;
use futures_util::future::join_all;
use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, Result, UpdateVersion,
};

use super::error::is_transient;
use super::nonce::Nonce;
use super::{ListRequest, Store};

/// How many write at once in a race.
const RACERS: usize = 16;

/// Something that a store must be able to do so that two writers cannot overwrite each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// A create-only write (`If-None-Match: *`) of a key that exists fails and changes nothing.
    CreateOnly,
    /// A conditional write (`If-Match`) with an outdated ETag fails and changes nothing.
    Update,
    /// Of many create-only writes at once exactly one succeeds.
    CreateRace,
    /// Of many conditional writes at once exactly one succeeds.
    UpdateRace,
    /// What was written is read back with its whole length, whole or in part.
    Length,
    /// What was just written is listed.
    List,
}

impl Ability {
    /// All, in the order in which they are tried.
    pub const ALL: [Self; 6] = [
        Self::Length,
        Self::List,
        Self::CreateOnly,
        Self::Update,
        Self::CreateRace,
        Self::UpdateRace,
    ];

    fn failure(self) -> &'static str {
        match self {
            Self::CreateOnly => "a create-only write (If-None-Match: *) overwrites",
            Self::Update => "a conditional write (If-Match) with an old ETag overwrites",
            Self::CreateRace => "several create-only writes at once succeed",
            Self::UpdateRace => "several conditional writes at once succeed",
            Self::Length => "what was written is not read back whole",
            Self::List => "what was written is not listed",
        }
    }
}

/// What a store turned out to be unable to do.
///
/// Its text is one line that names the failures and the alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    store: String,
    missing: Vec<Ability>,
}

impl ProbeReport {
    /// Whether writers can exclude each other.
    pub fn is_safe(&self) -> bool {
        self.missing.is_empty()
    }

    /// What failed.
    pub fn missing(&self) -> &[Ability] {
        &self.missing
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missing.is_empty() {
            return write!(f, "{} keeps the conditions of writes", self.store);
        }
        let failures: Vec<_> = self
            .missing
            .iter()
            .map(|ability| ability.failure())
            .collect();
        write!(
            f,
            "{} cannot be written safely: {}; use a store that keeps conditions (Amazon S3, Google Cloud Storage, \
             Azure, SeaweedFS, MinIO, Ceph), serve it read-only, or promise that nobody else writes to it",
            self.store,
            failures.join(", ")
        )
    }
}

/// Tries everything in [`Ability`], with objects under `prefix` (empty, or ended by `/`) that are removed afterwards.
/// Sends about 60 requests.
///
/// # Errors
/// Requests that failed in another way than by their condition: the store is away, or does not allow them.
pub async fn probe(store: &Store, prefix: &str) -> Result<ProbeReport> {
    let place = format!("{prefix}.vfsd-probe-{}", Nonce::new());
    let probe = Probe {
        store,
        objects: store.objects().as_ref(),
        place: Path::parse(&place)?,
    };
    let missing = probe.missing().await;
    probe.remove_all().await;
    Ok(ProbeReport {
        store: store.name().to_owned(),
        missing: missing?,
    })
}

struct Probe<'a> {
    store: &'a Store,
    objects: &'a dyn ObjectStore,
    place: Path,
}

impl Probe<'_> {
    async fn missing(&self) -> Result<Vec<Ability>> {
        let mut missing = Vec::new();
        for ability in Ability::ALL {
            let held = match ability {
                Ability::Length => self.length().await?,
                Ability::List => self.list().await?,
                Ability::CreateOnly => self.create_only().await?,
                Ability::Update => self.update().await?,
                Ability::CreateRace => self.create_race().await?,
                Ability::UpdateRace => self.update_race().await?,
            };
            if !held {
                missing.push(ability);
            }
        }
        // Nothing that a store is refused for: where it does not hold, it is looked before each copy.
        let [from, onto] = [self.key("create")?, self.key("update")?];
        self.store.try_copy(&from, &onto).await;
        Ok(missing)
    }

    /// Beside each other: some services show a directory for a while after its last object is gone.
    fn key(&self, name: &str) -> Result<Path> {
        Ok(Path::parse(format!("{}-{name}", self.place))?)
    }

    /// Whether a write took place.
    async fn put(&self, key: &Path, body: String, mode: PutMode) -> Result<bool> {
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        match self
            .objects
            .put_opts(key, PutPayload::from(body), options)
            .await
        {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn body(&self, key: &Path) -> Result<Vec<u8>> {
        Ok(self.objects.get(key).await?.bytes().await?.to_vec())
    }

    async fn etag(&self, key: &Path) -> Result<UpdateVersion> {
        let meta = self.objects.head(key).await?;
        Ok(UpdateVersion {
            e_tag: meta.e_tag,
            version: meta.version,
        })
    }

    async fn length(&self) -> Result<bool> {
        let key = self.key("length")?;
        let body: String = "0123456789abcdef".repeat(4096);
        self.put(&key, body.clone(), PutMode::Overwrite).await?;
        let whole = self.body(&key).await? == body.as_bytes();
        match self.objects.get_range(&key, 10..65_530).await {
            Ok(part) => Ok(whole && body.as_bytes().get(10..65_530) == Some(&part[..])),
            Err(error) if is_transient(&error) => Err(error),
            Err(_) => Ok(false),
        }
    }

    async fn list(&self) -> Result<bool> {
        let request = ListRequest {
            prefix: format!("{}-", self.place),
            delimited: true,
            limit: Some(10),
            ..ListRequest::default()
        };
        let page = self.store.list(&request).await?;
        let wanted = self.key("length")?;
        Ok(page
            .objects
            .iter()
            .any(|object| object.key == wanted.as_ref()))
    }

    async fn create_only(&self) -> Result<bool> {
        let key = self.key("create")?;
        let first = self.put(&key, "first".into(), PutMode::Create).await?;
        let second = self.put(&key, "second".into(), PutMode::Create).await?;
        Ok(first && !second && self.body(&key).await? == b"first")
    }

    async fn update(&self) -> Result<bool> {
        let key = self.key("update")?;
        self.put(&key, "first".into(), PutMode::Overwrite).await?;
        let old = self.etag(&key).await?;
        let fresh = self
            .put(&key, "second".into(), PutMode::Update(old.clone()))
            .await?;
        let stale = self.put(&key, "third".into(), PutMode::Update(old)).await?;
        Ok(fresh && !stale && self.body(&key).await? == b"second")
    }

    async fn create_race(&self) -> Result<bool> {
        let key = self.key("create-race")?;
        self.race(&key, || PutMode::Create).await
    }

    async fn update_race(&self) -> Result<bool> {
        let key = self.key("update-race")?;
        self.put(&key, "before".into(), PutMode::Overwrite).await?;
        let old = self.etag(&key).await?;
        self.race(&key, || PutMode::Update(old.clone())).await
    }

    /// Whether exactly one of many won, and its content is there.
    async fn race(&self, key: &Path, mode: impl Fn() -> PutMode) -> Result<bool> {
        let racers = (0..RACERS).map(|racer| self.put(key, racer.to_string(), mode()));
        let mut winners = Vec::new();
        for (racer, won) in join_all(racers).await.into_iter().enumerate() {
            if won? {
                winners.push(racer.to_string().into_bytes());
            }
        }
        // Where many won, the service may still be at it, and its answers are of no use.
        match &winners[..] {
            [winner] => Ok(self.body(key).await? == *winner),
            _ => Ok(false),
        }
    }

    /// A leftover is a nuisance, not a failure.
    async fn remove_all(&self) {
        let names = ["length", "create", "update", "create-race", "update-race"];
        let keys: Vec<_> = names.into_iter().map(|name| self.key(name)).collect();
        let keys = futures_util::stream::iter(keys).boxed();
        let mut deleted = self.objects.delete_stream(keys);
        while let Some(result) = deleted.next().await {
            if let Err(error) = result {
                tracing::warn!(%error, "an object of a probe is left behind");
            }
        }
    }
}
