//! Exit codes and messages of command lines that start nothing.

use crate::process::{Place, outcome, text, vfsd};

#[test]
fn usage_errors_end_with_2_and_name_what_is_wrong() {
    for (words, named) in [
        (vec![], "Usage:"),
        (vec!["serve"], "SOURCE"),
        (vec!["serve", "memory:"], "--socket-path"),
        (vec!["serve", "--socket-path", "s", "plugin:"], "plugin:"),
        (vec!["image", "inspect", "x"], "oci:"),
        (vec!["volume", "check", "--all"], "vfsd volume"),
        (vec!["volume", "gc", "volume:file:/x"], "in buckets"),
        (vec!["volume", "set", "volume:file:/x"], "--size"),
        (
            vec!["volume", "snapshot", "create", "volume:file:/x", "s"],
            "in buckets",
        ),
        (
            vec!["volume", "gc", "volume:s3://b/p", "--min-age", "0"],
            "--min-age",
        ),
        (
            vec!["volume", "create", "volume:file:/x", "--snapshot-days=7"],
            "has no snapshots",
        ),
        (
            vec!["volume", "set", "volume:s3://b/p", "--snapshot-days=0"],
            "--snapshot-days",
        ),
        (
            vec!["volume", "stat", "volume:s3://b/p?snapshot=s"],
            "without ?snapshot=",
        ),
        (vec!["virtiofsd", "--shared-dir", "d"], "--socket-path"),
        (
            vec![
                "serve",
                "--socket-path",
                "s",
                "--translate-uid",
                "x",
                "memory:",
            ],
            "--translate-uid",
        ),
        (
            vec!["serve", "--socket-path", "s", "--xattr-map", "x", "memory:"],
            "--xattr-map",
        ),
        (
            vec!["serve", "--socket-path", "s", "--flat-write", "memory:"],
            "--flat-write is for s3://, gs:// and az://",
        ),
        (
            vec![
                "serve",
                "--socket-path",
                "/tmp/none/../s",
                "--control",
                "/tmp/none/../s",
                "memory:",
            ],
            "--socket-path and --control are both /tmp/none/../s",
        ),
        (
            vec![
                "serve",
                "--socket-path",
                "/proc/self/s",
                "--control",
                "/proc/self/../self/s",
                "memory:",
            ],
            "--socket-path and --control are both",
        ),
        (
            vec![
                "mount",
                "--control",
                "/proc/self/fd/control",
                "memory:",
                "/proc/self",
            ],
            "is below the mount point",
        ),
        (
            vec!["mount", "--takeover", "memory:", "/mnt"],
            "--takeover are for volume:s3://",
        ),
        (
            vec!["mount", "--durability=local", "memory:", "/mnt"],
            "--takeover are for volume:s3://",
        ),
        (
            vec![
                "mount",
                "--readonly",
                "--takeover",
                "volume:s3://b/p",
                "/mnt",
            ],
            "that are written to",
        ),
        (
            vec![
                "mount",
                "--durability=local",
                "volume:s3://b/p?snapshot=s",
                "/mnt",
            ],
            "that are written to",
        ),
        (
            vec!["mount", "--store-option=region=x", "memory:", "/mnt"],
            "--store-option is for buckets",
        ),
        (
            vec!["mount", "--offline", "memory:", "/mnt"],
            "--offline, --no-background-fill and --index-from are for docker://",
        ),
        (
            vec!["mount", "--platform=linux/arm64", "memory:", "/mnt"],
            "for docker://, oci: and docker-archive:",
        ),
        (
            vec!["mount", "--index-from=referrers", "memory:", "/mnt"],
            "for docker://, oci: and docker-archive:",
        ),
        (
            vec!["mount", "--registry-insecure=host", "memory:", "/mnt"],
            "for docker://, oci: and docker-archive:",
        ),
        (
            vec!["mount", "--no-background-fill", "memory:", "/mnt"],
            "for docker://, oci: and docker-archive:",
        ),
        (
            vec!["mount", "--cache-size=1G", "memory:", "/mnt"],
            "--cache-dir and --cache-size are for images",
        ),
        (
            vec!["mount", "--store-option=x=y", "s3://bucket", "/mnt"],
            "no such key",
        ),
        (
            vec!["serve", "--socket-path", "s", "--plugin-network", "memory:"],
            "--plugin-network are for plugin:exec:",
        ),
        (
            vec![
                "serve",
                "--socket-path",
                "s",
                "--plugin-user=no-such-user",
                "plugin:exec:x",
            ],
            "UID:GID",
        ),
    ] {
        let (code, _, errors) = outcome(&mut vfsd(words.iter().copied()));
        assert_eq!(code, 2, "{words:?}: {errors}");
        assert!(errors.contains(named), "{words:?}: {errors}");
    }
}

