//! SeaweedFS, by http and, where `openssl` makes it a certificate, by https; with everything that is not S3 turned off, its reports home above all.

use std::io::Result;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{ACCESS_KEY, RunningStore, SECRET_KEY, StoreServer, flag, free_ports, loopback};

pub(super) fn start(program: &Path, limit: Duration) -> Result<RunningStore> {
    let folder = tempfile::tempdir()?;
    let identities = format!(
        r#"{{"identities":[{{"name":"t","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],
            "actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
    );
    let config = folder.path().join("s3.json");
    std::fs::write(&config, identities)?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    let [master, volume, filer, s3, admin, metrics, https] = free_ports()?;
    let mut command = Command::new(program);
    command
        .arg("mini")
        .args([
            flag("-dir", &data),
            flag("-s3.config", &config),
            flag("-ip", "127.0.0.1"),
            flag("-ip.bind", "127.0.0.1"),
            flag("-admin.ui", "false"),
            flag("-webdav", "false"),
            flag("-master.telemetry", "false"),
            // As many as there are of 128 MiB in the free room otherwise, and each bucket takes seven.
            flag("-volume.max", "4096"),
            flag("-s3.port.iceberg", "0"),
            flag("-s3.port.lance", "0"),
            // It would listen at one name in /tmp for each port otherwise.
            flag("-filer.localSocket", folder.path().join("filer.sock")),
            flag("-s3.localSocket", folder.path().join("s3.sock")),
        ])
        .args([
            flag("-master.port", master.to_string()),
            flag("-volume.port", volume.to_string()),
            flag("-filer.port", filer.to_string()),
            flag("-s3.port", s3.to_string()),
            flag("-admin.port", admin.to_string()),
            flag("-metricsPort", metrics.to_string()),
        ]);
    let authority = certify(folder.path());
    if authority.is_some() {
        command.args([
            flag("-s3.port.https", https.to_string()),
            flag("-s3.cert.file", folder.path().join("server.pem")),
            flag("-s3.key.file", folder.path().join("server.key")),
        ]);
    }
    // It answers before its volumes are there: only then the command says so.
    let mut store = RunningStore::start(
        StoreServer::SeaweedFs,
        &command,
        loopback(s3),
        folder,
        limit,
        |reply| reply.status == 403,
    )?;
    store.metrics = Some(loopback(metrics));
    store.secure = authority.map(|authority| (loopback(https), authority));
    Ok(store)
}

/// Makes an authority and a certificate by it for loopback. Where the authority's own one is; `None` without `openssl`.
fn certify(folder: &Path) -> Option<PathBuf> {
    const AUTHORITY: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=tests \
                             -keyout authority.key -out authority.pem -addext basicConstraints=critical,CA:TRUE";
    const REQUEST: &str = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1 \
                           -keyout server.key -out server.csr";
    const SIGN: &str = "x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 \
                        -extfile names -out server.pem";
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").ok()?;
    for arguments in [AUTHORITY, REQUEST, SIGN] {
        let mut openssl = Command::new("openssl");
        openssl
            .args(arguments.split_whitespace())
            .current_dir(folder);
        openssl.stdin(Stdio::null()).stdout(Stdio::null());
        let done = openssl.stderr(Stdio::null()).status().ok()?;
        done.success().then_some(())?;
    }
    Some(folder.join("authority.pem"))
}
