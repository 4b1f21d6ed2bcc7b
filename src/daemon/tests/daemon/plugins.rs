//! Plugins that the daemon starts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mounting::{Mounted, cannot_mount};
use crate::process::{Place, outcome, text, vfsd};

/// A plugin with one file, `seen`: its user, its groups, and the interfaces of its network.
const TELLING: &str = r#"
import os
import vfsd_plugin as vfsd

with open("/proc/self/net/dev") as table:
    interfaces = [line.split(":")[0].strip() for line in table if ":" in line]
seen = f"{os.getuid()} {os.getgid()} {os.getgroups()} {interfaces}\n".encode()

class Seen(vfsd.File):
    def attributes(self):
        return vfsd.Attributes(size=len(seen))

    def read(self, offset, size):
        return seen[offset:offset + size]

vfsd.serve(vfsd.Tree({"seen": Seen()}))
"#;

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
        (&[][..], "65534 65534 [] ['lo']\n".to_owned()),
        (
            &["--plugin-user=root", "--plugin-network"],
            format!("0 0 [] {others}\n"),
        ),
        (
            &["--plugin-user=7:8", "--sandbox=none"],
            "7 8 [] ['lo']\n".to_owned(),
        ),
    ] {
        let mounted = Mounted::new(&place, options, &source);
        let told = std::fs::read_to_string(mounted.path("seen")).unwrap();
        assert_eq!(told, seen, "{options:?}");
    }
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
