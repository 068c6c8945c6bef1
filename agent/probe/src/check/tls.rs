//! Whom to trust. Everything that needs a file is read before the probe confines itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Authorities given in jobs that are kept ready. A plan has a handful.
const MOST_KEPT: usize = 16;
/// In bytes of PEM text.
const LONGEST_PEM: usize = 512 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum TrustError {
    #[error("this machine has no certificate authorities to trust: install ca-certificates or set ca_file")]
    NoneOnThisMachine,
    #[error("the authorities given hold no usable certificate")]
    NoneGiven,
    #[error("the authorities given are longer than {LONGEST_PEM} bytes")]
    TooLong,
    #[error("TLS cannot be used: {0}")]
    Tls(rustls::Error),
    #[error("the name is not one that a certificate can be for")]
    Name,
}

/// Certificate authorities: the system's, and those that came with jobs.
#[derive(Debug)]
pub struct Trust {
    system: Option<Arc<ClientConfig>>,
    given: Mutex<BTreeMap<String, Arc<ClientConfig>>>,
}

impl Trust {
    /// Reads the system's authorities. Having none is an error only of the checks that rely on them.
    pub fn load() -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let system = if roots.is_empty() { None } else { config(roots).ok() };
        Self { system, given: Mutex::default() }
    }

    pub(super) fn connector(&self, ca_pem: Option<&str>) -> Result<TlsConnector, TrustError> {
        let config = match ca_pem {
            None => self.system.clone().ok_or(TrustError::NoneOnThisMachine)?,
            Some(pem) => self.of_given(pem)?,
        };
        Ok(config.into())
    }

    fn of_given(&self, pem: &str) -> Result<Arc<ClientConfig>, TrustError> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = given.get(pem) {
            return Ok(config.clone());
        }
        if pem.len() > LONGEST_PEM {
            return Err(TrustError::TooLong);
        }
        let mut roots = RootCertStore::empty();
        roots
            .add_parsable_certificates(CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok));
        if roots.is_empty() {
            return Err(TrustError::NoneGiven);
        }
        let config = config(roots).map_err(TrustError::Tls)?;
        if given.len() >= MOST_KEPT {
            given.clear();
        }
        given.insert(pem.to_owned(), config.clone());
        Ok(config)
    }
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would not check the certificate again.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, TrustError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TrustError::Name)
}
