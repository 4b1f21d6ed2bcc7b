//! The doors between the rooms of ARCHITECTURE.md open one way: no backend
//! knows the FUSE wire format or a transport, no transport knows a backend.

#![expect(clippy::unwrap_used, reason = "what these helpers miss fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A room and the rooms its crate may depend on. Dependencies of tests are free.
const DOORS: &[(&str, &[&str])] = &[
    // On which thread work runs is nobody else's business.
    ("vfsd-exec", &[]),
    ("vfsd-backend", &["vfsd-exec"]),
    ("vfsd-fuse", &["vfsd-backend"]),
    ("vfsd-server", &["vfsd-fuse", "vfsd-backend"]),
    // The transports speak the vocabulary of the traits (sinks, sources, errno),
    // and know no backend.
    ("vfsd-virtio", &["vfsd-server", "vfsd-backend", "vfsd-exec"]),
    (
        "vfsd-hostmount",
        &["vfsd-server", "vfsd-backend", "vfsd-exec"],
    ),
    ("vfsd-testkit", &["vfsd-backend"]),
    // A decoder is a function of bytes.
    ("vfsd-zlib", &[]),
    ("vfsd-oci", &["vfsd-backend", "vfsd-zlib"]),
    // Out-of-process storages speak the wire format over a socket of their own.
    ("vfsd-plugin-protocol", &["vfsd-backend"]),
    // A volume is a file system of its own whose data go to a bucket: it stands on the store layer,
    // which is no backend to be called through the traits.
    ("vfsd-volume", &["vfsd-backend", "vfsd-object-store"]),
    (
        "vfsd-plugin-host",
        &["vfsd-plugin-protocol", "vfsd-fuse", "vfsd-backend"],
    ),
    // A plugin answers through the same dispatch as a storage that is compiled in.
    (
        "vfsd-plugin",
        &[
            "vfsd-plugin-protocol",
            "vfsd-server",
            "vfsd-fuse",
            "vfsd-backend",
            "vfsd-exec",
        ],
    ),
    // An example wires a backend of its own behind a mount, as the daemon does.
    (
        "vfsd-examples",
        &[
            "vfsd-backend",
            "vfsd-plugin",
            "vfsd-server",
            "vfsd-hostmount",
        ],
    ),
    // What hostile input is thrown at is everywhere.
    (
        "vfsd-fuzz",
        &[
            "vfsd-backend",
            "vfsd-fuse",
            "vfsd-server",
            "vfsd-virtio",
            "vfsd-memory",
            "vfsd-passthrough",
            "vfsd-oci",
            "vfsd-plugin-host",
            "vfsd-plugin-protocol",
            "vfsd-testkit",
        ],
    ),
    // The benchmark drives a daemon with the front end that the tests have.
    ("xtask", &["vfsd-testkit"]),
];

/// What every crate below `backends/` may depend on.
const OF_A_BACKEND: &[&str] = &["vfsd-backend"];

/// The crate that wires the others together.
const DAEMON: &str = "vfsd";

#[test]
fn no_door_between_rooms_opens_the_wrong_way() {
    let metadata = metadata();
    let wrong = wrong_doors(&metadata);
    assert!(
        wrong.is_empty(),
        "dependencies the wrong way:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_room_in_the_table_is_a_crate() {
    let rooms = rooms(&metadata());
    for (name, _) in DOORS {
        assert!(
            rooms.contains_key(*name),
            "{name} is no crate of the workspace"
        );
    }
}

#[test]
fn a_backend_that_knows_the_server_is_found() {
    let mut metadata = metadata();
    let packages = metadata["packages"].as_array_mut().unwrap();
    let backend = packages
        .iter_mut()
        .find(|package| package["name"] == "vfsd-memory")
        .unwrap();
    let server = serde_json::json!({ "name": "vfsd-server", "kind": null });
    backend["dependencies"].as_array_mut().unwrap().push(server);
    let wrong = wrong_doors(&metadata);
    let expected = "vfsd-memory -> vfsd-server".to_owned();
    assert!(wrong.contains(&expected), "{wrong:?}");
}

fn wrong_doors(metadata: &Value) -> Vec<String> {
    let rooms = rooms(metadata);
    let names: BTreeSet<&str> = rooms.keys().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(folder) = rooms.get(name) else {
            continue;
        };
        let allowed = match DOORS.iter().find(|(room, _)| *room == name) {
            _ if name == DAEMON => continue,
            Some((_, allowed)) => *allowed,
            None if folder.starts_with("backends") => OF_A_BACKEND,
            None => {
                wrong.push(format!(
                    "{name} is a room without a row in the table of doors"
                ));
                continue;
            }
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            let for_tests = dependency["kind"] == "dev";
            if names.contains(to) && !for_tests && !allowed.contains(&to) {
                wrong.push(format!("{name} -> {to}"));
            }
        }
    }
    wrong
}

/// The workspace's crates, each with its folder relative to the workspace.
fn rooms(metadata: &Value) -> BTreeMap<String, String> {
    let root = Path::new(metadata["workspace_root"].as_str().unwrap());
    let members = metadata["workspace_members"].as_array().unwrap();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| members.contains(&package["id"]))
        .map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap());
            let folder = manifest.parent().unwrap().strip_prefix(root).unwrap();
            let name = package["name"].as_str().unwrap().to_owned();
            (name, folder.to_string_lossy().into_owned())
        })
        .collect()
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}
