//! The storages of a daemon together: looked at outside the sandbox, opened inside.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;
use tracing::Span;
use vfsd_backend::{Answer, Backend, Capabilities, Locator, Node};
use vfsd_server::{Export, Exports};

use crate::closing::Closing;
use crate::exit::Failure;
use crate::figures::Figures;
use crate::sandbox::{Inside, Needs, Share};
use crate::settings::{Confinement, ExportSettings};
use crate::signals::ending_at_once;
use crate::source::{Given, Kind, Prepared, Root, StorageOptions};
use crate::together::{Work, together};

/// The storages of a daemon, as far as they are known before the sandbox is entered.
pub(crate) struct Storages {
    exports: Vec<PreparedExport>,
    withheld: Capabilities,
    /// Nothing is remembered longer because it is the guest's own.
    cached_as_told: bool,
    /// Descriptors that each directory of the host may use.
    descriptors: usize,
    /// What all of them need of root's power.
    pub(crate) needs: Needs,
}

/// Refuses options that none of the exports has a use for.
fn check_all_are_used(exports: &[ExportSettings], options: &StorageOptions) -> Result<(), Failure> {
    let told = [
        (
            options.store.write.is_some(),
            "--flat-write is",
            "s3://, gs:// and az://",
            &[Kind::ObjectsToWrite][..],
        ),
        (
            !options.store.options.is_empty(),
            "--store-option is",
            "buckets, and volumes in them",
            &[Kind::Objects, Kind::VolumeInBucket],
        ),
        (
            options.volume.is_key_given(),
            "--volume-key-file is",
            "volume:s3://, volume:gs:// and volume:az://",
            &[Kind::VolumeInBucket],
        ),
        (
            options.volume.is_writing_given(),
            "--durability and --takeover are",
            "volume:s3://, volume:gs:// and volume:az:// that are written to",
            &[Kind::VolumeToWrite],
        ),
        (
            options.plugin.is_given(),
            "--plugin-user, --plugin-path, --plugin-fds and --plugin-network are",
            "plugin:exec:PROGRAM",
            &[Kind::StartedPlugin],
        ),
        (
            options.image.is_given(),
            "--platform, --registry-..., --offline, --no-background-fill and --index-from are",
            "docker://, oci: and docker-archive:",
            &[Kind::Image],
        ),
        (
            options.cache.is_given(),
            "--cache-dir and --cache-size are",
            "images, buckets, and volumes in them",
            &[Kind::Image, Kind::Objects, Kind::VolumeInBucket],
        ),
    ];
    for (given, options, sources, kinds) in told {
        let is_served = |kind: &Kind| {
            let is = |export: &ExportSettings| {
                export.source.is(*kind) && !(*kind == Kind::VolumeToWrite && export.readonly)
            };
            exports.iter().any(is)
        };
        if given && !kinds.iter().any(is_served) {
            return Err(Failure::usage(format!(
                "{options} for {sources}, and none is served"
            )));
        }
    }
    Ok(())
}

