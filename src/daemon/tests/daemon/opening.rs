//! Several exports that are opened, and what becomes of one that could be opened and not be shown.

use std::io::Read;
use std::net::TcpStream;
use std::process::Command;

use rustix::process::Signal;
use vfsd_testkit::servers::{RunningStore, StoreServer, request};

use crate::mounting::{cannot_mount, is_mounted};
use crate::process::{Daemon, Place, outcome, text, vfsd, wait_until};
use crate::stopping::Silent;

/// Starts a daemon of these exports, waits until each has asked `server` for what its name says, and ends it, while none of
/// them is answered for longer than a test waits for anything.
fn all_ask(server: &Silent, names: &[&str], command: &mut Command) {
    let mut daemon = Daemon::start(command.args(["--store-timeout", "3600"]));
    let mut connections: Vec<(TcpStream, Vec<u8>)> = Vec::new();
    wait_until("a request of each export, without an answer to any", || {
        while let Ok((connection, _)) = server.0.accept() {
            connection.set_nonblocking(true).unwrap();
            connections.push((connection, Vec::new()));
        }
        for (connection, asked) in &mut connections {
            // It has nothing to read, or said all.
            let _ = connection.read_to_end(asked);
        }
        let has_asked = |name: &&str| {
            let mut all = connections.iter();
            all.any(|(_, asked)| String::from_utf8_lossy(asked).contains(*name))
        };
        names.iter().all(has_asked)
    });
    daemon.stop(Signal::TERM);
}

/// A daemon of exports, each with its name and what it is.
fn serve(place: &Place, exports: &[(&str, String)]) -> Command {
    let config = place.path("config.toml");
    let exports = exports
        .iter()
        .map(|(name, source)| format!("[[export]]\nname = {name:?}\n{source}\n"));
    std::fs::write(&config, exports.collect::<String>()).unwrap();
    let socket = place.socket();
    let words = [
        "serve",
        "--socket-path",
        text(&socket),
        "--config",
        text(&config),
    ];
    vfsd(words)
}

fn sources<'a>(names: &[&'a str], source: impl Fn(&str) -> String) -> Vec<(&'a str, String)> {
    let of = |name: &&'a str| (*name, format!("source = {:?}", source(name)));
    names.iter().map(of).collect()
}

#[test]
fn buckets_are_opened_at_the_same_time() {
    let (place, server) = (Place::new(), Silent::new());
    let names = [
        "one", "two", "three", "four", "five", "six", "seven", "eight",
    ];
    let mut command = serve(
        &place,
        &sources(&names, |name| format!("s3://bucket/{name}")),
    );
    server.is_the_store_of(&mut command);
    all_ask(&server, &names, &mut command);
}

#[test]
fn layers_of_an_export_are_opened_at_the_same_time() {
    let (place, server) = (Place::new(), Silent::new());
    let names = ["one", "two", "three"];
    let lowers = names.map(|name| format!("s3://bucket/{name}"));
    let export = format!("lowers = {lowers:?}\nupper = {:?}", place.path("upper"));
    let mut command = serve(&place, &[("layers", export)]);
    server.is_the_store_of(&mut command);
    all_ask(&server, &names, &mut command);
}

