//! What a kill at some place would leave: a copy of the local directory and the bucket, made while who works stands
//! still there. The shipper goes on, and stands still when it is told to.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use object_store::memory::InMemory;
use parking_lot::{Condvar, Mutex};

use crate::failpoint::Hook;
use crate::live::holes::all_data;
use crate::meta::schema;

/// Nobody waits longer for a thread that should stand still.
const LONG: Duration = Duration::from_secs(300);

/// What a kill leaves.
pub(super) struct Left {
    pub(super) place: String,
    pub(super) host: PathBuf,
    pub(super) objects: InMemory,
}

/// Makes the shipper wait, and looks at what kills would leave.
#[derive(Default)]
pub(super) struct Control {
    pub(super) state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    /// Rounds that may begin.
    pub(super) rounds: u32,
    stop_at: Option<&'static str>,
    /// Where the shipper is, unless it is under way.
    pub(super) at: Option<&'static str>,
    goes_on: bool,
    /// Nobody listens any more.
    free: bool,
    /// The shipper alone works: what it reaches counts, too.
    shipper_counts: bool,
    /// A kill is to be looked at after so many places.
    pub(super) after: Option<u64>,
    pub(super) copy: Option<Copy>,
    pub(super) left: Vec<Left>,
    pub(super) reached: BTreeMap<&'static str, u64>,
}

/// What is copied, and where to.
#[derive(Clone)]
pub(super) struct Copy {
    pub(super) host: PathBuf,
    pub(super) objects: Arc<InMemory>,
    pub(super) scratch: PathBuf,
    pub(super) made: Arc<AtomicU64>,
}

impl Control {
    pub(super) fn hook(self: &Arc<Self>) -> Hook {
        let control = self.clone();
        Arc::new(move |place| control.reach(place))
    }

    fn reach(&self, place: &'static str) {
        let thread = std::thread::current();
        let shipper = thread.name() == Some("volume-shipper");
        // Nobody knows what others do meanwhile.
        if thread.name() == Some("volume-upkeep") {
            return;
        }
        let mut state = self.state.lock();
        if state.free {
            return;
        }
        if !shipper || (state.shipper_counts && state.at.is_none()) {
            state.look(place);
        }
        if !shipper {
            return;
        }
        match place {
            "idle" => {
                state.at = Some(place);
                self.changed.notify_all();
            }
            "round due" => {
                if state.rounds == 0 {
                    state.at = Some(place);
                    self.changed.notify_all();
                }
                while state.rounds == 0 && !state.free {
                    self.changed.wait(&mut state);
                }
                state.rounds = state.rounds.saturating_sub(1);
                state.at = None;
            }
            _ if state.stop_at == Some(place) => {
                state.stop_at = None;
                state.at = Some(place);
                state.goes_on = false;
                self.changed.notify_all();
                while !state.goes_on && !state.free {
                    self.changed.wait(&mut state);
                }
                state.at = None;
            }
            _ => {}
        }
    }

    /// Waits until the shipper stands still, and says where.
    pub(super) fn wait(&self) -> &'static str {
        let mut state = self.state.lock();
        loop {
            if let Some(at) = state.at {
                state.shipper_counts = false;
                return at;
            }
            let waited = self.changed.wait_for(&mut state, LONG);
            assert!(!waited.timed_out(), "the shipper does not come to a stand");
        }
    }

    /// Lets a round begin, which stands still at a place if it comes there.
    pub(super) fn begin(&self, stop_at: Option<&'static str>) {
        let mut state = self.state.lock();
        (state.rounds, state.stop_at, state.at) = (1, stop_at, None);
        state.shipper_counts = true;
        self.changed.notify_all();
    }

    pub(super) fn go_on(&self, stop_at: Option<&'static str>) {
        let mut state = self.state.lock();
        (state.goes_on, state.stop_at, state.at) = (true, stop_at, None);
        state.shipper_counts = true;
        self.changed.notify_all();
    }

    pub(super) fn let_go(&self) {
        self.state.lock().free = true;
        self.changed.notify_all();
    }
}

impl State {
    fn look(&mut self, place: &'static str) {
        *self.reached.entry(place).or_default() += 1;
        match &mut self.after {
            None => return,
            Some(0) => self.after = None,
            Some(more) => {
                *more -= 1;
                return;
            }
        }
        if let Some(copy) = &self.copy {
            let left = copy.make(place);
            self.left.push(left);
        }
    }
}

impl Copy {
    pub(super) fn make(&self, place: &str) -> Left {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let host = self.scratch.join(format!("left-{number}"));
        copy_host(&self.host, &host);
        Left {
            place: place.to_owned(),
            host,
            objects: self.objects.fork(),
        }
    }
}

/// Copies a local directory that is in use. First what follows, then what it follows.
pub(super) fn copy_host(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for name in ["shipped.sqlite", "meta.sqlite"] {
        if from.join(name).exists() {
            copy_tables(&from.join(name), &to.join(name));
        }
    }
    for name in ["local.json", "session.json"] {
        let _ = std::fs::copy(from.join(name), to.join(name));
    }
    if let Ok(files) = std::fs::read_dir(from.join("journal")) {
        std::fs::create_dir(to.join("journal")).unwrap();
        for file in files {
            let file = file.unwrap();
            copy_data(&file.path(), &to.join("journal").join(file.file_name()));
        }
    }
    let Ok(shelves) = std::fs::read_dir(from.join("data")) else {
        return;
    };
    std::fs::create_dir(to.join("data")).unwrap();
    for shelf in shelves {
        let shelf = shelf.unwrap();
        let target = to.join("data").join(shelf.file_name());
        if shelf.file_type().unwrap().is_file() {
            continue;
        }
        std::fs::create_dir(&target).unwrap();
        for file in std::fs::read_dir(shelf.path()).unwrap() {
            let file = file.unwrap();
            copy_data(&file.path(), &target.join(file.file_name()));
        }
    }
}

fn copy_tables(from: &Path, to: &Path) {
    let db = schema::reader(from).unwrap();
    db.execute("VACUUM INTO ?1", [to.to_str().unwrap()])
        .unwrap();
    let copy = schema::writer(to).unwrap();
    copy.execute_batch("PRAGMA journal_mode=WAL;").unwrap();
}

/// Copies a file with its holes. One that is removed meanwhile is none.
fn copy_data(from: &Path, to: &Path) {
    let Ok(source) = std::fs::File::open(from) else {
        return;
    };
    let target = std::fs::File::create(to).unwrap();
    let size = source.metadata().unwrap().len();
    target.set_len(size).unwrap();
    for part in all_data(&source.into(), size).unwrap() {
        let source = std::fs::File::open(from).unwrap();
        let end = part.end.min(size);
        let mut bytes = vec![0; usize::try_from(end - part.start).unwrap()];
        source.read_exact_at(&mut bytes, part.start).unwrap();
        target.write_all_at(&bytes, part.start).unwrap();
    }
}
