//! `vfsd serve` and `vfsd virtiofsd`: a device for one guest.

use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;

use vfsd_backend::{FileKind, one_line};
use vfsd_virtio::{Device, DeviceOptions, End};

use crate::cli::choices::SandboxMode;
use crate::control;
use crate::exit::Failure;
use crate::listener::{self, Listening, OwnedFile};
use crate::notify::Notify;
use crate::sandbox::{self, Inside, Role};
use crate::settings::{Endpoint, ServeSettings};
use crate::signals::Signals;
use crate::startup::{self, Outside};
use crate::status::{self, Status};
use crate::storage::Storages;

/// Serves until the front end leaves, or a signal tells to stop.
///
/// # Errors
/// When it cannot be set up, or the front end is no correct one.
pub(crate) fn run(settings: ServeSettings) -> Result<ExitCode, Failure> {
    let listening = match settings.device.endpoint {
        Endpoint::Inherited(number) => Some(number),
        Endpoint::Path { .. } => None,
    };
    let confinement = &settings.confinement;
    let Outside {
        inherited,
        signals,
        notify,
        storages,
    } = startup::outside(
        listening,
        &settings.log,
        confinement,
        &settings.exports,
        &settings.storage,
        // And the one of high priority.
        usize::from(settings.device.queues).saturating_add(1),
    )?;
    let Listening {
        listener,
        mut files,
    } = listener::open(&settings.device.endpoint)?;
    let control = match settings.control.as_deref().map(control::bind).transpose()? {
        Some((control, file)) => {
            files.push(file);
            Some(control)
        }
        None => None,
    };
    match sandbox::enter(confinement, &storages.shares(), storages.needs)? {
        Role::Supervisor(child) => {
            drop((listener, control));
            child.supervise(signals)
        }
        Role::Daemon(inside) => {
            if confinement.sandbox != SandboxMode::None {
                // They are the supervisor's, who can still reach them.
                files.drain(..).for_each(OwnedFile::leave);
                inherited.close();
            }
            let tells = (signals, notify);
            serve(settings, storages, inside, (listener, control), tells)
        }
    }
}

fn serve(
    settings: ServeSettings,
    storages: Storages,
    inside: Inside,
    (listener, control): (UnixListener, Option<UnixListener>),
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
    if session.root_kind() != FileKind::Directory {
        return Err(Failure::usage(
            "a guest mounts directories only, and this is a single file: serve the directory that it \
             is in, or show the file on this host with `vfsd mount`",
        ));
    }
    let options = DeviceOptions {
        tag: settings.device.tag.map(|tag| tag.as_str().to_owned()),
        max_request_queues: settings.device.queues,
        poll_limit: settings.device.poll_limit,
        reconnect: settings.device.reconnect,
    };
    let device = Device::new(listener, Arc::new(Arc::clone(&session)), &options)
        .map(Arc::new)
        .map_err(|error| Failure::run(one_line(&error)))?;
    let shutdown = device.shutdown_handle();
    started.stop.by(move || shutdown.shut_down());
    if let Some(control) = control {
        let exports = status::describe(&settings.exports);
        control::start(
            control,
            Status::new(
                exports,
                session,
                Some(Arc::clone(&device)),
                Arc::clone(&started.figures),
            ),
        )?;
    }
    // In virtiofsd's words: Kata starts its VM when it has read them on standard error.
    tracing::info!("Waiting for vhost-user socket connection...");
    notify.ready();
    let served = match device.serve() {
        Ok(End::FrontEndLeft | End::ShutDown) => Ok(()),
        Err(error) => Err(Failure::run(one_line(&error))),
    };
    started.end(served)
}
