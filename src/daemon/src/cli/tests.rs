use super::*;
use crate::cli::choices::{FileHandles, LogLevel, Negotiation, SandboxMode, SeccompAction};
use crate::settings::{Endpoint, LocalLocks};

fn words(line: &str) -> Vec<OsString> {
    line.split(' ')
        .filter(|word| !word.is_empty())
        .map(OsString::from)
        .collect()
}

/// The settings that a line after `vfsd serve` comes to.
fn serve(line: &str) -> ServeSettings {
    match parse(words(&format!("vfsd serve {line}"))) {
        Ok(Task::Serve(settings)) => *settings,
        other => panic!("{line}: {other:?}"),
    }
}

/// The settings that virtiofsd's line comes to.
fn virtiofsd(line: &str) -> ServeSettings {
    match parse(words(&format!("/usr/libexec/virtiofsd {line}"))) {
        Ok(Task::Serve(settings)) => *settings,
        other => panic!("{line}: {other:?}"),
    }
}

/// The exit code and the text of a line that is refused.
fn refused(line: &str) -> (i32, String) {
    match parse(words(line)) {
        Err(Failure::CommandLine(error)) => (error.exit_code(), error.to_string()),
        Err(Failure::Usage(text)) => (2, text),
        Err(Failure::Run(text)) => (1, text),
        Ok(task) => panic!("{line} is accepted: {task:?}"),
    }
}

