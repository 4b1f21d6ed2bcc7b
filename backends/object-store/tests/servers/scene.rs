//! Servers, started when the first test asks for one, and buckets in them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::runtime::Runtime;
use vfsd_object_store::{FlatBucket, FlatOptions, RetryPolicy, Store, StoreOptions, StoreUrl};
use vfsd_testkit::place::Place;
use vfsd_testkit::servers::{ACCESS_KEY, RunningStore, SECRET_KEY, StoreServer, request};

use vfsd_backend::Backend;

/// All servers of a run.
#[derive(Default)]
pub(crate) struct Servers {
    running: Mutex<HashMap<&'static str, Arc<RunningStore>>>,
}

impl Servers {
    fn get(&self, kind: StoreServer) -> Arc<RunningStore> {
        let mut running = self.running.lock().unwrap();
        let server = running
            .entry(kind.name())
            .or_insert_with(|| Arc::new(kind.start().expect("start the server")));
        server.clone()
    }

    /// Ends them.
    pub(crate) fn stop(&self) {
        self.running.lock().unwrap().clear();
    }

    /// A new, empty bucket.
    pub(crate) fn bucket(&self, kind: StoreServer) -> Scene {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let server = self.get(kind);
        let bucket = format!("bucket-{}", LAST.fetch_add(1, Ordering::Relaxed));
        if let Some((method, target, body)) = server.creation(&bucket) {
            let reply = request(server.address(), method, &target, &[], body.as_bytes()).unwrap();
            assert!(reply.status < 300, "{reply:?}");
            return Scene { server, bucket };
        }
        let signer = AmazonS3Builder::new()
            .with_bucket_name(&bucket)
            .with_endpoint(server.endpoint())
            .with_region("us-east-1")
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .with_allow_http(true)
            .build()
            .unwrap();
        let url = runtime()
            .block_on(signer.signed_url(
                "PUT".parse().unwrap(),
                &Path::ROOT,
                std::time::Duration::from_secs(60),
            ))
            .unwrap();
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let reply = request(server.address(), "PUT", &target, &[], &[]).unwrap();
        assert_eq!(
            reply.status,
            200,
            "{}",
            String::from_utf8_lossy(&reply.body)
        );
        Scene { server, bucket }
    }
}

/// What requests are made on. Whoever waits for an answer does so elsewhere, as a queue's thread does.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("start a runtime")
    })
}

/// A bucket in a server.
pub(crate) struct Scene {
    server: Arc<RunningStore>,
    bucket: String,
}

impl Scene {
    pub(crate) fn server(&self) -> &RunningStore {
        &self.server
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Options as the environment gives them.
    pub(crate) fn options(&self) -> StoreOptions {
        let vars = self.server.environment();
        StoreOptions::from_vars(
            vars.into_iter()
                .map(|(name, value)| (name.into(), value.into())),
        )
    }

    pub(crate) fn store(&self) -> Store {
        let url: StoreUrl = self.server.url(&self.bucket).parse().unwrap();
        Store::open(&url, &self.options(), RetryPolicy::default()).unwrap()
    }

    /// The same bucket by https. The authority's certificate is not there any more, as in a sandbox.
    pub(crate) fn secure_store(&self) -> Store {
        let (endpoint, authority) = self.server.https().unwrap();
        let own = tempfile::NamedTempFile::new().unwrap();
        std::fs::copy(authority, own.path()).unwrap();
        let mut vars = self.server.environment();
        vars.retain(|(name, _)| !matches!(name.as_str(), "AWS_ENDPOINT_URL" | "AWS_ALLOW_HTTP"));
        vars.push(("AWS_ENDPOINT_URL".to_owned(), endpoint));
        let bundle = own.path().to_str().unwrap().to_owned();
        vars.push(("AWS_CA_BUNDLE".to_owned(), bundle));
        let vars = vars.into_iter();
        let options =
            StoreOptions::from_vars(vars.map(|(name, value)| (name.into(), value.into())));
        let url: StoreUrl = self.server.url(&self.bucket).parse().unwrap();
        Store::open(&url, &options, RetryPolicy::default()).unwrap()
    }

    pub(crate) fn put(&self, key: &str, body: impl Into<PutPayload>) {
        if let StoreServer::FakeGcs = self.server.kind() {
            let body: Vec<u8> = body.into().into_iter().flatten().collect();
            return self.upload(key, &body);
        }
        let store = self.store();
        let put = async {
            store
                .objects()
                .put(&Path::parse(key).unwrap(), body.into())
                .await
        };
        runtime().block_on(put).unwrap();
    }

    /// By the way that Google's service has besides the one that this backend takes.
    fn upload(&self, key: &str, body: &[u8]) {
        let name: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let bucket = &self.bucket;
        let target = format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}");
        let reply = request(self.server.address(), "POST", &target, &[], body).unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// A request as it stands, not signed: for servers that do not mind.
    pub(crate) fn put_raw(&self, key: &str, headers: &[(&str, &str)], body: &[u8]) {
        let target = format!("/{}/{key}", self.bucket);
        let mut all = vec![("Content-Type", "application/octet-stream")];
        all.extend(headers);
        let reply = request(self.server.address(), "PUT", &target, &all, body).unwrap();
        assert_eq!(
            reply.status,
            200,
            "{key}: {}",
            String::from_utf8_lossy(&reply.body)
        );
    }

    pub(crate) fn flat(&self, prefix: &str, options: FlatOptions) -> FlatBucket {
        let open = FlatBucket::open(self.store(), prefix, options);
        runtime().block_on(open).unwrap()
    }

    pub(crate) fn root(&self) -> (FlatBucket, Place) {
        let bucket = self.flat("", FlatOptions::default());
        let root = Place(bucket.root());
        (bucket, root)
    }
}
