//! Whom the command line trusts to be the node.
//!
//! With `--ca FILE`, or the file that `client.json` names: the node that shows a certificate of that file, and
//! one whose certificate is signed by one of them. The first is what a self-signed certificate needs, which
//! seldom names the address that the command line uses; whoever shows it has its key.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

use crate::output::Usage;

/// Sets up a client so that it trusts no other.
pub(crate) fn trusting(
    builder: reqwest::ClientBuilder,
    endpoint: &str,
    ca: Option<&Path>,
) -> anyhow::Result<reqwest::ClientBuilder> {
    let provider = Arc::new(ring::default_provider());
    let tls =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    if !endpoint.starts_with("https://") {
        // Never used, and costs nothing: to read whom the machine trusts takes longer than a cancel.
        let tls = tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        return Ok(builder.tls_backend_preconfigured(tls));
    }
    match ca {
        Some(file) => {
            let verifier = Arc::new(Listed::read(file, &provider)?);
            let tls = tls.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
            Ok(builder.tls_backend_preconfigured(tls))
        }
        None => {
            // The client asks the machine by itself, by the provider of the process. Err: there is one.
            drop(CryptoProvider::clone(&provider).install_default());
            Ok(builder)
        }
    }
}

/// The certificates of a file.
#[derive(Debug)]
struct Listed {
    certificates: Vec<CertificateDer<'static>>,
    signed: Arc<WebPkiServerVerifier>,
}

impl Listed {
    fn read(file: &Path, provider: &Arc<CryptoProvider>) -> anyhow::Result<Self> {
        let shown = file.display();
        let text =
            std::fs::read(file).map_err(|error| Usage(format!("--ca {shown} cannot be read: {error}")))?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|error| Usage(format!("--ca {shown} is not a PEM file of certificates: {error}")))?;
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        if usable == 0 {
            return Err(Usage(format!(
                "--ca {shown} holds no certificate: give a PEM file with the node's own, or with one that signed it"
            ))
            .into());
        }
        let signed =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build()?;
        Ok(Self { certificates, signed })
    }
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        signers: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        // That it has the key is proven by the signature of the handshake.
        if self.certificates.iter().any(|listed| listed == own) {
            return Ok(ServerCertVerified::assertion());
        }
        self.signed.verify_server_cert(own, signers, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signed.verify_tls12_signature(message, own, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signed.verify_tls13_signature(message, own, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}
