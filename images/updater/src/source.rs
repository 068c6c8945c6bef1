//! Where an image comes from: a file, or an https URL read with ranges so that a cut line costs little.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{StatusCode, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A server that does not begin to answer within this is not there.
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("`{0}` is neither an absolute path nor an https URL")]
    Unknown(String),
    #[error("{path} cannot be read")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{url} cannot be fetched")]
    Fetch {
        url: String,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error(
        "{url} answers {status} to a request for a part of it: the server must know ranges (RFC 9110, 14)"
    )]
    NoRange { url: String, status: u16 },
    #[error("{path} holds no certificate")]
    NoCertificate { path: PathBuf },
}

impl SourceError {
    /// Whether trying again later may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Fetch { .. } => true,
            Self::NoRange { status, .. } => *status >= 500,
            Self::Unknown(_) | Self::File { .. } | Self::NoCertificate { .. } => false,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Source {
    File(PathBuf),
    Https { url: String, agent: ureq::Agent },
}

impl Source {
    /// `ca`: besides the system's authorities, none where it is given. The image's trust comes from its signature alone.
    pub(crate) fn new(text: &str, ca: Option<&Path>) -> Result<Self, SourceError> {
        if text.starts_with('/') {
            return Ok(Self::File(text.into()));
        }
        if !text.starts_with("https://") {
            return Err(SourceError::Unknown(text.to_owned()));
        }
        let roots = match ca {
            None => RootCerts::PlatformVerifier,
            Some(path) => {
                let pem =
                    std::fs::read(path).map_err(|source| SourceError::File { path: path.into(), source })?;
                let certificate = Certificate::from_pem(&pem)
                    .map_err(|_| SourceError::NoCertificate { path: path.into() })?;
                RootCerts::Specific(Arc::new(vec![certificate.to_owned()]))
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build();
        let agent = ureq::Agent::config_builder()
            .https_only(true)
            .max_redirects(3)
            .http_status_as_error(false)
            .timeout_connect(Some(ANSWER))
            .timeout_recv_response(Some(ANSWER))
            .user_agent(concat!("seimon/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build()
            .new_agent();
        Ok(Self::Https { url: text.to_owned(), agent })
    }

    /// Bytes from `offset` on, `length` at most.
    pub(crate) fn read_from(&self, offset: u64, length: u64) -> Result<Box<dyn Read>, SourceError> {
        match self {
            Self::File(path) => {
                let error = |source| SourceError::File { path: path.clone(), source };
                let mut file = File::open(path).map_err(error)?;
                file.seek(SeekFrom::Start(offset)).map_err(error)?;
                Ok(Box::new(file.take(length)))
            }
            Self::Https { url, agent } => {
                let last = offset.saturating_add(length).saturating_sub(1);
                let answer =
                    agent.get(url).header(header::RANGE, format!("bytes={offset}-{last}")).call().map_err(
                        |source| SourceError::Fetch { url: url.clone(), source: Box::new(source) },
                    )?;
                let status = answer.status();
                let begins = answer
                    .headers()
                    .get(header::CONTENT_RANGE)
                    .and_then(|range| range.to_str().ok())
                    .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
                if status != StatusCode::PARTIAL_CONTENT || begins != Some(offset) {
                    return Err(SourceError::NoRange { url: url.clone(), status: status.as_u16() });
                }
                Ok(Box::new(answer.into_body().into_reader().take(length)))
            }
        }
    }
}