#[test]
fn the_command_line_is_consistent() {
    <Arguments as clap::CommandFactory>::command().debug_assert();
    <virtiofsd::VirtiofsdArguments as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn serve_has_the_defaults_that_a_newcomer_wants() {
    let settings = serve("--socket-path s /srv");
    assert!(settings.features.xattr);
    assert_eq!(settings.features.posix_acl, Negotiation::Auto);
    assert_eq!(settings.device.queues, 16);
    assert_eq!(settings.device.poll_limit.as_micros(), 50);
    assert_eq!(settings.confinement.sandbox, SandboxMode::Namespace);
    assert_eq!(settings.confinement.seccomp, SeccompAction::Kill);
    assert_eq!(settings.features.local_locks, LocalLocks::default());
    assert!(settings.features.device_nodes);
    assert!(settings.session.kill_privileges);
    assert!(!settings.device.reconnect);
}

#[test]
fn set_id_bits_can_be_left_to_the_guest() {
    let settings = serve("--socket-path s --no-killpriv-v2 /srv");
    assert!(!settings.features.kill_privileges);
    assert!(!settings.session.kill_privileges);
}

#[test]
fn virtiofsd_has_its_own_defaults() {
    let settings = virtiofsd("--shared-dir /srv --socket-path s");
    assert!(!settings.features.xattr);
    assert_eq!(settings.features.posix_acl, Negotiation::Never);
    assert_eq!(settings.features.security_label, Negotiation::Never);
    assert_eq!(settings.features.file_handles, FileHandles::Prefer);
    assert_eq!(settings.confinement.sandbox, SandboxMode::Namespace);
    assert_eq!(settings.confinement.seccomp, SeccompAction::Kill);
    assert!(settings.features.announce_submounts);
    assert!(settings.session.readdirplus);
    assert!(!settings.features.kill_privileges);
    assert!(matches!(
        settings.device.endpoint,
        Endpoint::Path { pid_file: true, .. }
    ));
}

#[test]
fn what_contradicts_itself_is_a_usage_error() {
    for (line, named) in [
        ("--sandbox none --sandbox namespace", "--sandbox"),
        ("--seccomp none --seccomp kill", "--seccomp"),
        ("--readonly --readonly", "--readonly"),
        ("--xattr --no-xattr", "--no-xattr"),
        ("--no-xattr --posix-acl", "--posix-acl"),
        ("--no-xattr --xattr-map :ok:all:::", "--xattr-map"),
        (
            "--posix-acl=auto --translate-uid map:0:1000:1",
            "--translate-uid",
        ),
        (
            "--announce-submounts --no-announce-submounts",
            "--no-announce-submounts",
        ),
        ("--killpriv-v2 --no-killpriv-v2", "--no-killpriv-v2"),
        ("--uid-map :0:1000:1: --sandbox none", "--uid-map"),
        ("--syslog --log-format json", "--log-format"),
    ] {
        let (code, text) = refused(&format!("vfsd serve --socket-path s {line} /srv"));
        assert_eq!(code, 2, "{line}: {text}");
        assert!(text.contains(named), "{line}: {text}");
    }
}

#[test]
fn values_out_of_range_are_usage_errors() {
    for line in [
        "--queues 0",
        "--queues 256",
        "--poll-us 10001",
        "--poll-us -1",
        "--tag= ",
        "--tag 1234567890123456789012345678901234567",
        "--attr-ttl -1",
        "--cache none",
        "--sandbox jail",
        "--seccomp on",
        "--inode-file-handles prefer",
        "--modcaps chown",
        "--uid-map 0:0:1",
        "--log-level loud",
        "--no-such-option",
    ] {
        let (code, text) = refused(&format!("vfsd serve --socket-path s {line} /srv"));
        assert_eq!(code, 2, "{line}: {text}");
    }
}

#[test]
fn a_socket_comes_from_a_path_or_a_descriptor_and_not_from_both() {
    assert!(matches!(
        serve("--fd 3 /srv").device.endpoint,
        Endpoint::Inherited(3)
    ));
    for line in [
        "vfsd serve /srv",
        "vfsd serve --fd 3 --socket-path s /srv",
        "vfsd serve --fd 3 --socket-group root /srv",
        "vfsd serve --fd -1 /srv",
        "vfsd virtiofsd --shared-dir /srv",
        "vfsd virtiofsd --shared-dir /srv --fd 3 --socket s",
        "vfsd virtiofsd --shared-dir /srv --fd 3 --socket-group root",
    ] {
        assert_eq!(refused(line).0, 2, "{line}");
    }
}

#[test]
fn what_this_version_does_not_have_is_refused_by_name() {
    for (line, named) in [
        ("vfsd image pull docker://alpine", "vfsd image"),
        ("vfsd volume create volume:s3://b/p", "vfsd volume"),
        ("vfsd serve --socket-path s oci:layout", "oci:"),
        ("vfsd serve --socket-path s plugin:exec:p", "plugin:"),
        ("vfsd mount docker://alpine /mnt", "docker://"),
        ("vfsd serve --socket-path s --upper u /srv", "--upper"),
        ("vfsd serve --socket-path s --work w /srv", "--work"),
        (
            "vfsd serve --socket-path s --cache-dir c /srv",
            "--cache-dir",
        ),
        (
            "vfsd serve --socket-path s --cache-size 1 /srv",
            "--cache-size",
        ),
        (
            "vfsd serve --socket-path s --state-dir d /srv",
            "--state-dir",
        ),
        (
            "vfsd serve --socket-path s --store-option a=b /srv",
            "--store-option",
        ),
        (
            "vfsd mount --registry-insecure h /srv /mnt",
            "--registry-insecure",
        ),
        (
            "virtiofsd --shared-dir d --fd 3 --migration-mode find-paths",
            "--migration-mode",
        ),
        (
            "virtiofsd --shared-dir d --fd 3 --migration-on-error abort",
            "--migration-on-error",
        ),
        (
            "virtiofsd --shared-dir d --fd 3 --migration-verify-handles",
            "--migration-verify",
        ),
        (
            "virtiofsd --shared-dir d --fd 3 --migration-confirm-paths",
            "--migration-confirm",
        ),
    ] {
        let (code, text) = refused(line);
        assert_eq!(code, 2, "{line}: {text}");
        assert!(text.contains(named), "{line}: {text}");
        assert!(text.contains("not in this version"), "{line}: {text}");
    }
}

#[test]
fn the_last_of_repeated_options_counts_for_virtiofsd() {
    let settings = virtiofsd(
        "--shared-dir /a --shared-dir /srv --fd 3 --sandbox none --sandbox CHROOT \
         --cache never --cache ALWAYS --no-announce-submounts --announce-submounts \
         --killpriv-v2 --no-killpriv-v2 --log-level debug --log-level error",
    );
    assert_eq!(settings.confinement.sandbox, SandboxMode::Chroot);
    assert_eq!(settings.session.cache.mode, vfsd_server::CacheMode::Always);
    assert!(settings.features.announce_submounts);
    assert!(!settings.features.kill_privileges);
    assert_eq!(settings.log.level, LogLevel::Error);
    assert_eq!(settings.exports[0].source, Source::Path("/srv".into()));
}

#[test]
fn flags_with_an_optional_value_take_it_after_an_equals_sign_only() {
    let with = |option: &str| virtiofsd(&format!("--shared-dir d --fd 3 {option}")).features;
    assert_eq!(with("--posix-acl").posix_acl, Negotiation::Always);
    assert_eq!(with("--posix-acl=auto").posix_acl, Negotiation::Auto);
    assert_eq!(
        with("--security-label=never").security_label,
        Negotiation::Never
    );
    assert_eq!(with("--security-label").security_label, Negotiation::Always);
    assert_eq!(
        with("--inode-file-handles=fallback").file_handles,
        FileHandles::Prefer
    );
    assert_eq!(
        refused("virtiofsd --shared-dir d --fd 3 --posix-acl auto").0,
        2
    );
    assert_eq!(
        refused("virtiofsd --shared-dir d --fd 3 --inode-file-handles never").0,
        2
    );
}

#[test]
fn what_needs_extended_attributes_brings_them() {
    for option in [
        "--xattr",
        "--posix-acl=auto",
        "--security-label",
        "--xattrmap :ok:all:::",
    ] {
        let settings = virtiofsd(&format!("--shared-dir d --fd 3 {option}"));
        assert!(settings.features.xattr, "{option}");
    }
}

#[test]
fn translation_of_ids_excludes_acls() {
    let line = "virtiofsd --shared-dir d --fd 3 --translate-uid map:0:1000:1 --posix-acl=auto";
    assert_eq!(refused(line).0, 1);
    let settings = serve("--socket-path s --translate-gid map:0:1000:1 /srv");
    assert_eq!(settings.features.posix_acl, Negotiation::Never);
}

#[test]
fn a_list_of_the_c_virtiofsd_says_what_its_options_say() {
    let settings = virtiofsd(
        "--fd=3 -o source=/srv/a,,b=c,cache=none,sandbox=chroot,xattr,posix_acl,no_flock \
         -o loglevel=err,writeback,no_readdirplus,killpriv_v2,allow_direct_io,modcaps=+sys_admin",
    );
    assert_eq!(
        settings.exports[0].source,
        Source::Path("/srv/a,b=c".into())
    );
    assert_eq!(settings.session.cache.mode, vfsd_server::CacheMode::Never);
    assert_eq!(settings.confinement.sandbox, SandboxMode::Chroot);
    assert!(settings.features.xattr);
    assert_eq!(settings.features.posix_acl, Negotiation::Always);
    assert_eq!(
        settings.features.local_locks,
        LocalLocks {
            flock: true,
            posix: false
        }
    );
    assert_eq!(settings.log.level, LogLevel::Error);
    assert!(settings.session.writeback);
    assert!(!settings.session.readdirplus);
    assert!(settings.session.kill_privileges);
    assert!(settings.direct_io);
    assert!(settings.confinement.modcaps.is_some());
}

#[test]
fn locks_are_shared_unless_a_list_says_otherwise() {
    let locks = |list: &str| {
        virtiofsd(&format!("--fd 3 -o source=/srv,{list}"))
            .features
            .local_locks
    };
    assert_eq!(locks("flock,posix_lock"), LocalLocks::default());
    assert_eq!(
        locks("no_flock,no_posix_lock"),
        LocalLocks {
            flock: true,
            posix: true
        }
    );
    assert_eq!(locks("no_flock,flock"), LocalLocks::default());
}

#[test]
fn a_list_with_what_virtiofsd_does_not_know_is_a_usage_error() {
    for list in [
        "cache=never",
        "cache=never,xattr",
        "sandbox=none",
        "loglevel=trace",
        "colour=red",
        "unknown",
        "announce_submounts=1",
        "",
        "modcaps=chown",
    ] {
        let line = format!("virtiofsd --fd 3 -o source=/srv -o {list}");
        let mut words = words(&line);
        if list.is_empty() {
            words.push(OsString::new());
        }
        assert!(matches!(parse(words), Err(Failure::Usage(_))), "{list}");
    }
}

#[test]
fn deprecated_options_still_work_and_are_noticed() {
    let settings = virtiofsd("-o source=/srv --socket s -d -f");
    assert_eq!(settings.log.level, LogLevel::Debug);
    let notices = settings.log.notices.join("; ");
    for option in ["-o ", "-d ", "-f ", "--socket "] {
        assert!(notices.contains(option), "{option}: {notices}");
    }
}

#[test]
fn virtiofsd_without_a_directory_fails_as_it_does() {
    assert_eq!(refused("virtiofsd --fd 3").0, 2);
    assert_eq!(refused("virtiofsd --fd 3 -o xattr").0, 1);
    assert_eq!(refused("virtiofsd").0, 2);
}

#[test]
fn capabilities_are_printed_in_virtiofsds_form() {
    for line in [
        "virtiofsd --print-capabilities",
        "vfsd virtiofsd --print-capabilities",
    ] {
        let Ok(Task::Print(text)) = parse(words(line)) else {
            panic!("{line}")
        };
        assert_eq!(
            text,
            "{\n  \"type\": \"fs\",\n  \"features\": [\n    \"posix-acl-negotiation-mode\",\n    \
             \"security-label-negotiation-mode\",\n    \"separate-options\"\n  ]\n}\n"
        );
    }
}

#[test]
fn the_version_line_is_virtiofsds() {
    for line in ["virtiofsd --version", "vfsd virtiofsd -V"] {
        let (code, text) = refused(line);
        assert_eq!(code, 0);
        assert!(
            text.lines().next().unwrap().ends_with("virtiofsd 1.14.0"),
            "{text}"
        );
    }
}

#[test]
fn managers_call_virtiofsd_like_this() {
    for line in [
        // libvirt
        "--fd=18 -o source=/srv,cache=always,sandbox=chroot,xattr,flock,no_posix_lock \
         --thread-pool-size=8 -d",
        // Kata
        "--syslog --cache=auto --shared-dir=/srv --fd=3 --inode-file-handles=mandatory -o \
         announce_submounts",
        // LXD
        "--fd=3 --shared-dir /srv --thread-pool-size 4 --allow-direct-io --posix-acl=auto",
    ] {
        let settings = virtiofsd(line);
        assert_eq!(
            settings.exports[0].source,
            Source::Path("/srv".into()),
            "{line}"
        );
    }
}

#[test]
fn mount_takes_what_serve_takes_but_for_the_device() {
    let line = "vfsd mount --readonly --cache always --sandbox chroot --no-allow-other /srv /mnt";
    let Ok(Task::Mount(settings)) = parse(words(line)) else {
        panic!()
    };
    assert!(settings.export.readonly);
    assert_eq!(settings.allow_other, Some(false));
    assert_eq!(settings.confinement.sandbox, SandboxMode::Chroot);
    assert_eq!(
        settings.session.transport,
        vfsd_server::Transport::HostKernel
    );
    for option in [
        "--socket-path s",
        "--fd 3",
        "--tag t",
        "--queues 1",
        "--reconnect",
    ] {
        assert_eq!(
            refused(&format!("vfsd mount {option} /srv /mnt")).0,
            2,
            "{option}"
        );
    }
    assert_eq!(
        refused("vfsd mount --allow-other --no-allow-other /srv /mnt").0,
        2
    );
    assert_eq!(refused("vfsd mount /srv").0, 2);
}

#[test]
fn no_word_at_all_is_a_usage_error_with_the_help() {
    let (code, text) = refused("vfsd");
    assert_eq!(code, 2);
    assert!(text.contains("Usage:"), "{text}");
}
