//! Sources over one another: read-only layers, and a writable one over them (`--upper`).

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tracing::Span;
use vfsd_backend::{Answer, Backend, Capabilities, Locator, Node};
use vfsd_overlay::{Namespace, Overlay};

use super::upper::{Place, Upper};
use super::{Given, Kind, Open, Prepared, Root, Source, Storage, StorageOptions};
use crate::closing::Closing;
use crate::exit::Failure;
use crate::sandbox::{Needs, Share};
use crate::together::{Work, together};

/// Sources over one another.
#[derive(Debug)]
pub(crate) struct Layers {
    /// Read-only, the topmost first: at least one.
    pub(crate) lowers: Vec<Source>,
    /// Where changes go.
    pub(crate) upper: Option<Upper>,
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(upper) = &self.upper {
            write!(f, "upper {} over ", upper.dir.display())?;
        }
        f.write_str(&shown_list(&self.lowers))
    }
}

fn shown_list(lowers: &[Source]) -> String {
    list(lowers, Source::to_string)
}

fn list(lowers: &[Source], name: impl Fn(&Source) -> String) -> String {
    let names: Vec<_> = lowers.iter().map(name).collect();
    names.join(" over ")
}

impl Storage for Layers {
    fn is_read_only(&self, _: &StorageOptions) -> bool {
        self.upper.is_none()
    }

    fn is(&self, kind: Kind) -> bool {
        // What is below is never written to.
        let written = [Kind::ObjectsToWrite, Kind::VolumeToWrite];
        !written.contains(&kind) && self.lowers.iter().any(|lower| lower.is(kind))
    }

    fn memory_shares(&self) -> u64 {
        self.lowers.iter().map(Source::memory_shares).sum()
    }

    fn check(&self) -> Result<(), Failure> {
        self.lowers.iter().try_for_each(Source::check)?;
        self.upper.as_ref().map_or(Ok(()), Place::check)
    }

    fn ahead(&self, options: &StorageOptions) -> Vec<Work<()>> {
        let lowers = self.lowers.iter();
        lowers.flat_map(|lower| lower.ahead(options)).collect()
    }

    fn prepare(&self, options: &StorageOptions, readonly: bool) -> Result<Prepared, Failure> {
        if readonly && self.upper.is_some() {
            return Err(Failure::usage(
                "a writable layer cannot be read-only: leave out the upper, or readonly",
            ));
        }
        if options.passthrough.xattr_map.is_some() {
            return Err(Failure::usage(
                "--xattr-map would rename what the layers keep in extended attributes: leave it \
                 out",
            ));
        }
        let mut inner = options.clone();
        // The layers' own attributes are read whatever the guest is offered.
        inner.passthrough.xattr = true;
        let lowers = self
            .lowers
            .iter()
            .map(|lower| lower.prepare(&inner, true))
            .collect::<Result<Vec<_>, _>>()?;
        let mut shares: Vec<Share> = Vec::new();
        let mut needs = Needs::default();
        let mut opened = Vec::new();
        for lower in lowers {
            opened.push((lower.shares.len(), lower.open));
            shares.extend(lower.shares);
            needs = needs | lower.needs;
        }
        let place = self.upper.as_ref().map(Place::prepare).transpose()?;
        let given = self.upper.as_ref().and_then(|upper| upper.namespace);
        let namespace = match &place {
            Some(place) => place.namespace(given, default_namespace())?,
            None => default_namespace(),
        };
        needs.trusted_attributes = namespace == Namespace::Trusted;
        if let Some(place) = &place {
            place.check_apart_from(shares.iter().map(|share| &*share.path))?;
            shares.push(place.share());
            needs = needs | super::dir::needs(&inner.passthrough);
        }
        let shown = self.to_string();
        let lowers_names = [
            list(&self.lowers, Source::lasting_name),
            // As former versions noted it.
            shown_list(&self.lowers),
        ];
        let host_directories = self.lowers.iter().all(Source::is_host_directory);
        Ok(Prepared {
            shares,
            needs,
            private: self.upper.as_ref().is_some_and(|upper| !upper.shared),
            open: Box::new(move |given| {
                let stack = Stack {
                    lowers: opened,
                    place,
                    lowers_names,
                    host_directories,
                    namespace,
                };
                stack.open(given, &inner.passthrough, &shown)
            }),
        })
    }
}

