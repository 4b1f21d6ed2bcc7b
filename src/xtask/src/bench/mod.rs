//! Measurements of vfsd beside virtiofsd and beside the bare system calls.
//!
//! - [`row`]: a figure with its samples
//! - [`native`]: both daemons driven by a vhost-user front end in this process, without a guest
//! - [`guest`]: programs in a guest whose root is served by either daemon
//! - [`requests`]: how many requests programs in a guest make
//! - [`roots`]: one tree as a guest's root, in three ways
//! - [`scale`]: many guests, many files, and nothing to do
//! - [`peer`]: where virtiofsd comes from
//! - [`served`]: where what is served lies
//! - [`usage`]: processor time and memory of a daemon
//! - [`report`]: what a run leaves: samples, tables, charts
//! - [`volumes`]: vfsd's volumes in a bucket beside JuiceFS
//! - [`images`]: an image in a registry as a guest's root, from its name to its first command
//! - [`plugins`]: what an operation costs that a plugin answers
//! - [`layers`]: what a writable layer costs
//! - [`section`]: what these and [`requests`] leave beside the tables
//! - [`table`]: the rows as text
//! - [`progress`]: the bar
//!
//! Both daemons run on the same machine, with the same command line, on the same folder, and take
//! turns: vfsd, virtiofsd, vfsd, virtiofsd. What disturbs the machine for some seconds then falls
//! on both.

pub(crate) mod buckets;
pub(crate) mod figures;
pub(crate) mod guest;
pub(crate) mod images;
pub(crate) mod layers;
pub(crate) mod mounted;
pub(crate) mod native;
pub(crate) mod peer;
pub(crate) mod plugins;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod requests;
pub(crate) mod roots;
pub(crate) mod row;
pub(crate) mod scale;
pub(crate) mod section;
pub(crate) mod served;
pub(crate) mod table;
pub(crate) mod usage;
pub(crate) mod volumes;

use std::path::PathBuf;
use std::time::Duration;

use crate::daemon::Program;
use crate::workspace::Workspace;
use row::Side;

/// What is to be measured, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The checkout and its target folder.
    pub(crate) workspace: Workspace,
    /// The program under test.
    pub(crate) vfsd: PathBuf,
    /// The peer.
    pub(crate) virtiofsd: PathBuf,
    /// How often each figure is taken of each side.
    pub(crate) pairs: usize,
    /// How long one sample lasts, where it is no fixed amount of work.
    pub(crate) sample: Duration,
    /// An empty folder for what is served and for sockets; on the file system to measure.
    pub(crate) folder: PathBuf,
    /// How many small objects a bucket has.
    pub(crate) objects: u32,
    /// What a row's name has to contain; any name will do when empty.
    pub(crate) only: Vec<String>,
}

impl Plan {
    /// Whether a row with this name is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|part| name.contains(&part.to_lowercase()))
    }

    /// The program of `side`; the bare calls have none.
    pub(crate) fn program(&self, side: Side) -> Option<Program> {
        match side {
            Side::Vfsd => Some(Program::Vfsd(self.vfsd.clone())),
            Side::Virtiofsd => Some(Program::Virtiofsd(self.virtiofsd.clone())),
            Side::Bare => None,
        }
    }
}
