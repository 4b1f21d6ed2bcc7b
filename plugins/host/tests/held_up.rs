//! A storage that waits now and then: what it answers in place, and who reads on while it waits.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use vfsd_backend::{Answer, Backend, Errno, Lookup, Name, Node, Ttl};
use vfsd_plugin_host::{Connector, Options, Plugin};
use vfsd_testkit::lookups::Lookups;

/// A directory without files, where to look for one of them takes long, until that is ended. It tells which thread looks for
/// what.
fn slow(looking: Sender<(Vec<u8>, String)>, end: Receiver<()>) -> Lookups {
    let (looking, end) = (Arc::new(Mutex::new(looking)), Arc::new(Mutex::new(end)));
    Lookups::new(move |name| {
        let (looking, end) = (Arc::clone(&looking), Arc::clone(&end));
        Answer::brief(move || {
            let thread = std::thread::current().name().unwrap().to_owned();
            let looked = (name.as_bytes().to_vec(), thread);
            looking.lock().send(looked).unwrap();
            if name.as_bytes() == b"slow" {
                end.lock().recv().map_err(|_| Errno::IO)?;
            }
            Ok(Lookup::Missing { ttl: Ttl::Policy })
        })
    })
}

/// The plugin in this process.
struct Inside(Lookups);

impl Connector for Inside {
    fn connect(&mut self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let root = Arc::new(self.0.clone());
        let runtime = vfsd_testkit::runtime().handle().clone();
        std::thread::spawn(move || vfsd_plugin::serve_connection(theirs, root, &runtime));
        Ok(ours)
    }

    fn name(&self) -> String {
        "slow".to_owned()
    }
}

fn look(root: &dyn Node, name: &str) {
    let answer = root.lookup(Name::new(name.as_bytes()).unwrap());
    let looked = vfsd_testkit::runtime().block_on(answer);
    assert!(matches!(looked, Ok(Lookup::Missing { .. })), "{name}");
}

#[test]
fn brief_work_is_done_by_the_reader_and_another_reads_on_when_it_lasts() {
    let ((looking, looks), (release, end)) = (channel(), channel());
    let plugin = Plugin::new(Inside(slow(looking, end)), Options::default()).unwrap();
    let root = plugin.root();
    look(root.as_ref(), "first");
    let held_up = Arc::clone(&root);
    let waiting = std::thread::spawn(move || look(held_up.as_ref(), "slow"));
    assert_eq!(looks.recv().unwrap().0, b"first");
    assert_eq!(looks.recv().unwrap().0, b"slow");
    // After one that lasted a few are done elsewhere: more of them where this thread is put aside now and then.
    let by_the_reader = (0..2000).any(|number| {
        look(root.as_ref(), &format!("quick-{number}"));
        looks.recv().unwrap().1 == "plugin-reader"
    });
    assert!(by_the_reader);
    assert!(!waiting.is_finished());
    release.send(()).unwrap();
    waiting.join().unwrap();
}