/// Layers that were looked at and are not open yet.
struct Stack {
    /// Each with the number of its shares.
    lowers: Vec<(usize, Open)>,
    place: Option<Place>,
    /// Which trees they are, in words: the first is noted, and each is known.
    lowers_names: [String; 2],
    /// All are directories of the host.
    host_directories: bool,
    namespace: Namespace,
}

impl Stack {
    /// Opens the layers at the same time, and what is made of them. Where anything fails they are closed again.
    fn open(
        self,
        given: Given,
        passthrough: &vfsd_passthrough::Options,
        shown: &str,
    ) -> Result<Arc<dyn Backend>, Failure> {
        let lowers = Closing::default();
        self.open_over(&lowers, given, passthrough, shown)
            .inspect_err(|_| {
                if let Err(Failure::Run(advice)) = lowers.close() {
                    tracing::error!("{advice}");
                }
            })
    }

    fn open_over(
        self,
        opened: &Closing,
        given: Given,
        passthrough: &vfsd_passthrough::Options,
        shown: &str,
    ) -> Result<Arc<dyn Backend>, Failure> {
        let failed =
            |error: &dyn fmt::Display| Failure::run(format!("cannot serve {shown}: {error}"));
        let mut given = given;
        let roots = std::mem::take(&mut given.roots);
        let one_file_system = self.host_directories && are_on_one_file_system(&roots);
        let mut roots = roots.into_iter();
        let lowers = self.lowers.into_iter().enumerate();
        let lowers = lowers.map(|(place, (count, open))| {
            let below = given.with(roots.by_ref().take(count).collect());
            let (opened, span) = (opened.clone(), Span::current());
            let work: Work<_> = Box::new(move || {
                let _in = span.entered();
                let lower = open(below)?;
                opened.add(place, "", &lower);
                Ok(lower)
            });
            work
        });
        let lowers = together("open", lowers.collect())?;
        let mut options = vfsd_overlay::Options::new(lowers);
        options.namespace = self.namespace;
        options.one_file_system = one_file_system;
        let mut locks = None;
        if let Some(place) = self.place {
            let root = roots
                .next()
                .ok_or_else(|| failed(&"the upper was not taken along"))?;
            locks = Some(
                place
                    .lock(root.descriptor.as_fd())
                    .map_err(|error| failed(&error))?,
            );
            let share = super::dir::open(root, &given, passthrough.clone())
                .map_err(|error| failed(&error))?;
            let upper = given.runtime.block_on(place.upper(share.root()));
            let work = given.runtime.block_on(place.work(share.root()));
            options.lowers_names = self.lowers_names.into();
            options.upper = Some(vfsd_overlay::Upper {
                backend: Arc::new(share),
                root: upper.map_err(|error| failed(&error))?,
                work: work.map_err(|error| failed(&error))?,
            });
        }
        let overlay = given.runtime.block_on(Overlay::open(options));
        Ok(Arc::new(Locked {
            overlay: overlay.map_err(|error| failed(&error))?,
            _locks: locks,
        }))
    }
}

/// Whether directories of the host lie on one file system, so that files with one inode number are the same.
fn are_on_one_file_system(roots: &[Root]) -> bool {
    let device = |root: &Root| rustix::fs::fstat(&root.descriptor).map(|stat| stat.st_dev);
    let devices: Result<Vec<_>, _> = roots.iter().map(device).collect();
    devices.is_ok_and(|devices| devices.windows(2).all(|pair| pair.first() == pair.last()))
}

/// An overlay whose upper nobody else uses as long as it is there.
struct Locked {
    overlay: Arc<Overlay>,
    _locks: Option<[OwnedFd; 2]>,
}

impl Backend for Locked {
    fn root(&self) -> Arc<dyn Node> {
        self.overlay.root()
    }

    fn capabilities(&self) -> Capabilities {
        self.overlay.capabilities()
    }

    fn resolve<'a>(&'a self, locator: &'a Locator) -> Answer<'a, Arc<dyn Node>> {
        self.overlay.resolve(locator)
    }

    fn close(&self) -> vfsd_backend::Result<()> {
        self.overlay.close()
    }
}

/// `trusted.*` for those who may write it, `user.*` for others.
fn default_namespace() -> Namespace {
    use rustix::thread::CapabilitySet;
    let may = rustix::process::geteuid().is_root()
        && rustix::thread::capabilities(None)
            .is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_ADMIN));
    if may {
        Namespace::Trusted
    } else {
        Namespace::User
    }
}
