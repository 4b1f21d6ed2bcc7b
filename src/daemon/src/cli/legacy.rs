//! The `-o` lists of the C virtiofsd, which libvirt still writes.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::choices::{Cache, LogLevel, Negotiation, SandboxMode};
use super::virtiofsd::VirtiofsdArguments;
use crate::exit::Failure;
use crate::sandbox::CapabilityChanges;

/// Puts what a list says over what was said before.
///
/// A list is split at each comma; a doubled one stands for itself, as libvirt writes it.
///
/// # Errors
/// When a part is unknown, or its value is.
pub(super) fn apply(arguments: &mut VirtiofsdArguments, list: &OsStr) -> Result<(), Failure> {
    for part in split(list.as_bytes()) {
        match part.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, value) = part.split_at(at);
                let value = OsString::from_vec(value.get(1..).unwrap_or_default().to_vec());
                set(arguments, &String::from_utf8_lossy(name), value)?;
            }
            None => switch(arguments, &String::from_utf8_lossy(&part))?,
        }
    }
    Ok(())
}

/// Splits at single commas; `,,` becomes `,`.
fn split(list: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = list.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&b',').is_none() {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(byte);
        }
    }
    parts
}

fn set(arguments: &mut VirtiofsdArguments, name: &str, value: OsString) -> Result<(), Failure> {
    if name == "source" {
        arguments.shared_dir = Some(value.into());
        return Ok(());
    }
    let value: Cow<'_, str> = value.to_string_lossy();
    let refused = || Failure::usage(format!("-o {name}={value} is not a value that {name} has"));
    match name {
        "cache" => {
            arguments.cache = match &*value {
                "auto" => Cache::Auto,
                "always" => Cache::Always,
                "none" => Cache::Never,
                "metadata" => Cache::Metadata,
                _ => return Err(refused()),
            }
        }
        "loglevel" => {
            arguments.log_level = match &*value {
                "debug" => LogLevel::Debug,
                "info" => LogLevel::Info,
                "warn" => LogLevel::Warn,
                "err" => LogLevel::Error,
                _ => return Err(refused()),
            }
        }
        "sandbox" => {
            arguments.sandbox = match &*value {
                "namespace" => SandboxMode::Namespace,
                "chroot" => SandboxMode::Chroot,
                _ => return Err(refused()),
            }
        }
        "xattrmap" => arguments.xattrmap = Some(value.into_owned()),
        "modcaps" => {
            let changes = CapabilityChanges::parse(&value)
                .map_err(|error| Failure::usage(format!("-o modcaps={value}: {error}")))?;
            arguments.modcaps = Some(changes);
        }
        _ => return Err(unknown(name)),
    }
    Ok(())
}

fn switch(arguments: &mut VirtiofsdArguments, name: &str) -> Result<(), Failure> {
    match name {
        "xattr" => arguments.xattr = true,
        "no_xattr" => arguments.xattr = false,
        "readdirplus" => arguments.no_readdirplus = false,
        "no_readdirplus" => arguments.no_readdirplus = true,
        "writeback" => arguments.writeback = true,
        "no_writeback" => arguments.writeback = false,
        "allow_direct_io" => arguments.allow_direct_io = true,
        "no_allow_direct_io" => arguments.allow_direct_io = false,
        "announce_submounts" => arguments.no_announce_submounts = false,
        "killpriv_v2" => arguments.killpriv_v2 = true,
        "no_killpriv_v2" => arguments.killpriv_v2 = false,
        "posix_acl" => arguments.posix_acl = Negotiation::Always,
        "no_posix_acl" => arguments.posix_acl = Negotiation::Never,
        "security_label" => arguments.security_label = Negotiation::Always,
        "no_security_label" => arguments.security_label = Negotiation::Never,
        "flock" => arguments.local_locks.flock = false,
        "no_flock" => arguments.local_locks.flock = true,
        "posix_lock" => arguments.local_locks.posix = false,
        "no_posix_lock" => arguments.local_locks.posix = true,
        _ => return Err(unknown(name)),
    }
    Ok(())
}

fn unknown(name: &str) -> Failure {
    Failure::usage(format!("-o {name} is not an option that virtiofsd has"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(list: &str) -> Vec<String> {
        split(list.as_bytes())
            .into_iter()
            .map(|part| String::from_utf8(part).unwrap())
            .collect()
    }

    #[test]
    fn a_list_is_split_at_single_commas() {
        assert_eq!(
            parts("source=/a,cache=auto,xattr"),
            ["source=/a", "cache=auto", "xattr"]
        );
    }

    #[test]
    fn a_doubled_comma_stands_for_itself() {
        assert_eq!(parts("source=/a,,b,xattr"), ["source=/a,b", "xattr"]);
        assert_eq!(parts("source=/a,,,xattr"), ["source=/a,", "xattr"]);
    }
}