#[test]
fn a_single_file_is_not_served_to_a_guest_which_could_not_mount_it() {
    let place = Place::new();
    let (socket, file) = (place.socket(), place.path("file"));
    std::fs::write(&file, "content").unwrap();
    for sandbox in ["--sandbox=namespace", "--sandbox=none"] {
        let words = [
            "serve",
            sandbox,
            "--socket-path",
            text(&socket),
            text(&file),
        ];
        let (code, _, errors) = outcome(&mut vfsd(words));
        assert_eq!(code, 2, "{sandbox}: {errors}");
        assert!(errors.contains("single file"), "{sandbox}: {errors}");
        assert!(errors.contains("vfsd mount"), "{sandbox}: {errors}");
        assert!(!socket.exists(), "{sandbox}");
    }
}

#[test]
fn what_cannot_be_done_ends_with_1_and_one_line_that_says_what_to_do() {
    let place = Place::new();
    let socket = place.socket();
    let lost = place.path("no/such/socket");
    let taken = place.path("file");
    std::fs::write(&taken, "").unwrap();
    let (socket, lost, taken) = (text(&socket), text(&lost), text(&taken));
    for (words, advice) in [
        (
            vec!["serve", "--socket-path", socket, "/no/such/dir"],
            "that exists",
        ),
        (
            vec!["serve", "--socket-path", socket, "/dev/null"],
            "directory",
        ),
        (
            vec!["serve", "--socket-path", socket, "nfs://host/share"],
            "no storage of the kind 'nfs:'; it knows PATH",
        ),
        (
            vec![
                "serve",
                "--socket-path",
                socket,
                "plugin:exec:/no/such/program",
            ],
            "name a program that exists",
        ),
        (
            vec!["image", "inspect", "oci:/no/such/layout"],
            "name the folder of an OCI layout",
        ),
        (
            vec!["serve", "--socket-path", lost, "memory:"],
            "create its directory first",
        ),
        (
            vec!["serve", "--socket-path", taken, "memory:"],
            "file is in the way",
        ),
        (
            vec!["serve", "--fd", "77", "memory:"],
            "pass a listening Unix stream socket",
        ),
        (
            vec!["serve", "--fd", "0", "memory:"],
            "pass a listening Unix stream socket",
        ),
        (
            vec!["serve", "--config", "/no/such.toml", "--fd", "0"],
            "configuration",
        ),
        (
            vec![
                "serve",
                "--socket-path",
                socket,
                "--socket-group",
                "no-such-group",
                "memory:",
            ],
            "no group",
        ),
        (
            vec![
                "serve",
                "--socket-path",
                socket,
                "--rlimit-nofile",
                "100",
                "memory:",
            ],
            "raise --rlimit-nofile",
        ),
        (
            vec![
                "serve",
                "--socket-path",
                socket,
                "--modcaps=-dac_read_search",
                "--inode-file-handles=prefer",
                "memory:",
            ],
            "--inode-file-handles=never",
        ),
        (
            vec![
                "serve",
                "--socket-path",
                socket,
                "--sandbox=chroot",
                "memory:",
            ],
            "--sandbox=namespace",
        ),
        (
            vec!["virtiofsd", "--fd", "3", "-o", "xattr"],
            "--shared-dir",
        ),
        (
            vec!["mount", "memory:", "/no/such/place"],
            "name a directory that exists",
        ),
    ] {
        let (code, _, errors) = outcome(&mut vfsd(words.iter().copied()));
        assert_eq!(code, 1, "{words:?}: {errors}");
        let last = errors.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("vfsd: ") && last.contains(advice),
            "{words:?}: {errors}"
        );
    }
}

