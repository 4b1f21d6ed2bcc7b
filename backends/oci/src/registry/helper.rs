//! Credential programs: `docker-credential-NAME`, which docker and podman share.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;

use super::RegistryError;
use super::credentials::Credentials;

/// How long a program is waited for: it may ask its user for a password.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The most that is read of what a program writes.
const OUTPUT_MAX: u64 = 64 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    username: String,
    secret: String,
}

/// Asks a program for the credentials of `server`.
///
/// # Errors
/// It isn't there, fails, or takes longer than `limit`. That it has none is no error.
pub(super) fn ask(
    name: &str,
    server: &str,
    limit: Duration,
) -> Result<Option<Credentials>, RegistryError> {
    let failed = |reason: String| RegistryError::Helper {
        name: name.escape_debug().to_string(),
        reason,
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err(failed("that is no name of a program".to_owned()));
    }
    let (success, output) = run(name, server, limit).map_err(failed)?;
    if !success {
        let text = String::from_utf8_lossy(&output);
        let text = text.trim();
        return match text.contains("credentials not found") {
            true => Ok(None),
            false => Err(failed(format!(
                "it failed, \"{}\"",
                text.chars().take(200).collect::<String>().escape_debug()
            ))),
        };
    }
    let Output { username, secret } = serde_json::from_slice(&output)
        .map_err(|_| failed("it wrote something else than credentials".to_owned()))?;
    Ok(match username.as_str() {
        "" if secret.is_empty() => None,
        "<token>" => Some(Credentials::Identity(secret)),
        _ => Some(Credentials::Basic {
            user: username,
            password: secret,
        }),
    })
}

/// Whether it succeeded, and what it wrote.
fn run(name: &str, server: &str, limit: Duration) -> Result<(bool, Vec<u8>), String> {
    let said = |error: std::io::Error| error.to_string();
    // A file, so that neither side ever waits for the other to read.
    let mut output: File = tempfile::tempfile().map_err(said)?;
    let mut input: File = tempfile::tempfile().map_err(said)?;
    input.write_all(server.as_bytes()).map_err(said)?;
    input.rewind().map_err(said)?;
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(input)
        .stdout(output.try_clone().map_err(said)?)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("it could not be started ({error}); is it in PATH?"))?;
    let ended = ends_within(child.id(), limit);
    if !matches!(ended, Ok(true)) {
        let _ = child.kill();
    }
    let status = child.wait().map_err(said)?;
    if !ended.map_err(|error| said(error.into()))? {
        return Err(format!("it took longer than {} s", limit.as_secs()));
    }
    output.rewind().map_err(said)?;
    let mut bytes = Vec::new();
    output
        .take(OUTPUT_MAX)
        .read_to_end(&mut bytes)
        .map_err(said)?;
    Ok((status.success(), bytes))
}

fn ends_within(id: u32, limit: Duration) -> rustix::io::Result<bool> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(rustix::io::Errno::SRCH)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = std::time::Instant::now().checked_add(limit);
    loop {
        let left = deadline.map(|it| it.saturating_duration_since(std::time::Instant::now()));
        let left =
            Timespec::try_from(left.unwrap_or(limit)).map_err(|_| rustix::io::Errno::INVAL)?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(|ready| ready > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_or_no_name_is_said_so() {
        let limit = Duration::from_secs(5);
        let error = ask("vfsd-none-such", "r.example", limit)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("docker-credential-vfsd-none-such"),
            "{error}"
        );
        assert!(error.contains("PATH"), "{error}");
        for bad in ["", "../x", "a b"] {
            let error = ask(bad, "r.example", limit).unwrap_err().to_string();
            assert!(error.contains("no name of a program"), "{error}");
        }
    }
}
