//! The storage, as the daemon sees it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use vfsd_backend::{Backend, Capabilities, Node};
use vfsd_plugin_protocol::HelloError;

use crate::connector::Connector;
use crate::node::PluginNode;
use crate::options::Options;
use crate::records::Record;
use crate::shared::Shared;
use crate::supervisor::Supervisor;

/// Why there is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot be connected to, or started.
    #[error(transparent)]
    Connect(io::Error),
    /// It speaks something else.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// It does not answer.
    #[error("it does not answer; is it a plugin of vfsd?")]
    Silent,
    /// It closed the connection, or ended.
    #[error("it ended before it said anything; what it wrote to its standard error says why")]
    Left,
    /// It refuses INIT or the first GETATTR, or answers nonsense.
    #[error("it answers INIT, or GETATTR of its root, wrongly")]
    Init,
    /// It came back as another storage.
    #[error("it can do other things than before: start vfsd again to serve it as it is now")]
    Changed,
}

/// A storage in a process of its own. It lives as long as this value: what is left of its nodes afterwards is EIO.
pub struct Plugin {
    shared: Arc<Shared>,
    root: Arc<PluginNode>,
    capabilities: Capabilities,
    name: Arc<str>,
}

impl Plugin {
    /// Gets a plugin, and keeps getting it when it is gone. Waits until it is there the first time, for at most the deadlines
    /// of connecting and greeting. It starts two threads.
    ///
    /// # Errors
    /// When there is no plugin.
    pub fn new(connector: impl Connector, options: Options) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::new(options));
        let name: Arc<str> = connector.name().into();
        let (sender, receiver) = sync_channel(1);
        let supervisor = Supervisor {
            shared: Arc::clone(&shared),
            connector,
            name: Arc::clone(&name),
            first: Some(sender),
            was: None,
            generation: 0,
        };
        std::thread::Builder::new()
            .name("plugin-receive".to_owned())
            .spawn(move || supervisor.run())
            .map_err(StartError::Connect)?;
        let (capabilities, kind) = receiver.recv().map_err(|_| StartError::Left)??;
        let root = Record::root(&shared, kind);
        Ok(Self {
            root: Arc::new(PluginNode(root)),
            shared,
            capabilities,
            name,
        })
    }
}

impl Backend for Plugin {
    fn root(&self) -> Arc<dyn Node> {
        self.root.clone()
    }

    fn capabilities(&self) -> Capabilities {
        // How the guest may cache a file is the plugin's to say at each open.
        self.capabilities.difference(Capabilities::REOPEN)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.shared.close();
    }
}