#[test]
fn a_store_that_cannot_be_reached_is_told_with_what_to_check_whatever_is_in_it() {
    let place = Place::new();
    let socket = place.socket();
    for words in [
        vec!["volume", "stat", "volume:s3://bucket/prefix"],
        vec![
            "serve",
            "--socket-path",
            text(&socket),
            "s3://bucket/prefix",
        ],
    ] {
        let mut command = vfsd(words.iter().copied());
        command
            .args(["--store-option", "endpoint=http://127.0.0.1:1"])
            .args(["--store-option", "region=r"])
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret");
        let (code, _, errors) = outcome(&mut command);
        assert_eq!(code, 1, "{words:?}: {errors}");
        let last = errors.lines().last().unwrap_or_default();
        let told = "vfsd: cannot open s3://bucket: it cannot be reached; check the endpoint";
        assert!(last.starts_with(told), "{words:?}: {errors}");
    }
}

#[test]
fn a_configuration_that_cannot_be_is_a_usage_error_in_one_line() {
    let place = Place::new();
    let file = place.path("vfsd.toml");
    for (content, named) in [
        ("", "no export"),
        ("[[export]]\nname = 'a'\n", "source"),
        (
            "[[export]]\nname = 'a'\nsource = 'memory:'\nsandbox = 'none'\n",
            "sandbox",
        ),
        ("[[export]]\nname = 'a/b'\nsource = '/no/such'\n", "a/b"),
        (
            "[[export]]\nname = 'a'\nsource = '/no/such'\n[[export]]\nname = 'a'\nsource = 'memory:'",
            "two exports",
        ),
        (
            "[[export]]\nname = 'a'\nsource = 'memory:'\nreadonly = false\n",
            "--readonly",
        ),
    ] {
        std::fs::write(&file, content).unwrap();
        let socket = place.socket();
        let words = [
            "serve",
            "--config",
            text(&file),
            "--readonly",
            "--socket-path",
            text(&socket),
        ];
        let (code, _, errors) = outcome(&mut vfsd(words));
        assert_eq!(code, 2, "{content}: {errors}");
        let last = errors.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("vfsd: ") && last.contains(named),
            "{content}: {errors}"
        );
        assert!(!socket.exists(), "{content}");
    }
}

#[test]
fn help_and_capabilities_are_no_failure() {
    for (words, named) in [
        (vec!["--help"], "serve"),
        (vec!["serve", "--help"], "metrics"),
        (vec!["mount", "--help"], "--allow-other"),
        (vec!["virtiofsd", "--help"], "--shared-dir"),
        (
            vec!["virtiofsd", "--print-capabilities"],
            "separate-options",
        ),
        (vec!["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let (code, output, errors) = outcome(&mut vfsd(words.iter().copied()));
        assert_eq!((code, errors.as_str()), (0, ""), "{words:?}");
        assert!(output.contains(named), "{words:?}: {output}");
    }
}

#[test]
fn the_name_virtiofsd_gives_its_command_line() {
    let place = Place::new();
    let link = place.path("virtiofsd");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_vfsd"), &link).unwrap();
    let mut command = std::process::Command::new(&link);
    let (code, output, _) = outcome(command.arg("--print-capabilities"));
    assert_eq!(code, 0);
    let capabilities: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(capabilities["type"], "fs");
    assert!(
        !capabilities["features"]
            .as_array()
            .unwrap()
            .contains(&"migrate-precopy".into())
    );
    let (code, output, _) = outcome(std::process::Command::new(&link).arg("--version"));
    assert_eq!((code, output.lines().next()), (0, Some("virtiofsd 1.14.0")));
}
