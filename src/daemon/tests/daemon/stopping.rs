//! How a daemon ends that is told to at a bad moment: while it waits for what it is to serve, or while its own sandbox
//! has a copy of its mount.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::mounting::{cannot_mount, is_mounted};
use crate::process::{
    Daemon, Helper, NOBODY, Place, nobodys_program, not_root, outcome, text, vfsd, wait_until,
};

/// A server that takes connections and answers nothing.
pub(crate) struct Silent(pub(crate) TcpListener);

impl Silent {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub(crate) fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    pub(crate) fn is_the_store_of(&self, command: &mut Command) {
        command
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address()))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "a")
            .env("AWS_SECRET_ACCESS_KEY", "b");
    }

    /// Starts a daemon, and ends it as soon as it has asked.
    fn ends(&self, command: &mut Command) {
        self.is_the_store_of(command);
        // Connections of the one before are not this one's.
        while self.0.accept().is_ok() {}
        let mut daemon = Daemon::start(command);
        let mut asked = None;
        wait_until("a connection", || {
            asked = self.0.accept().ok();
            asked.is_some()
        });
        daemon.stop(Signal::TERM);
        let errors = daemon.errors();
        assert!(!errors.contains("killed"), "{errors}");
    }
}

/// Sources at a server, with what they need.
fn sources(place: &Place, server: &Silent) -> [Vec<String>; 5] {
    let (state, cache) = (place.path("state"), place.path("cache"));
    let volume = |source: &str| {
        vec![
            "--state-dir".to_owned(),
            text(&state).to_owned(),
            source.to_owned(),
        ]
    };
    [
        vec!["s3://bucket/prefix".to_owned()],
        volume("volume:s3://bucket/prefix"),
        volume("volume:s3://bucket/prefix?snapshot=monday"),
        [
            vec!["--readonly".to_owned()],
            volume("volume:s3://bucket/prefix"),
        ]
        .concat(),
        vec![
            "--cache-dir".to_owned(),
            text(&cache).to_owned(),
            format!("docker://{}/image:1", server.address()),
        ],
    ]
}

#[test]
fn who_waits_for_a_store_or_a_registry_before_it_serves_ends_when_told_to() {
    if not_root() {
        return;
    }
    let (place, server) = (Place::new(), Silent::new());
    for source in sources(&place, &server) {
        for sandbox in ["--sandbox=namespace", "--sandbox=none"] {
            let socket = place.socket();
            let mut command = vfsd(["serve", sandbox, "--socket-path", text(&socket)]);
            server.ends(command.args(&source));
            assert!(!socket.exists(), "{source:?}");
        }
    }
}

#[test]
fn a_mount_of_what_does_not_answer_goes_when_its_daemon_is_told_to_end() {
    if cannot_mount() {
        return;
    }
    let (place, server) = (Place::new(), Silent::new());
    let point = place.path("mnt");
    for source in sources(&place, &server) {
        server.ends(vfsd(["mount"]).args(&source).arg(&point));
        assert!(!is_mounted(&point), "{source:?}");
    }
}

#[test]
fn the_log_says_what_a_start_waits_for() {
    let (place, server) = (Place::new(), Silent::new());
    let (socket, log) = (place.socket(), place.path("log"));
    let mut command = vfsd([
        "serve",
        "--socket-path",
        text(&socket),
        "s3://bucket/prefix",
    ]);
    server.is_the_store_of(&mut command);
    command.stderr(std::fs::File::create(&log).unwrap());
    let _daemon = Helper(command.spawn().unwrap());
    wait_until("a line of the log", || {
        let lines = std::fs::read_to_string(&log).unwrap();
        lines.contains("s3://bucket/prefix is still being opened")
    });
}

/// Mounts as an ordinary user, in a mount namespace that lets one use `/dev/fuse`; writes, and ends the daemon while the
/// file is open, if it is to be.
const MOUNT: &str = r#"
    set -e
    user="setpriv --reuid=$2 --regid=$2 --clear-groups"
    $user test -w /dev/fuse || {
        mknod "$1/fuse" c 10 229 && chmod 666 "$1/fuse" && mount --bind "$1/fuse" /dev/fuse
    }
    $user "$1/vfsd" mount --upper "$1/upper" "$1/share" "$1/mnt" & daemon=$!
    until grep -q "$1/mnt fuse.vfsd" /proc/self/mounts; do
        kill -0 $daemon && sleep 0.01
    done
    $user sh -c 'echo kept >"$1/mnt/f"' write "$1"
    [ "$3" = idle ] || {
        $user sh -c 'exec 3>>"$1/mnt/f" && : >"$1/opened" && exec sleep 100' use "$1" & program=$!
        until [ -e "$1/opened" ]; do sleep 0.01; done
    }
    kill -TERM $daemon && wait $daemon
    ! grep "$1/mnt" /proc/self/mounts
    [ "$3" = idle ] || kill $program
"#;

#[test]
fn an_ordinary_users_server_ends_by_itself_where_its_sandbox_has_a_copy_of_the_mount() {
    if cannot_mount() {
        return;
    }
    if Command::new("fusermount3")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("skipped: it takes fusermount3");
        return;
    }
    for how in ["idle", "used"] {
        let place = Place::new();
        nobodys_program(&place);
        let folder = place.share();
        let folder = folder.parent().unwrap();
        // The mount point lies beside the upper, in a folder that is taken along into the sandbox.
        std::fs::create_dir(folder.join("upper")).unwrap();
        let upper = folder.join("upper");
        std::os::unix::fs::chown(&upper, Some(NOBODY), None).unwrap();
        let (code, _, errors) = outcome(
            Command::new("timeout")
                .args(["60", "unshare", "--mount", "sh", "-c", MOUNT, "mount"])
                .args([folder, Path::new(&NOBODY.to_string()), Path::new(how)]),
        );
        assert_eq!(code, 0, "{how}: {errors}");
        assert!(!errors.contains("killed"), "{how}: {errors}");
        assert_eq!(errors.contains("was in use"), how == "used", "{errors}");
        assert_eq!(std::fs::read(upper.join("f")).unwrap(), b"kept\n");
    }
}