/// Asks for what has to be known before the sandbox and is far away, for all exports at the same time.
fn find_ahead(exports: &[ExportSettings], options: &StorageOptions) -> Result<(), Failure> {
    let mut all: Vec<Work<()>> = Vec::new();
    for export in exports {
        for work in export.source.ahead(options) {
            let name = export.name.clone();
            all.push(Box::new(move || {
                let _in = in_log(name.as_deref()).entered();
                work().map_err(|failure| failure.of_export(name.as_deref()))
            }));
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    ending_at_once(|| together("open", all)).map(drop)
}

/// Looks at what is on this host of all exports, before anything far away is waited for.
fn check_here(exports: &[ExportSettings]) -> Result<(), Failure> {
    exports.iter().try_for_each(|export| {
        let checked = export.source.check();
        checked.map_err(|failure| failure.of_export(export.name.as_deref()))
    })
}

/// Refuses two storages in one place that only one may use: which of them comes first, when they are opened, is chance.
fn check_apart(exports: &[PreparedExport]) -> Result<(), Failure> {
    let mut taken: Vec<(&Path, &PreparedExport)> = Vec::new();
    for export in exports {
        let alone = export.storage.shares.iter().filter(|share| share.alone);
        for place in alone.flat_map(|share| &share.used) {
            if let Some((_, other)) = taken.iter().find(|(path, _)| path == place) {
                let whose = match other.name.as_deref() {
                    Some(name) if Some(name) != export.name.as_deref() => {
                        format!("export {name:?}")
                    }
                    _ => "it".to_owned(),
                };
                let advice = format!(
                    "{} is used by {whose} already: each needs one of its own",
                    place.display()
                );
                return Err(Failure::usage(advice).of_export(export.name.as_deref()));
            }
            taken.push((place, export));
        }
    }
    Ok(())
}

struct PreparedExport {
    name: Option<String>,
    /// As the operator has named it.
    source: String,
    readonly: bool,
    storage: Prepared,
}

impl Storages {
    /// Looks at the exports from outside the sandbox. `descriptors` are for all together.
    ///
    /// # Errors
    /// When one is not there, or an option does not go with it.
    pub(crate) fn new(
        exports: &[ExportSettings],
        options: &StorageOptions,
        descriptors: usize,
    ) -> Result<Self, Failure> {
        check_all_are_used(exports, options)?;
        let shares = exports.iter().map(|export| export.source.memory_shares());
        let options = &StorageOptions {
            memory_shares: shares.sum(),
            ..options.clone()
        };
        check_here(exports)?;
        find_ahead(exports, options)?;
        let exports = exports
            .iter()
            .map(|export| {
                let _in = in_log(export.name.as_deref()).entered();
                Ok(PreparedExport {
                    name: export.name.clone(),
                    source: export.source.to_string(),
                    readonly: export.readonly || export.source.is_read_only(options),
                    storage: export
                        .source
                        .prepare(options, export.readonly)
                        .map_err(|failure| failure.of_export(export.name.as_deref()))?,
                })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        check_apart(&exports)?;
        let shares = exports.iter().map(|export| export.storage.shares.len());
        Ok(Self {
            descriptors: descriptors.checked_div(shares.sum()).unwrap_or(descriptors),
            needs: exports
                .iter()
                .fold(Needs::default(), |all, export| all | export.storage.needs),
            withheld: options.withheld,
            cached_as_told: options.cached_as_told,
            exports,
        })
    }

    /// As [`Share::keep_out`], for all of them.
    ///
    /// # Errors
    /// When a share contains `point`, and the sandbox cannot keep it out.
    pub(crate) fn keep_out(
        &mut self,
        point: &Path,
        confinement: &Confinement,
    ) -> Result<bool, Failure> {
        let mut all = true;
        for export in &mut self.exports {
            for share in &mut export.storage.shares {
                all &= share.keep_out(point, confinement)?;
            }
        }
        Ok(all)
    }

    /// What has to be taken along into the sandbox, in the order of the storages.
    pub(crate) fn shares(&self) -> Vec<Share> {
        self.exports
            .iter()
            .flat_map(|export| export.storage.shares.iter().cloned())
            .collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.exports.len()
    }

    /// Opens them at the same time, from inside the sandbox. `runtime` is what they wait on, each with so many `threads`;
    /// `figures` is where they say what can be told of them; `opened` has what is open so far, to be closed whatever comes
    /// after.
    ///
    /// # Errors
    /// When a storage cannot be opened: the first of them.
    pub(crate) fn open(
        self,
        inside: Inside,
        runtime: &Handle,
        threads: usize,
        figures: &Arc<Figures>,
        opened: &Closing,
    ) -> Result<Exports, Failure> {
        let common = Arc::new(Common {
            proc_self_fd: Arc::new(inside.proc_self_fd),
            descriptors: self.descriptors,
            runtime: runtime.clone(),
            figures: Arc::clone(figures),
            withheld: self.withheld,
            cached_as_told: self.cached_as_told,
            threads,
            opened: opened.clone(),
        });
        let mut roots = inside.roots.into_iter();
        let all = self.exports.into_iter().enumerate();
        let all = all.map(|(place, export)| {
            let roots = roots.by_ref().take(export.storage.shares.len()).collect();
            let common = Arc::clone(&common);
            let open: Work<_> = Box::new(move || common.open(place, export, roots));
            open
        });
        join(together("open", all.collect())?)
    }
}

/// What all storages of a daemon are opened with.
struct Common {
    /// The directory `/proc/self/fd`.
    proc_self_fd: Arc<OwnedFd>,
    /// Descriptors that each directory of the host may use.
    descriptors: usize,
    runtime: Handle,
    figures: Arc<Figures>,
    withheld: Capabilities,
    cached_as_told: bool,
    /// How many each has of the runtime's.
    threads: usize,
    opened: Closing,
}

impl Common {
    /// Opens one, and says whether it is the root. `place` is its place on the command line.
    fn open(
        &self,
        place: usize,
        export: PreparedExport,
        roots: Vec<Root>,
    ) -> Result<(bool, Export), Failure> {
        let _in = in_log(export.name.as_deref()).entered();
        let is_root = export.name.is_none();
        let name = export.name.unwrap_or_default();
        let given = Given {
            roots,
            proc_self_fd: Arc::clone(&self.proc_self_fd),
            descriptors: self.descriptors,
            runtime: self.runtime.clone(),
            figures: Arc::clone(&self.figures),
        };
        self.opened.begin(place, export.source);
        let backend = (export.storage.open)(given);
        let backend = backend.map_err(|failure| {
            self.opened.fail(place);
            failure.of_export((!is_root).then_some(&*name))
        })?;
        let mut shown = Shown {
            added: Capabilities::empty(),
            withheld: self.withheld,
            backend,
        };
        if export.storage.private && !self.cached_as_told {
            // What nobody else uses nobody else locks.
            shown.withheld |= Capabilities::FLOCK | Capabilities::POSIX_LOCKS;
            shown.added |= Capabilities::PRIVATE;
        }
        let backend: Arc<dyn Backend> = Arc::new(shown);
        self.opened.add(place, &name, &backend);
        let export = Export::new(name, backend, export.readonly);
        Ok((is_root, export.with_threads(self.threads)))
    }
}

/// What stands before lines of the log that are about one of several exports.
pub(crate) fn in_log(name: Option<&str>) -> Span {
    name.map_or_else(Span::none, |name| tracing::error_span!("export", name))
}

fn join(mut opened: Vec<(bool, Export)>) -> Result<Exports, Failure> {
    if let [(true, _)] = opened.as_slice()
        && let Some((_, export)) = opened.pop()
    {
        return Ok(Exports::root_of(export));
    }
    let named = opened.into_iter().map(|(_, export)| export).collect();
    Exports::named(named).map_err(Failure::usage)
}

/// A storage as the guest is to see it.
struct Shown {
    backend: Arc<dyn Backend>,
    /// What the operator knows of it.
    added: Capabilities,
    /// What the guest is not offered.
    withheld: Capabilities,
}

impl Backend for Shown {
    fn root(&self) -> Arc<dyn Node> {
        self.backend.root()
    }

    fn capabilities(&self) -> Capabilities {
        (self.backend.capabilities() | self.added) - self.withheld
    }

    fn resolve<'a>(&'a self, locator: &'a Locator) -> Answer<'a, Arc<dyn Node>> {
        self.backend.resolve(locator)
    }

    fn close(&self) -> vfsd_backend::Result<()> {
        self.backend.close()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs::File;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use vfsd_backend::Errno;

    use super::*;
    use crate::source::Source;

    /// Is closed, and says with which errno.
    struct Closes(Arc<AtomicUsize>, Result<(), Errno>);

    impl Backend for Closes {
        fn root(&self) -> Arc<dyn Node> {
            vfsd_memory::Memory::new(vfsd_memory::Settings::default())
                .unwrap()
                .root()
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::empty()
        }

        fn close(&self) -> vfsd_backend::Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(self.1?)
        }
    }

    #[test]
    fn all_storages_are_closed_and_the_first_failure_is_told() {
        let count = Arc::new(AtomicUsize::new(0));
        let results = [
            ("a", Ok(())),
            ("b", Err(Errno::IO)),
            ("c", Err(Errno::NOSPC)),
        ];
        let closing = Closing::default();
        // They may be open in any order.
        for (place, (name, result)) in results.into_iter().enumerate().rev() {
            let closes: Arc<dyn Backend> = Arc::new(Closes(Arc::clone(&count), result));
            closing.add(place, name, &closes);
        }
        let failure = closing.close();
        assert_eq!(count.load(Ordering::Relaxed), 3);
        assert!(
            matches!(&failure, Err(Failure::Run(advice)) if advice.starts_with("the storage of b was not closed: ")),
            "{failure:?}"
        );
    }

    #[test]
    fn what_is_open_too_late_is_closed_at_once() {
        let count = Arc::new(AtomicUsize::new(0));
        let closing = Closing::default();
        closing.begin(1, "b".to_owned());
        closing.begin(0, "a".to_owned());
        assert_eq!(closing.opening(), ["a", "b"]);
        closing.fail(1);
        assert_eq!(closing.opening(), ["a"]);
        closing.close().unwrap();
        let closes: Arc<dyn Backend> = Arc::new(Closes(Arc::clone(&count), Ok(())));
        closing.add(0, "a", &closes);
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert!(closing.opening().is_empty());
    }

    /// How large each tree of these sources may grow.
    fn sizes(words: &[&str]) -> Vec<u64> {
        let exports: Vec<_> = words
            .iter()
            .map(|word| ExportSettings {
                name: Some((*word).to_owned()),
                source: Source::parse(OsStr::new(word)).unwrap(),
                readonly: false,
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let storages = Storages::new(&exports, &StorageOptions::default(), 100).unwrap();
        let opened = storages.exports.into_iter().map(|export| {
            let given = Given {
                roots: Vec::new(),
                proc_self_fd: Arc::new(File::open("/proc/self/fd").unwrap().into()),
                descriptors: 100,
                runtime: runtime.handle().clone(),
                figures: Arc::default(),
            };
            let root = (export.storage.open)(given).unwrap().root();
            let size = runtime.block_on(root.statfs()).unwrap();
            size.blocks * u64::from(size.block_size)
        });
        opened.collect()
    }

    #[test]
    fn trees_in_memory_share_half_of_it_unless_they_have_a_size() {
        let alone = sizes(&["memory:"])[0];
        let (page, half) = (4096, vfsd_memory::Limits::half_of_memory().bytes);
        assert!(alone <= half && alone + page > half);
        for size in sizes(&["memory:", "memory:", "memory:"]) {
            assert!(size <= alone / 3 && size + page > alone / 3, "{size}");
        }
        assert_eq!(
            sizes(&["memory:", "memory:?size=1M"]),
            [alone, 1 << 20],
            "a tree with a size takes no share"
        );
    }
}
