//! The node's keys and its certificate: made once, kept for life.
//!
//! ```text
//! node.key   32 bytes, Ed25519 seed: who the node is
//! tls.key    PKCS #8 (DER) of the P-256 key that browsers and peers see
//! cert.pem   the certificate of that key; made again where it is missing or its names have changed
//! ```
//!
//! The keys are written twice when they are made, so that the previous generation is there from the start.

use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use ed25519_dalek::{Signer, SigningKey};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber, date_time_ymd,
};
use zeroize::Zeroizing;

use super::error::{Cause, Error, FolderError};
use crate::durable;
use crate::id::{
    BINDING_OID, Binding, Fingerprint, NodeId, binding_extension, binding_message, verify_binding,
};

/// Who a node is.
pub struct Identity {
    node_id: NodeId,
    fingerprint: Fingerprint,
    host_name: String,
    certificate_der: Vec<u8>,
    tls_key_der: Zeroizing<Vec<u8>>,
}

impl Identity {
    /// Opens the identity in `folder`. With `expected` the keys must be there and be that node's; without,
    /// the data folder is new and the keys that are missing are made.
    pub(super) fn open(folder: &Path, expected: Option<NodeId>) -> Result<Identity, Error> {
        let may_make = expected.is_none();
        let node_key = open_node_key(&folder.join("node.key"), may_make)?;
        let node_id = NodeId::from_bytes(node_key.verifying_key().to_bytes());
        if expected.is_some_and(|expected| expected != node_id) {
            return Err(damaged(folder.join("node.key")));
        }
        let tls_key = open_tls_key(&folder.join("tls.key"), may_make)?;
        let host_name = format!("refuge-{}.local", node_id.short());
        let certificate_der = open_certificate(&folder.join("cert.pem"), &node_key, &tls_key, &host_name)?;
        Ok(Identity {
            node_id,
            fingerprint: Fingerprint::of_key(&tls_key.subject_public_key_info()),
            host_name,
            certificate_der,
            tls_key_der: Zeroizing::new(tls_key.serialize_der()),
        })
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// What people compare with the console or the label: the fingerprint of the certificate's key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The node's name on the local network, `refuge-xxxxxx.local`.
    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    /// The certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// The certificate, PEM, for tools that pin one.
    pub fn certificate_pem(&self) -> String {
        to_pem(&self.certificate_der)
    }

    /// The certificate's private key, PKCS #8 (DER). For the TLS listener alone.
    pub fn tls_key_der(&self) -> Zeroizing<Vec<u8>> {
        self.tls_key_der.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node_id", &self.node_id)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

fn open_node_key(path: &Path, may_make: bool) -> Result<SigningKey, Error> {
    let payload = read_key(path)?;
    let seed = match payload {
        Some(payload) => {
            let seed: &[u8; 32] = payload
                .as_slice()
                .try_into()
                .map_err(|_| damaged(path.to_owned()))?;
            Zeroizing::new(*seed)
        }
        None if may_make => {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *seed)?;
            keep_key(path, &*seed)?;
            seed
        }
        None => return Err(damaged(path.to_owned())),
    };
    Ok(SigningKey::from_bytes(&seed))
}

fn open_tls_key(path: &Path, may_make: bool) -> Result<KeyPair, Error> {
    match read_key(path)? {
        Some(payload) => {
            KeyPair::from_pkcs8_der_and_sign_algo(&payload.as_slice().into(), &PKCS_ECDSA_P256_SHA256)
                .map_err(|_| damaged(path.to_owned()))
        }
        None if may_make => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(uncertified)?;
            keep_key(path, &Zeroizing::new(key.serialize_der()))?;
            Ok(key)
        }
        None => Err(damaged(path.to_owned())),
    }
}

/// The certificate on disk where it is ours and has today's names, else a new one under the same key.
fn open_certificate(
    path: &Path,
    node_key: &SigningKey,
    tls_key: &KeyPair,
    host_name: &str,
) -> Result<Vec<u8>, Error> {
    let spki = tls_key.subject_public_key_info();
    let ours = Binding {
        node_id: NodeId::from_bytes(node_key.verifying_key().to_bytes()),
        fingerprint: Fingerprint::of_key(&spki),
    };
    let kept = match durable::read(path) {
        Ok(state) => state.and_then(|state| from_pem(&state.payload)),
        // It holds no secret and nothing that the keys don't give again.
        Err(durable::Error::Damaged { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(der) = kept.filter(|der| verify_binding(der) == Ok(ours)) {
        return Ok(der);
    }
    let signature = node_key.sign(&binding_message(&spki)).to_bytes();
    let der = certify(&ours.node_id, &signature, tls_key, host_name)?;
    durable::replace(path, to_pem(&der).as_bytes())?;
    Ok(der)
}

fn certify(
    node_id: &NodeId,
    signature: &[u8; 64],
    tls_key: &KeyPair,
    host_name: &str,
) -> Result<Vec<u8>, Error> {
    let names = [host_name, "localhost", "127.0.0.1", "::1"];
    let mut params = CertificateParams::new(names.map(str::to_owned)).map_err(uncertified)?;
    // A box has no clock before it has a network, and a certificate for life has no renewal to miss.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    // Browsers refuse two certificates of one issuer with one number.
    let mut serial = [0; 16];
    getrandom::fill(&mut serial)?;
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, host_name.trim_end_matches(".local"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.custom_extensions = vec![CustomExtension::from_oid_content(
        &BINDING_OID,
        binding_extension(node_id, signature),
    )];
    let certificate = params.self_signed(tls_key).map_err(uncertified)?;
    Ok(certificate.der().to_vec())
}

fn read_key(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    match durable::read(path) {
        Ok(state) => Ok(state.map(|state| Zeroizing::new(state.payload))),
        Err(durable::Error::Damaged { path }) => Err(damaged(path)),
        Err(error) => Err(error.into()),
    }
}

fn keep_key(path: &Path, key: &[u8]) -> Result<(), Error> {
    durable::replace(path, key)?;
    durable::replace(path, key)?;
    Ok(())
}

fn damaged(path: PathBuf) -> Error {
    FolderError::Identity { path }.into()
}

fn uncertified(error: rcgen::Error) -> Error {
    Error::Internal(Cause::Certificate(error))
}

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
const PEM_END: &str = "-----END CERTIFICATE-----\n";

/// RFC 7468: 64 characters a line.
fn to_pem(der: &[u8]) -> String {
    let mut pem = PEM_BEGIN.to_owned();
    for line in der.chunks(48) {
        pem.push_str(&BASE64.encode(line));
        pem.push('\n');
    }
    pem.push_str(PEM_END);
    pem
}

fn from_pem(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let body = text.strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    BASE64.decode(body.replace('\n', "").as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_is_made_once_proves_itself_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let made = Identity::open(dir.path(), None).unwrap();
        let again = Identity::open(dir.path(), Some(made.node_id())).unwrap();
        assert_eq!(again.certificate_der(), made.certificate_der());
        let binding = verify_binding(made.certificate_der()).unwrap();
        assert_eq!(
            (binding.node_id, binding.fingerprint),
            (made.node_id(), made.fingerprint())
        );
        assert_eq!(
            from_pem(made.certificate_pem().as_bytes()).unwrap(),
            made.certificate_der()
        );
        for entry in fs::read_dir(dir.path()).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_lost_key_is_an_error_and_a_lost_certificate_is_made_again_under_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let made = Identity::open(dir.path(), None).unwrap();
        for name in ["cert.pem", "cert.pem.old"] {
            let _ = fs::remove_file(dir.path().join(name));
        }
        let again = Identity::open(dir.path(), Some(made.node_id())).unwrap();
        assert_eq!(again.fingerprint(), made.fingerprint());
        for name in ["node.key", "tls.key"] {
            let [path, old] = [name.to_owned(), format!("{name}.old")].map(|name| dir.path().join(name));
            let whole = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            assert!(Identity::open(dir.path(), Some(made.node_id())).is_ok());
            fs::remove_file(&old).unwrap();
            assert!(matches!(
                Identity::open(dir.path(), Some(made.node_id())),
                Err(Error::Folder(FolderError::Identity { path: lost })) if lost == path
            ));
            fs::write(&path, whole).unwrap();
        }
    }

    #[test]
    fn the_key_of_another_node_is_refused_and_no_key_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let made = Identity::open(dir.path(), None).unwrap();
        let other = NodeId::from_bytes([9; 32]);
        assert!(Identity::open(dir.path(), Some(other)).is_err());
        let shown = format!("{made:?}");
        assert!(!shown.contains("tls_key"), "{shown}");
    }
}
