//! The certificates of a listener, read again when they change.
//!
//! Whether they changed is looked at when somebody shakes hands, once a second at most: nobody else needs
//! them. That works on every file system and for files that are exchanged by links, where a watch has to
//! follow each folder on the way, and needs nothing that runs beside. What is open goes on with what it has.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    CertificateError, Error as TlsError, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{sync::Mutex, time::Instant};

/// The name of HTTP/2 in a handshake.
pub(super) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// Files are looked at no more often.
const LOOK: Duration = Duration::from_secs(1);
/// A chain of certificates is a few KB; what is larger is another file.
const MAX_FILE: u64 = 1 << 20;
/// Of a certificate that ends within this, the log says so: time to have another one made.
const SOON: Duration = Duration::from_secs(14 * 24 * 3_600);

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFault {
    /// A file cannot be read.
    #[error("{} cannot be read ({cause}): give a PEM file that the node may read", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The first file is something else.
    #[error(
        "{} holds no certificate: give the certificate of the node and those that signed it, PEM, the node's \
         own first", .0.display()
    )]
    NoCertificate(PathBuf),
    /// The second file is something else.
    #[error(
        "{} holds no private key: give the key of the certificate as PEM (PKCS#8, PKCS#1 or SEC1), not \
         encrypted", .0.display()
    )]
    NoKey(PathBuf),
    /// The key is not of the certificate.
    #[error(
        "the key in {} does not belong to the first certificate in {}: give the key that the certificate was \
         made for, and put the node's own certificate first", .key.display(), .chain.display()
    )]
    Strangers {
        /// The certificates.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// They are what they should be, and cannot be used.
    #[error("the certificate in {} or its key cannot be used ({cause}): have another pair made", .path.display())]
    Unusable {
        /// The certificates.
        path: PathBuf,
        /// Why.
        cause: TlsError,
    },
}

/// A chain of certificates and its key, as files.
#[derive(Clone, Debug)]
struct Files {
    chain: PathBuf,
    key: PathBuf,
}

/// What tells one content of the two files from another.
type Stamp = [Option<(u64, u64, i64, i64, u64)>; 2];

/// What was last seen of the files.
#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    next_look: Instant,
}

/// The certificates that a listener shows.
#[derive(Debug)]
pub struct Certificates {
    files: Files,
    provider: Arc<CryptoProvider>,
    /// A new one is a new configuration as a whole: sessions of the old one are not taken up again.
    config: RwLock<Arc<ServerConfig>>,
    seen: Arc<Mutex<Seen>>,
}

impl Certificates {
    /// Reads a PEM file of certificates, the node's own first, and one with its key. Reads files: at the start.
    ///
    /// # Errors
    /// When they are not usable, with what to do.
    pub fn open(chain: &Path, key: &Path) -> Result<Self, CertificateFault> {
        let files = Files { chain: chain.to_owned(), key: key.to_owned() };
        let provider = Arc::new(ring::default_provider());
        let stamp = files.stamp();
        let config = RwLock::new(Arc::new(files.read(&provider)?));
        let seen = Arc::new(Mutex::new(Seen { stamp, next_look: Instant::now() + LOOK }));
        Ok(Self { files, provider, config, seen })
    }

    /// Whether a file alone can be the certificates, whatever its key is: so that all that is wrong is told at once.
    ///
    /// # Errors
    /// When it cannot, with what to do.
    pub fn look_at_chain(path: &Path) -> Result<(), CertificateFault> {
        chain_of(path).map(drop)
    }

    /// The same of the key.
    ///
    /// # Errors
    /// When it cannot be one, with what to do.
    pub fn look_at_key(path: &Path) -> Result<(), CertificateFault> {
        key_of(path).map(drop)
    }

    /// Reads the files again, changed or not. What cannot be used is logged, and the old pair goes on.
    pub async fn reload(self: &Arc<Self>) {
        let mut seen = Arc::clone(&self.seen).lock_owned().await;
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            seen.stamp = this.files.stamp();
            this.read();
        });
        if let Err(error) = read.await {
            tracing::error!(%error, "certificates could not be looked at");
        }
    }

    /// What to shake hands with now.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<ServerConfig> {
        // One looks; whoever comes meanwhile does not wait for what may be a slow disk.
        if let Ok(mut seen) = Arc::clone(&self.seen).try_lock_owned()
            && Instant::now() >= seen.next_look
        {
            let this = Arc::clone(self);
            let look = tokio::task::spawn_blocking(move || {
                let stamp = this.files.stamp();
                if stamp != seen.stamp {
                    seen.stamp = stamp;
                    this.read();
                }
                seen.next_look = Instant::now() + LOOK;
            });
            if let Err(error) = look.await {
                tracing::error!(%error, "certificates could not be looked at");
            }
        }
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn read(&self) {
        match self.files.read(&self.provider) {
            Ok(config) => {
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                tracing::info!(certificate = %self.files.chain.display(), "certificates were read again");
            }
            Err(error) => {
                tracing::error!(%error, "certificates stay what they were until the files change again");
            }
        }
    }
}

impl Files {
    fn stamp(&self) -> Stamp {
        [&self.chain, &self.key].map(|path| {
            let seen = fs::metadata(path).ok()?;
            Some((seen.dev(), seen.ino(), seen.mtime(), seen.mtime_nsec(), seen.len()))
        })
    }

