//! Which authorities are trusted to name a service.
//!
//! They are read once, when a store is opened: clients are made when they are first needed, in a sandbox that has no
//! certificates.

use std::path::Path;

use object_store::{Certificate, ClientOptions};

use super::OpenError;

/// The same options with the authorities of a bundle (`AWS_CA_BUNDLE`), or with those of this host: of `SSL_CERT_FILE` and
/// `SSL_CERT_DIR`, else the system's.
///
/// # Errors
/// The bundle cannot be read, or has no certificate.
pub(super) fn trusting(
    options: ClientOptions,
    bundle: Option<&str>,
) -> Result<ClientOptions, OpenError> {
    let roots = match bundle {
        Some(bundle) => read(Path::new(bundle))?,
        None => of_this_host(),
    };
    let options = roots
        .into_iter()
        .fold(options, ClientOptions::with_root_certificate);
    Ok(options.with_no_system_certificates(true))
}

fn read(bundle: &Path) -> Result<Vec<Certificate>, OpenError> {
    let refused = |reason: String| {
        OpenError::Credentials(format!(
            "cannot use {}, which AWS_CA_BUNDLE names: {reason}",
            bundle.display()
        ))
    };
    let text = std::fs::read(bundle).map_err(|error| refused(error.to_string()))?;
    let roots = Certificate::from_pem_bundle(&text);
    let roots = roots.map_err(|error| refused(vfsd_backend::one_line(&error)))?;
    match roots.is_empty() {
        true => Err(refused("it has no certificate".to_owned())),
        false => Ok(roots),
    }
}

fn of_this_host() -> Vec<Certificate> {
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::warn!(%error, "certificates of this host cannot be read");
    }
    let certificates = found.certs.iter();
    certificates
        .filter_map(|certificate| Certificate::from_der(certificate).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::clients::Clients;

    /// Of nobody, for a hundred years from 2026 on.
    const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBkTCCATegAwIBAgIUMCc1YypA8KX7pbUi41wskkGmT8owCgYIKoZIzj0EAwIw\n\
        FTETMBEGA1UEAwwKdmZzZCB0ZXN0czAgFw0yNjExMjkxMzEzMTJaGA8yMTI2MTEw\n\
        NTEzMTMxMlowFTETMBEGA1UEAwwKdmZzZCB0ZXN0czBZMBMGByqGSM49AgEGCCqG\n\
        SM49AwEHA0IABNmXhaK3Mqz7DuyKIF5TmHzsGTBQUlSWolHAwT+sS/lYkvneOiB5\n\
        Q3HyL70yuHcbBn627qc0YdCgKRkj2PKXmg2jYzBhMB0GA1UdDgQWBBRZKj0IVm7U\n\
        PhhWEJeHyd58hIRvlDAfBgNVHSMEGDAWgBRZKj0IVm7UPhhWEJeHyd58hIRvlDAP\n\
        BgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwICBDAKBggqhkjOPQQDAgNIADBF\n\
        AiAUhUpai3alrAcRZ4T6qyNfIz1CCzP8mQun6vbIBADpywIhAL+BYAMyCFzFDHmE\n\
        wcXCooNN88lugL+Pe7ybVsmEdflu\n\
        -----END CERTIFICATE-----
";

    fn refused(bundle: &Path) -> String {
        let trusted = trusting(ClientOptions::new(), bundle.to_str());
        trusted.unwrap_err().to_string()
    }

    #[test]
    fn a_bundle_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle.pem");
        let missing = refused(&bundle);
        assert!(
            missing.contains("bundle.pem") && missing.contains("AWS_CA_BUNDLE"),
            "{missing}"
        );
        std::fs::write(&bundle, "nothing").unwrap();
        let empty = refused(&bundle);
        assert!(empty.ends_with("it has no certificate"), "{empty}");
        std::fs::write(&bundle, AUTHORITY).unwrap();
        trusting(ClientOptions::new(), bundle.to_str()).unwrap();
    }

    #[tokio::test]
    async fn a_client_is_made_where_no_certificates_can_be_read_any_more() {
        const NAME: &str =
            "store::roots::tests::a_client_is_made_where_no_certificates_can_be_read_any_more";
        // The environment is the process's: it is another one's.
        let Some(given) = std::env::var_os("VFSD_TEST_AUTHORITIES") else {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("authorities.pem");
            std::fs::write(&file, AUTHORITY).unwrap();
            let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
            inner.args(["--exact", NAME, "--nocapture"]);
            inner.env("SSL_CERT_FILE", &file).env_remove("SSL_CERT_DIR");
            let inner = inner.env("VFSD_TEST_AUTHORITIES", &file).output().unwrap();
            let output = String::from_utf8_lossy(&inner.stdout);
            assert!(
                inner.status.success() && output.contains("1 passed"),
                "{inner:?}"
            );
            return;
        };
        let options = trusting(ClientOptions::new(), None).unwrap();
        let clients = Clients::new(options, std::time::Duration::from_secs(1)).unwrap();
        // As in a sandbox.
        std::fs::remove_file(given).unwrap();
        for (nearby, large) in [(false, false), (true, false), (false, true), (true, true)] {
            let made = clients.client(nearby, large);
            assert!(made.is_ok(), "nearby {nearby}, large {large}: {made:?}");
        }
    }
}
