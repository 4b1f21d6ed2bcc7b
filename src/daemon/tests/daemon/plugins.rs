//! Plugins that the daemon starts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};

use crate::mounting::{Mounted, cannot_mount};
use crate::process::{Place, outcome, text, vfsd};

/// A plugin with one file, `seen`: its user, its groups, the interfaces of its network, and the signals, counted from 0 and
/// without those that the C library has for itself, that it ignores or holds back.
const TELLING: &str = r#"
import os
import vfsd_plugin as vfsd

with open("/proc/self/net/dev") as table:
    interfaces = [line.split(":")[0].strip() for line in table if ":" in line]
with open("/proc/self/status") as status:
    masks = dict(line.split(":\t") for line in status if line.startswith(("SigBlk", "SigIgn")))
held = [number for number in range(31) if (int(masks["SigBlk"], 16) | int(masks["SigIgn"], 16)) >> number & 1]
seen = f"{os.getuid()} {os.getgid()} {os.getgroups()} {interfaces} {held}\n".encode()

class Seen(vfsd.File):
    def attributes(self):
        return vfsd.Attributes(size=len(seen))

    def read(self, offset, size):
        return seen[offset:offset + size]

vfsd.serve(vfsd.Tree({"seen": Seen()}))
"#;

/// The signals that Python itself ignores: SIGPIPE and SIGXFSZ.
const PYTHONS: &str = "[12, 24]";

/// The host's own Python: one of root's may be where no other user can reach it.
const PYTHON: &str = "/usr/bin/python3";

fn cannot_run_plugins() -> bool {
    let enough = "import sys; sys.exit(sys.version_info < (3, 9))";
    let python = Command::new(PYTHON).args(["-c", enough]).status();
    let missing = !python.is_ok_and(|status| status.success());
    if missing {
        eprintln!("skipped: it takes {PYTHON} 3.9 or newer");
    }
    missing || cannot_mount()
}

/// The plugin, in a directory that everybody can reach, or only root.
fn telling(place: &Place, mode: u32) -> PathBuf {
    let folder = place.path("plugin");
    std::fs::create_dir(&folder).unwrap();
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/python/vfsd_plugin.py");
    std::fs::copy(sdk, folder.join("vfsd_plugin.py")).unwrap();
    let program = folder.join("telling.py");
    std::fs::write(&program, format!("#!{PYTHON}\n{TELLING}")).unwrap();
    let permissions = std::fs::Permissions::from_mode;
    std::fs::set_permissions(&program, permissions(0o755)).unwrap();
    std::fs::set_permissions(&folder, permissions(mode)).unwrap();
    std::fs::set_permissions(folder.parent().unwrap(), permissions(0o755)).unwrap();
    program
}

fn interfaces() -> String {
    let table = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let lines = table.lines().filter_map(|line| line.split_once(':'));
    let names: Vec<String> = lines
        .map(|(name, _)| format!("'{}'", name.trim()))
        .collect();
    format!("[{}]", names.join(", "))
}

#[test]
fn a_plugin_of_root_is_nobody_and_alone_unless_told_otherwise() {
    if cannot_run_plugins() {
        return;
    }
    let place = Place::new();
    let source = format!("plugin:exec:{}", text(&telling(&place, 0o755)));
    let others = interfaces();
    for (options, seen) in [
        (&[][..], format!("65534 65534 [] ['lo'] {PYTHONS}\n")),
        (
            &["--plugin-user=root", "--plugin-network"],
            format!("0 0 [] {others} {PYTHONS}\n"),
        ),
        (
            &["--plugin-user=7:8", "--sandbox=none"],
            format!("7 8 [] ['lo'] {PYTHONS}\n"),
        ),
    ] {
        let mounted = Mounted::new(&place, options, &source);
        let told = std::fs::read_to_string(mounted.path("seen")).unwrap();
        assert_eq!(told, seen, "{options:?}");
    }
}

/// A plugin with one file, `seen`: which of its arguments it can read, and how many files it may have open.
const TRYING: &str = r#"
import resource
import sys
import vfsd_plugin as vfsd

def can_read(path):
    try:
        with open(path, "rb") as file:
            return bool(file.read(1))
    except PermissionError:
        return False

tried = [can_read(path) for path in sys.argv[1:]]
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
seen = f"{tried} {limit}\n".encode()

class Seen(vfsd.File):
    def attributes(self):
        return vfsd.Attributes(size=len(seen))

    def read(self, offset, size):
        return seen[offset:offset + size]

vfsd.serve(vfsd.Tree({"seen": Seen()}))
"#;

#[test]
fn a_plugin_reaches_the_paths_that_it_is_given_and_no_others() {
    if cannot_run_plugins() {
        return;
    }
    let place = Place::new();
    let program = telling(&place, 0o755);
    std::fs::write(&program, format!("#!{PYTHON}\n{TRYING}")).unwrap();
    let (given, other) = (place.path("given"), place.path("other"));
    for path in [&given, &other] {
        std::fs::write(path, "content").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let words = [
        text(&program),
        text(&given),
        text(&other),
        "/proc/self/status",
    ];
    let source = format!("plugin:exec:{}", words.join(" "));
    let folder = place.path("plugin");
    let kept = [
        "--plugin-path",
        text(&folder),
        "--plugin-path",
        text(&given),
    ];
    let fds = ["--plugin-fds", "70"];
    for (options, seen) in [
        (fds.to_vec(), "[True, True, True] 70\n"),
        ([kept.as_slice(), &fds].concat(), "[True, False, True] 70\n"),
    ] {
        if options.len() > fds.len() && !has_landlock() {
            eprintln!("skipped in part: this kernel has no Landlock");
            continue;
        }
        let mounted = Mounted::new(&place, &options, &source);
        let told = std::fs::read_to_string(mounted.path("seen")).unwrap();
        assert_eq!(told, seen, "{options:?}");
    }
    let missing = ["mount", "--plugin-path", "/no/such/path", &source];
    let (code, _, errors) = outcome(vfsd(missing).arg(place.path("mnt")));
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("name a path that exists"), "{errors}");
}

/// Whether this kernel keeps a process to paths.
fn has_landlock() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))
        .and_then(Ruleset::create)
        .is_ok()
}

#[test]
fn a_plugin_that_its_user_cannot_reach_is_explained() {
    if cannot_run_plugins() {
        return;
    }
    let place = Place::new();
    let source = format!("plugin:exec:{}", text(&telling(&place, 0o700)));
    let (code, _, errors) = outcome(&mut vfsd(["mount", &source, text(&place.path("mnt"))]));
    assert_eq!(code, 1, "{errors}");
    assert!(
        errors.contains("65534") && errors.contains("--plugin-user"),
        "{errors}"
    );
}
