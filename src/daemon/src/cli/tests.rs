use vfsd_backend::Capabilities;
use vfsd_server::Offer;

use super::*;
use crate::cli::choices::{FileHandles, LogLevel, SandboxMode, SeccompAction};
use crate::settings::Endpoint;
use crate::source::{Dir, Source};

fn dir(path: &str) -> Source {
    Source::new(Dir(path.into()))
}

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
        Err(Failure::Stopped) => (0, String::new()),
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
    assert!(settings.storage.passthrough.xattr);
    assert_eq!(settings.session.posix_acl, Offer::Auto);
    assert_eq!(settings.device.queues, 16);
    assert_eq!(settings.device.poll_limit.as_micros(), 50);
    assert_eq!(settings.confinement.sandbox, SandboxMode::Namespace);
    assert_eq!(settings.confinement.seccomp, SeccompAction::Kill);
    assert_eq!(settings.storage.withheld, Capabilities::empty());
    assert!(settings.storage.passthrough.device_nodes);
    assert!(settings.session.kill_privileges);
    assert!(!settings.device.reconnect);
    assert_eq!(settings.storage.file_handles, FileHandles::Auto);
}

#[test]
fn file_handles_are_used_where_descriptors_are_few() {
    use vfsd_passthrough::FileHandles as Used;
    for (handles, few, many) in [
        (FileHandles::Auto, Used::Prefer, Used::Never),
        (FileHandles::Never, Used::Never, Used::Never),
        (FileHandles::Prefer, Used::Prefer, Used::Prefer),
        (FileHandles::Mandatory, Used::Mandatory, Used::Mandatory),
    ] {
        assert_eq!(
            (handles.decided(300_000), handles.decided(999_000)),
            (few, many),
            "{handles:?}"
        );
    }
}

#[test]
fn set_id_bits_can_be_left_to_the_guest() {
    let settings = serve("--socket-path s --no-killpriv-v2 /srv");
    assert!(!settings.storage.passthrough.kill_privileges);
    assert!(!settings.session.kill_privileges);
}

