//! The TLS settings of the HTTPS listener.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::node::Identity;

/// TLS with the node's certificate; the key stays the same for life, so this is made once.
///
/// # Errors
/// What rustls finds wrong with the certificate: it then was not made by a node.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, rustls::Error> {
    let certificate = CertificateDer::from(identity.certificate_der().to_vec());
    let key = PrivatePkcs8KeyDer::from(identity.tls_key_der().to_vec());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key))?;
    // Without it the exporter of TLS 1.2 does not bind to one session (RFC 7627).
    config.require_ems = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
