//! Whom a connection may reach: a node proves its id by its certificate, not by a name or an authority; another server its name.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};

use super::error::{Error, Stranger};
use super::roots::Roots;
use crate::id::{self, NodeId};

/// Which node a connection accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// This one and no other.
    Pinned(NodeId),
    /// Any that proves some id: the first contact, before the claim code proves the rest.
    FirstContact,
}

/// Checks a node's certificate: its binding of key and node id, and the id against what is trusted. Names
/// and dates of the certificate decide nothing: a box has a wrong clock and many names.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    seen: OnceLock<Seen>,
}

/// The node that was met first.
#[derive(Debug)]
struct Seen {
    node_id: NodeId,
    certificate_der: Vec<u8>,
}

impl Verifier {
    pub(super) fn new(trust: Trust) -> Arc<Verifier> {
        Arc::new(Verifier {
            trust,
            provider: Arc::new(ring::default_provider()),
            seen: OnceLock::new(),
        })
    }

    /// The node that was met first.
    pub(super) fn seen(&self) -> Option<NodeId> {
        self.seen.get().map(|seen| seen.node_id)
    }

    /// Its certificate.
    pub(super) fn certificate_der(&self) -> Option<&[u8]> {
        self.seen.get().map(|seen| seen.certificate_der.as_slice())
    }

    /// The TLS settings of a client that accepts what this verifier accepts.
    pub(super) fn client_config(self: &Arc<Verifier>) -> Result<ClientConfig, Error> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        Ok(config)
    }
}

/// The TLS settings of a client that accepts servers whose names these roots vouch for. CouchDBs of some years speak no TLS 1.3.
pub(super) fn rooted_config(roots: &Roots) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots.store())
        .with_no_client_auth();
    Ok(config)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = id::verify_binding(end_entity.as_ref())
            .ok()
            .map(|binding| binding.node_id);
        // A later connection of a first contact must reach the same node as the one before.
        let expected = match self.trust {
            Trust::Pinned(pinned) => Some(pinned),
            Trust::FirstContact => self.seen(),
        };
        match found {
            Some(found) if expected.is_none_or(|expected| expected == found) => {
                self.seen.get_or_init(|| Seen {
                    node_id: found,
                    certificate_der: end_entity.as_ref().to_vec(),
                });
                Ok(ServerCertVerified::assertion())
            }
            found => {
                let stranger = Stranger { expected, found };
                Err(CertificateError::Other(OtherError(Arc::new(stranger))).into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