    fn read(&self, provider: &Arc<CryptoProvider>) -> Result<ServerConfig, CertificateFault> {
        let (chain, key) = (chain_of(&self.chain)?, key_of(&self.key)?);
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|cause| match cause {
            TlsError::InconsistentKeys(_) => {
                CertificateFault::Strangers { chain: self.chain.clone(), key: self.key.clone() }
            }
            cause => CertificateFault::Unusable { path: self.chain.clone(), cause },
        })?;
        self.warn_of_dates(&certified.cert, provider);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .map_err(|cause| CertificateFault::Unusable { path: self.chain.clone(), cause })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        Ok(config)
    }

    fn warn_of_dates(&self, chain: &[CertificateDer<'static>], provider: &Arc<CryptoProvider>) {
        let certificate = self.chain.display();
        match dates(chain, provider, UnixTime::now()) {
            Dates::Over => {
                tracing::warn!(%certificate, "the certificate has expired: clients will refuse it; replace it");
            }
            Dates::NotYet => {
                tracing::warn!(%certificate, "the certificate is not valid yet: is the clock right?");
            }
            Dates::Good => {
                let soon = UnixTime::since_unix_epoch(Duration::from_secs(
                    UnixTime::now().as_secs().saturating_add(SOON.as_secs()),
                ));
                if dates(chain, provider, soon) == Dates::Over {
                    tracing::warn!(%certificate, "the certificate expires within 14 days; replace it");
                }
            }
        }
    }
}

fn chain_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateFault> {
    CertificateDer::pem_slice_iter(&content(path)?)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| CertificateFault::NoCertificate(path.to_owned()))
}

fn key_of(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateFault> {
    PrivateKeyDer::from_pem_slice(&content(path)?).map_err(|_| CertificateFault::NoKey(path.to_owned()))
}

fn content(path: &Path) -> Result<Vec<u8>, CertificateFault> {
    let fault = |cause| CertificateFault::Unreadable { path: path.to_owned(), cause };
    // Looked at before it is opened: to open a pipe would wait for whoever writes it.
    let metadata = fs::metadata(path).map_err(fault)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(fault(io::Error::other("it is no file of at most 1 MiB")));
    }
    fs::read(path).map_err(fault)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dates {
    Good,
    Over,
    NotYet,
}

/// Asks the very check that clients make, of which the dates come first. Whom they trust is not asked here,
/// so everything else that it finds wrong is left to them.
fn dates(chain: &[CertificateDer<'static>], provider: &Arc<CryptoProvider>, at: UnixTime) -> Dates {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain.iter().cloned());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    let (Ok(verifier), Ok(name), [own, signers @ ..]) = (verifier, ServerName::try_from("localhost"), chain)
    else {
        return Dates::Good;
    };
    match verifier.verify_server_cert(own, signers, &name, &[], at) {
        Err(TlsError::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => Dates::Over,
        Err(TlsError::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => Dates::NotYet,
        _ => Dates::Good,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    fn pair(change: impl Fn(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn open(chain: &[u8], key: &[u8]) -> Result<Certificates, String> {
        let dir = tempfile::tempdir().unwrap();
        let (chain_file, key_file) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        fs::write(&chain_file, chain).unwrap();
        fs::write(&key_file, key).unwrap();
        Certificates::open(&chain_file, &key_file).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_fault_names_the_file_and_says_what_to_do() {
        let (chain, key) = pair(|_| {});
        let (_, other) = pair(|_| {});
        let (chain, key, other) = (chain.as_bytes(), key.as_bytes(), other.as_bytes());
        assert!(open(chain, key).is_ok());
        let cut = &chain[..chain.len() / 2];
        for (chain, key, words) in [
            (b"".as_slice(), key, "chain.pem holds no certificate"),
            (cut, key, "chain.pem holds no certificate"),
            (b"\0\xff\xfe", key, "chain.pem holds no certificate"),
            (key, key, "chain.pem holds no certificate"),
            (chain, b"", "key.pem holds no private key"),
            (chain, chain, "key.pem holds no private key"),
            (chain, other, "does not belong to"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key, "cannot be used"),
            (&vec![b'x'; 2 << 20], key, "1 MiB"),
        ] {
            let said = open(chain, key).map(|_| ()).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        let nowhere = Certificates::open(Path::new("/nonexistent"), Path::new("/nonexistent")).map(|_| ());
        assert!(nowhere.unwrap_err().to_string().starts_with("/nonexistent cannot be read"));
    }

    #[test]
    fn what_is_over_or_not_yet_valid_is_seen_whoever_signed_it() {
        let provider = Arc::new(ring::default_provider());
        for ca in [IsCa::NoCa, IsCa::ExplicitNoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
            let (chain, _) = pair(|params| {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2030, 1, 1);
                params.is_ca = ca;
            });
            let chain = [CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
            for (seconds, expected) in
                [(1_500_000_000, Dates::NotYet), (1_700_000_000, Dates::Good), (1_900_000_000, Dates::Over)]
            {
                let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
                assert_eq!(dates(&chain, &provider, at), expected, "{ca:?} {seconds}");
            }
        }
    }
}