#[test]
fn virtiofsd_has_its_own_defaults() {
    let settings = virtiofsd("--shared-dir /srv --socket-path s");
    assert!(!settings.storage.passthrough.xattr);
    assert_eq!(settings.session.posix_acl, Offer::Never);
    assert_eq!(settings.session.security_label, Offer::Never);
    assert_eq!(settings.storage.file_handles, FileHandles::Prefer);
    assert_eq!(settings.confinement.sandbox, SandboxMode::Namespace);
    assert_eq!(settings.confinement.seccomp, SeccompAction::Kill);
    assert!(settings.storage.passthrough.announce_submounts);
    assert!(settings.session.readdirplus);
    assert!(!settings.storage.passthrough.kill_privileges);
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
        "--cache no",
        "--sandbox jail",
        "--seccomp on",
        "--inode-file-handles sometimes",
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
fn what_newcomers_type_is_understood_or_answered() {
    let settings = serve("--posix-acl always --cache none --socket-path s /srv");
    assert_eq!(settings.session.posix_acl, Offer::Always);
    assert_eq!(settings.session.cache.mode, vfsd_server::CacheMode::Never);
    for (line, answer) in [
        ("vfsd --socket-path s /srv", "vfsd serve"),
        ("vfsd umount /mnt", "SIGTERM"),
        (
            "vfsd serve --socket-path s --shared-dir /srv",
            "SOCKET /srv",
        ),
    ] {
        let (code, text) = refused(line);
        assert_eq!(code, 2, "{line}: {text}");
        assert!(text.contains(answer), "{line}: {text}");
    }
}

#[test]
fn the_cache_on_disk_is_one_for_all_storages() {
    let settings = serve("--socket-path s --cache-dir /c --cache-size 2G s3://b");
    for cache in [&settings.storage.cache, &settings.storage.image.cache] {
        assert_eq!(cache.dir.as_deref(), Some(Path::new("/c")));
        assert_eq!(cache.size, Some(2 << 30));
    }
    assert!(!serve("--socket-path s s3://b").storage.cache.is_given());
    let (code, text) = refused("vfsd serve --socket-path s --cache-size 2X s3://b");
    assert!(code == 2 && text.contains("500M"), "{text}");
}

#[test]
fn plugins_are_confined_unless_told_otherwise() {
    use crate::source::{PluginSettings, PluginUser};
    let told = |words: &str| {
        serve(&format!("--socket-path s {words} plugin:exec:x"))
            .storage
            .plugin
    };
    assert_eq!(told(""), PluginSettings::default());
    assert_eq!(
        told("--plugin-user 7:8 --plugin-network"),
        PluginSettings {
            user: Some(PluginUser { uid: 7, gid: 8 }),
            network: true,
            ..PluginSettings::default()
        }
    );
    let settings = told("--plugin-path /a --plugin-path /b --plugin-fds 70");
    assert_eq!(settings.paths, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(settings.open_files, Some(70));
}

#[test]
fn a_bucket_is_written_only_where_that_is_asked_for() {
    use vfsd_object_store::Overwrite;
    for (words, write) in [
        ("", None),
        ("--flat-write", Some(Overwrite::Refuse)),
        (
            "--flat-write --flat-overwrite refuse",
            Some(Overwrite::Refuse),
        ),
        (
            "--flat-write --flat-overwrite last-wins",
            Some(Overwrite::LastWins),
        ),
    ] {
        let settings = serve(&format!("--socket-path s {words} s3://b"));
        assert_eq!(settings.storage.store.write, write, "{words}");
    }
    for (words, named) in [
        ("--flat-overwrite last-wins", "--flat-write"),
        ("--flat-write --flat-overwrite never", "refuse"),
    ] {
        let (code, text) = refused(&format!("vfsd serve --socket-path s {words} s3://b"));
        assert_eq!(code, 2, "{words}: {text}");
        assert!(text.contains(named), "{words}: {text}");
    }
}

#[test]
fn an_image_without_a_name_is_refused_wherever_it_is_named() {
    for form in ["oci:", "docker-archive:", "docker://"] {
        for line in [
            format!("vfsd image inspect {form}"),
            format!("vfsd serve --socket-path s {form}"),
        ] {
            assert_eq!(refused(&line).0, 2, "{line}");
        }
    }
}

#[test]
fn a_writable_layer_goes_over_any_source() {
    let source = |line: &str| {
        serve(&format!("--socket-path s {line}")).exports[0]
            .source
            .to_string()
    };
    assert_eq!(source("/srv --upper /u"), "upper /u over dir:/srv");
    assert_eq!(
        source("memory: --upper /u --work /w --upper-xattr user"),
        "upper /u over memory:"
    );
    for (line, named) in [
        ("--work /w /srv", "--upper"),
        ("--shared /srv", "--upper"),
        ("--upper /u --readonly /srv", "--readonly"),
        ("--upper /u --upper-xattr root /srv", "--upper-xattr"),
    ] {
        let (code, text) = refused(&format!("vfsd serve --socket-path s {line}"));
        assert_eq!(code, 2, "{line}: {text}");
        assert!(text.contains(named), "{line}: {text}");
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
    assert!(settings.storage.passthrough.announce_submounts);
    assert!(!settings.storage.passthrough.kill_privileges);
    assert_eq!(settings.log.level, LogLevel::Error);
    assert_eq!(settings.exports[0].source, dir("/srv"));
}

#[test]
fn flags_with_an_optional_value_take_it_after_an_equals_sign_only() {
    let with = |option: &str| virtiofsd(&format!("--shared-dir d --fd 3 {option}"));
    let acl = |option| with(option).session.posix_acl;
    assert_eq!(acl("--posix-acl"), Offer::Always);
    assert_eq!(acl("--posix-acl=auto"), Offer::Auto);
    let label = |option| with(option).session.security_label;
    assert_eq!(label("--security-label=never"), Offer::Never);
    assert_eq!(label("--security-label"), Offer::Always);
    let handles = with("--inode-file-handles=fallback").storage.file_handles;
    assert_eq!(handles, FileHandles::Prefer);
    assert_eq!(
        refused("virtiofsd --shared-dir d --fd 3 --posix-acl auto").0,
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
        assert!(settings.storage.passthrough.xattr, "{option}");
    }
}

#[test]
fn translation_of_ids_excludes_acls() {
    let line = "virtiofsd --shared-dir d --fd 3 --translate-uid map:0:1000:1 --posix-acl=auto";
    assert_eq!(refused(line).0, 1);
    let settings = serve("--socket-path s --translate-gid map:0:1000:1 /srv");
    assert_eq!(settings.session.posix_acl, Offer::Never);
}

#[test]
fn a_list_of_the_c_virtiofsd_says_what_its_options_say() {
    let settings = virtiofsd(
        "--fd=3 -o source=/srv/a,,b=c,cache=none,sandbox=chroot,xattr,posix_acl,no_flock \
         -o loglevel=err,writeback,no_readdirplus,killpriv_v2,allow_direct_io,modcaps=+sys_admin",
    );
    assert_eq!(settings.exports[0].source, dir("/srv/a,b=c"));
    assert_eq!(settings.session.cache.mode, vfsd_server::CacheMode::Never);
    assert_eq!(settings.confinement.sandbox, SandboxMode::Chroot);
    assert!(settings.storage.passthrough.xattr);
    assert_eq!(settings.session.posix_acl, Offer::Always);
    assert_eq!(settings.storage.withheld, Capabilities::FLOCK);
    assert_eq!(settings.log.level, LogLevel::Error);
    assert!(settings.session.writeback);
    assert!(!settings.session.readdirplus);
    assert!(settings.session.kill_privileges);
    assert!(settings.storage.passthrough.allow_direct_io);
    assert!(settings.confinement.modcaps.is_some());
}

#[test]
fn locks_are_shared_unless_a_list_says_otherwise() {
    let withheld = |list: &str| {
        virtiofsd(&format!("--xattr --fd 3 -o source=/srv,{list}"))
            .storage
            .withheld
            - Capabilities::POSIX_ACL
    };
    assert_eq!(withheld("flock,posix_lock"), Capabilities::empty());
    assert_eq!(
        withheld("no_flock,no_posix_lock"),
        Capabilities::FLOCK | Capabilities::POSIX_LOCKS
    );
    assert_eq!(withheld("no_flock,flock"), Capabilities::empty());
}

#[test]
fn locks_can_be_kept_in_the_guest() {
    let both = Capabilities::FLOCK | Capabilities::POSIX_LOCKS;
    for (option, expected) in [
        ("", Capabilities::empty()),
        ("--local-locks", both),
        ("--local-locks=all", both),
        ("--local-locks flock", Capabilities::FLOCK),
        ("--local-locks=posix", Capabilities::POSIX_LOCKS),
    ] {
        let settings = serve(&format!("--socket-path s {option} /srv"));
        assert_eq!(settings.storage.withheld, expected, "{option}");
    }
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
        // Kata's runtime in Rust
        "--socket-path s --shared-dir /srv --cache auto --sandbox none --seccomp none \
         --inode-file-handles never --thread-pool-size=1 --announce-submounts",
        // Incus
        "--fd=3 --cache=metadata --shared-dir=/srv --translate-uid=map:0:1000000:65536 \
         --translate-uid=forbid-guest:0:0 --translate-uid=forbid-guest:65536:4294901759",
    ] {
        let settings = virtiofsd(line);
        assert_eq!(settings.exports[0].source, dir("/srv"), "{line}");
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
