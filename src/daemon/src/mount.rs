//! `vfsd mount`: a file system of this host.
//!
//! Three processes at most: one that mounts, and unmounts whatever becomes of the others; the
//! sandbox's supervisor; and the one that serves.

use std::io::Read;
use std::net::Shutdown;
use std::num::NonZeroUsize;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread::{self, available_parallelism};

use vfsd_backend::FileKind;
use vfsd_hostmount::{Connection, HostMount, MountOptions, Unmounted};
use vfsd_server::Session;

use crate::control;
use crate::exit::Failure;
use crate::listener::OwnedFile;
use crate::notify::Notify;
use crate::sandbox::{self, Fork, Inside, Role};
use crate::settings::MountSettings;
use crate::signals::Signals;
use crate::startup::{self, Outside};
use crate::status::{self, Status};
use crate::storage::Storages;

/// Where the file system is mounted, for the process that serves it.
struct Place {
    connection: Connection,
    on_directory: bool,
    /// Where the process that has mounted it says that it is over.
    over: UnixStream,
}

/// Threads that take requests in, at most.
const READERS: usize = 4;

/// As many more, so that the others may wait for the storage without a change of threads: the last one
/// that reads never waits.
const SPARE_READERS: usize = 2;

/// Serves until the file system is unmounted, or a signal tells to.
///
/// # Errors
/// When it cannot be set up or mounted.
pub(crate) fn run(settings: MountSettings) -> Result<ExitCode, Failure> {
    let Outside {
        inherited,
        signals,
        notify,
        mut storages,
    } = startup::outside(
        None,
        &settings.log,
        &settings.confinement,
        std::slice::from_ref(&settings.export),
        &settings.storage,
        readers().get(),
    )?;
    let (control, control_file) = settings
        .control
        .as_deref()
        .map(control::bind)
        .transpose()?
        .unzip();
    let root = rustix::process::geteuid().is_root();
    let options = MountOptions {
        name: settings.export.source.to_string(),
        allow_other: settings.allow_other.unwrap_or(root),
        read_only: settings.export.readonly,
    };
    let removed = vfsd_hostmount::remove_dead(&settings.mount_point).map_err(Failure::run)?;
    for dead in removed {
        tracing::warn!(
            "took away {dead} at {}: its server had ended without unmounting it",
            settings.mount_point.display()
        );
    }
    // What it does not find there the mount itself will say.
    let kept_out = match settings.mount_point.canonicalize() {
        Ok(point) => storages.keep_out(&point, &settings.confinement)?,
        Err(_) => false,
    };
    let (tells, over) = UnixStream::pair()
        .map_err(|error| Failure::run(format!("cannot make a pair of sockets: {error}")))?;
    // From here on no way leads out but past the unmounting.
    let (mount, connection) =
        HostMount::mount(&settings.mount_point, &options).map_err(Failure::run)?;
    let outcome = match sandbox::fork() {
        Ok(Fork::Parent(child)) => {
            // Users of a mount whose server has ended are not to wait for this process.
            drop((connection, control, over));
            child.outlive(signals, || {
                if !unmount(&mount, kept_out) {
                    // It fails only when the server has ended.
                    let _ = tells.shutdown(Shutdown::Both);
                }
            })
        }
        Ok(Fork::Child) => {
            drop(tells);
            // The socket's file is the parent's, who can still reach it, and so is the mount.
            control_file.into_iter().for_each(OwnedFile::leave);
            let place = Place {
                connection,
                on_directory: mount.is_on_directory(),
                over,
            };
            drop(mount);
            inherited.close();
            let tells = (signals, notify);
            return confine_and_serve(settings, storages, place, control, tells);
        }
        Err(error) => Err(Failure::run(format!(
            "cannot start the daemon's process: {error}"
        ))),
    };
    if let Err(error) = mount.unmount_dead() {
        tracing::error!("cannot unmount {}: {error}", mount.point().display());
    }
    outcome
}

fn readers() -> NonZeroUsize {
    let readers = available_parallelism()
        .map_or(1, NonZeroUsize::get)
        .clamp(2, READERS)
        .saturating_add(SPARE_READERS);
    NonZeroUsize::new(readers).unwrap_or(NonZeroUsize::MIN)
}