/// In the order of the file what is slow comes first.
#[test]
fn what_is_missing_on_this_host_is_told_before_anything_far_away_is_waited_for() {
    let server = Silent::new();
    let image = |name: &str| format!("source = \"docker://{}/{name}:1\"", server.address());
    let missing = |place: &Place| text(&place.path("missing")).to_owned();
    let place = Place::new();
    let path = missing(&place);
    let here = [
        format!("source = {path:?}"),
        format!("source = \"oci:{path}\""),
        format!("source = \"volume:file:{path}\""),
        format!("lowers = [\"docker://{}/b:1\", {path:?}]", server.address()),
        format!("source = \"memory:\"\nupper = \"{path}/upper\""),
    ];
    for export in here {
        let exports = [("image", image("a")), ("wrong", export.clone())];
        let mut command = serve(&place, &exports);
        command.args(["--cache-dir", text(&place.path("cache"))]);
        let (code, _, errors) = outcome(&mut command);
        assert_eq!(code, 1, "{export}: {errors}");
        assert!(
            errors.contains("vfsd: export \"wrong\": ") && errors.contains(&path),
            "{export}: {errors}"
        );
        assert!(!place.path("missing").exists() && !place.socket().exists());
    }
    let asked = server.0.accept().map_err(|error| error.kind());
    assert_eq!(asked.unwrap_err(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn images_are_found_at_the_same_time() {
    let (place, server) = (Place::new(), Silent::new());
    let names = ["one", "two", "three"];
    let image = |name: &str| format!("docker://{}/{name}:1", server.address());
    let mut command = serve(&place, &sources(&names, image));
    command.args(["--cache-dir", text(&place.path("cache"))]);
    all_ask(&server, &names, &mut command);
}

#[test]
fn the_first_export_that_fails_is_told_and_nothing_is_left() {
    let place = Place::new();
    // Nobody listens there.
    let image = |name: &str| format!("docker://127.0.0.1:1/{name}:1");
    let mut command = serve(&place, &sources(&["one", "two", "three"], image));
    let (code, _, errors) = outcome(command.args(["--cache-dir", text(&place.path("cache"))]));
    assert_eq!(code, 1, "{errors}");
    let told = errors.lines().last().unwrap();
    assert!(told.starts_with("vfsd: export \"one\": "), "{errors}");
    assert!(
        told.contains("6 times in vain: check the registry's name"),
        "{errors}"
    );
    // Before that each is told once, when it is asked again.
    let again = errors
        .lines()
        .filter(|line| line.contains("; asked again in "));
    assert_eq!(again.count(), 3, "{errors}");
    assert!(!place.socket().exists());
}

#[test]
fn a_store_that_cannot_be_reached_is_told_before_it_is_given_up() {
    let place = Place::new();
    let (socket, state) = (place.socket(), place.path("state"));
    for source in ["s3://bucket", "volume:s3://bucket/volume"] {
        let mut words = vec!["serve", "--socket-path", text(&socket)];
        words.extend(["--store-timeout", "2", source]);
        if source.starts_with("volume:") {
            words.extend(["--state-dir", text(&state)]);
        }
        let mut command = vfsd(words);
        command
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
            .env("AWS_ACCESS_KEY_ID", "a")
            .env("AWS_SECRET_ACCESS_KEY", "b");
        let (code, _, errors) = outcome(&mut command);
        assert_eq!(code, 1, "{errors}");
        let lines: Vec<_> = errors.lines().collect();
        let told = lines.iter().filter(|line| {
            line.contains("s3://bucket fails: it cannot be reached; check the endpoint")
                && line.contains("; requests are repeated, this one for ")
        });
        assert_eq!(told.count(), 1, "{errors}");
        let last = lines.last().unwrap();
        assert!(
            last.starts_with("vfsd: ") && last.contains("it cannot be reached"),
            "{errors}"
        );
    }
}

#[test]
fn one_place_is_not_for_two_writable_exports() {
    let place = Place::new();
    let upper = place.path("upper");
    let source = format!(
        "source = {:?}\nupper = {:?}",
        text(&place.share()),
        text(&upper)
    );
    let exports = [("one", source.clone()), ("two", source)];
    let (code, _, errors) = outcome(&mut serve(&place, &exports));
    assert_eq!(code, 2, "{errors}");
    let told = format!(
        "vfsd: export \"two\": {} is used by export \"one\" already: each needs one of its own\n",
        text(&upper)
    );
    assert!(errors.ends_with(&told), "{errors}");
}

/// A store with a bucket `data`, if there is a server on this host.
pub(crate) fn store() -> Option<RunningStore> {
    let server = StoreServer::Moto;
    if let Err(missing) = server.find() {
        eprintln!("skipped: {missing}");
        return None;
    }
    let store = server.start().unwrap();
    let made = request(store.address(), "PUT", "/data", &[], &[]).unwrap();
    assert_eq!(made.status, 200);
    Some(store)
}

/// Makes a volume. moto looks at a condition and writes in two steps: on a busy machine two writers come between them now and
/// then, which the volume is refused for. Then it is made again.
pub(crate) fn make_volume(store: &RunningStore, source: &str) {
    wait_until("a store that keeps its conditions", || {
        let mut create = vfsd(["volume", "create", source]);
        let (code, _, errors) = outcome(create.envs(store.environment()));
        let races = errors.contains("writes at once succeed");
        assert!(code == 0 || races, "{errors}");
        code == 0
    });
}

#[test]
fn a_volume_that_cannot_be_shown_is_free_for_other_hosts_again() {
    if cannot_mount() {
        return;
    }
    let Some(store) = store() else { return };
    let (place, source) = (Place::new(), "volume:s3://data/volume");
    let file = place.path("file");
    std::fs::write(&file, "").unwrap();
    let run = |words: &[&str]| {
        let mut command = vfsd(words.iter().copied());
        command.envs(store.environment());
        command
    };
    make_volume(&store, source);
    // A directory cannot be shown on a file, which is known when the volume is open.
    let (here, there) = (place.path("here"), place.path("there"));
    let words = ["mount", "--state-dir", text(&here), source, text(&file)];
    let (code, _, errors) = outcome(&mut run(&words));
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("the mount point is a file"), "{errors}");
    let point = place.path("mnt");
    let words = ["mount", "--state-dir", text(&there), source, text(&point)];
    let mut command = run(&words);
    let mut daemon = Daemon::start(&mut command);
    wait_until("the mount of another host", || {
        assert!(daemon.runs(), "{}", daemon.errors());
        is_mounted(&point) && std::fs::read_dir(&point).is_ok()
    });
    daemon.stop(Signal::TERM);
}