/// Unmounts, and says whether the server ends by itself now. `kept_out`: its sandbox has no copy of the mount.
fn unmount(mount: &HostMount, kept_out: bool) -> bool {
    match mount.unmount() {
        Ok(Unmounted::Idle) => kept_out,
        Ok(Unmounted::Copied) => {
            // The copy in the server's own sandbox is no news.
            if kept_out {
                tracing::warn!(
                    "another mount namespace has {} too: programs there lose it now",
                    mount.point().display()
                );
            }
            true
        }
        Ok(how @ (Unmounted::Cut | Unmounted::InUse)) => {
            tracing::warn!(
                "{} was in use: programs lose it now",
                mount.point().display()
            );
            how == Unmounted::Cut
        }
        // The server has not begun to serve, and has ended because of the same signal: it is unmounted after that.
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => true,
        // Tried again when the server has ended.
        Err(error) => {
            tracing::warn!("cannot unmount {}: {error}", mount.point().display());
            false
        }
    }
}

fn confine_and_serve(
    settings: MountSettings,
    storages: Storages,
    mut place: Place,
    control: Option<UnixListener>,
    (signals, notify): (Signals, Notify),
) -> Result<ExitCode, Failure> {
    place
        .connection
        .spread(readers())
        .map_err(|error| Failure::run(format!("cannot spread the connection: {error}")))?;
    match sandbox::enter(&settings.confinement, &storages.shares(), storages.needs)? {
        Role::Supervisor(child) => {
            drop((place, control));
            child.supervise(signals)
        }
        Role::Daemon(inside) => {
            let tells = (signals, notify);
            serve(settings, storages, inside, (place, control), tells)
        }
    }
}

fn serve(
    settings: MountSettings,
    storages: Storages,
    inside: Inside,
    (place, control): (Place, Option<UnixListener>),
    (signals, notify): (Signals, Notify),
) -> Result<ExitCode, Failure> {
    let started = startup::inside(
        &settings.confinement,
        storages,
        inside,
        settings.session,
        signals,
    )?;
    let session = Arc::clone(&started.session);
    let is_directory = session.root_kind() == FileKind::Directory;
    if is_directory != place.on_directory {
        return Err(Failure::usage(match is_directory {
            true => "a directory is mounted on a directory, and the mount point is a file",
            false => "a single file is mounted on a file, and the mount point is a directory",
        }));
    }
    if let Some(control) = control {
        let exports = status::describe(std::slice::from_ref(&settings.export));
        let figures = Arc::clone(&started.figures);
        control::start(
            control,
            Status::new(exports, session.clone(), None, figures),
        )?;
    }
    tracing::info!("serving {}", settings.mount_point.display());
    notify.ready();
    // A signal changes nothing from here on: who has mounted unmounts, and by that it ends.
    started.end(serve_until_over(place, session))
}

/// Serves until the file system is unmounted, or whoever mounted it says that it is over: a mount that others have copies
/// of goes on, and so does the server's own.
fn serve_until_over(place: Place, session: Arc<Session>) -> Result<(), Failure> {
    let (ended, ends) = mpsc::channel();
    let told = ended.clone();
    let Place {
        connection,
        mut over,
        ..
    } = place;
    let serve = move || {
        let served = connection.serve(&session);
        let served = served.map_err(|error| Failure::run(format!("/dev/fuse failed: {error}")));
        // The other one may have been first.
        let _ = ended.send(served);
    };
    let listen = move || {
        // Nothing is ever sent: it is over when the other end is.
        let _ = over.read(&mut [0]);
        let _ = told.send(Ok(()));
    };
    let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let started = thread::Builder::new().name(name.to_owned()).spawn(work);
        started
            .map(drop)
            .map_err(|error| Failure::run(format!("cannot start a thread: {error}")))
    };
    start("fuse", Box::new(serve))?;
    start("over", Box::new(listen))?;
    ends.recv().unwrap_or(Ok(()))
}
