//! The binding of a node's certificate to its identity: written, read and proved here, without I/O.
//!
//! Browsers refuse Ed25519 certificates, so a node serves a P-256 one that carries an extension, not critical:
//!
//! ```text
//! OID    2.25.7148392056317744829
//! value  OCTET STRING (04 61) of 97 bytes:
//!        01            version
//!        node id       32 bytes, Ed25519 public key
//!        signature     64 bytes, Ed25519 (RFC 8032) by that key over
//!                      "refuge certificate v1" 00  SubjectPublicKeyInfo (DER, whole)
//! ```
//!
//! Names and dates of a certificate may change; what is pinned is the node id, what is shown to people is the
//! [`Fingerprint`] of the key. That the peer holds the P-256 key is for the TLS handshake to prove.

use std::fmt;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, VerifyingKey};

use super::NodeId;

/// The arcs of the extension's object identifier.
pub const BINDING_OID: [u64; 3] = [2, 25, 7_148_392_056_317_744_829];

/// The same, DER encoded without tag and length.
const BINDING_OID_DER: [u8; 10] = [0x69, 0xe3, 0x9a, 0x8c, 0x96, 0xb9, 0x80, 0xac, 0xad, 0x3d];

const BINDING_BYTES: usize = 1 + 32 + 64;
const BINDING_VERSION: u8 = 1;
const PURPOSE: &[u8] = b"refuge certificate v1\0";

/// SHA-256 of a certificate's SubjectPublicKeyInfo, 32 bytes: what people compare. Shown as 64 hex digits in
/// groups of four.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// What a certificate proves about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The node whose key signed the certificate's key.
    pub node_id: NodeId,
    /// The fingerprint of the certificate's key.
    pub fingerprint: Fingerprint,
}

/// Why a certificate proves no node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// Not DER, or not a certificate.
    #[error("this is no X.509 certificate")]
    Malformed,
    /// A certificate of something else.
    #[error("the certificate carries no Refuge node id")]
    NoBinding,
    /// The extension is there and proves nothing.
    #[error("the certificate's node id did not sign the certificate's key")]
    Forged,
}

impl Fingerprint {
    /// The fingerprint of a key, given as SubjectPublicKeyInfo (DER).
    pub fn of_key(spki_der: &[u8]) -> Fingerprint {
        let digest = ring::digest::digest(&ring::digest::SHA256, spki_der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Fingerprint(bytes)
    }

    /// The digest, 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, pair) in self.0.chunks(2).enumerate() {
            let gap = if place == 0 { "" } else { " " };
            write!(f, "{gap}{}", HEXLOWER.encode_display(pair))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The message a node signs to bind a key (SubjectPublicKeyInfo, DER) to itself.
pub fn binding_message(spki_der: &[u8]) -> Vec<u8> {
    [PURPOSE, spki_der].concat()
}

/// The extension's value for a node id and its signature over [`binding_message`].
pub fn binding_extension(node_id: &NodeId, signature: &[u8; 64]) -> Vec<u8> {
    let mut value = Vec::with_capacity(2 + BINDING_BYTES);
    value.extend_from_slice(&[TAG_OCTET_STRING, 0x61, BINDING_VERSION]);
    value.extend_from_slice(node_id.as_bytes());
    value.extend_from_slice(signature);
    value
}

/// The node id a certificate (DER) proves.
///
/// # Errors
/// [`BindingError`]: nothing about the certificate may be believed then.
pub fn verify_binding(certificate_der: &[u8]) -> Result<Binding, BindingError> {
    let parsed = Certificate::parse(certificate_der).ok_or(BindingError::Malformed)?;
    let value = parsed.binding.ok_or(BindingError::NoBinding)?;
    let (&version, rest) = value.split_first().ok_or(BindingError::Forged)?;
    if version != BINDING_VERSION {
        return Err(BindingError::NoBinding);
    }
    let (key, signature) = rest.split_at_checked(32).ok_or(BindingError::Forged)?;
    let key: [u8; 32] = key.try_into().map_err(|_| BindingError::Forged)?;
    let signature = Signature::from_slice(signature).map_err(|_| BindingError::Forged)?;
    VerifyingKey::from_bytes(&key)
        .and_then(|key| key.verify_strict(&binding_message(parsed.spki), &signature))
        .map_err(|_| BindingError::Forged)?;
    Ok(Binding {
        node_id: NodeId::from_bytes(key),
        fingerprint: Fingerprint::of_key(parsed.spki),
    })
}

const TAG_BOOLEAN: u8 = 0x01;
const TAG_OCTET_STRING: u8 = 0x04;
const TAG_OID: u8 = 0x06;
const TAG_SEQUENCE: u8 = 0x30;
const TAG_VERSION: u8 = 0xa0;
const TAG_EXTENSIONS: u8 = 0xa3;

/// The two parts of a certificate that matter here (RFC 5280, section 4.1).
struct Certificate<'a> {
    spki: &'a [u8],
    binding: Option<&'a [u8]>,
}

impl<'a> Certificate<'a> {
    fn parse(der: &'a [u8]) -> Option<Certificate<'a>> {
        let mut outer = Der(der);
        let mut certificate = Der(outer.content(TAG_SEQUENCE)?);
        let mut fields = Der(certificate.content(TAG_SEQUENCE)?);
        fields.content(TAG_VERSION)?;
        // Serial number, signature algorithm, issuer, validity, subject.
        for _ in 0..5 {
            fields.element()?;
        }
        let spki = fields.element().filter(|spki| spki.tag == TAG_SEQUENCE)?.whole;
        let mut binding = None;
        while !fields.0.is_empty() {
            let field = fields.element()?;
            if field.tag == TAG_EXTENSIONS {
                let mut extensions = Der(Der(field.content).content(TAG_SEQUENCE)?);
                while !extensions.0.is_empty() {
                    let extension = extensions.content(TAG_SEQUENCE)?;
                    let Some(value) = binding_of(extension)? else {
                        continue;
                    };
                    // Two bindings in one certificate would let readers disagree.
                    if binding.replace(value).is_some() {
                        return None;
                    }
                }
            }
        }
        outer.0.is_empty().then_some(Certificate { spki, binding })
    }
}

/// `None`: malformed. `Some(None)`: another extension.
fn binding_of(extension: &[u8]) -> Option<Option<&[u8]>> {
    let mut fields = Der(extension);
    let oid = fields.content(TAG_OID)?;
    let mut value = fields.element()?;
    if value.tag == TAG_BOOLEAN {
        value = fields.element()?;
    }
    if oid != BINDING_OID_DER {
        return Some(None);
    }
    if value.tag != TAG_OCTET_STRING {
        return None;
    }
    Der(value.content).content(TAG_OCTET_STRING).map(Some)
}

/// What is left to read of a run of DER elements (X.690, definite lengths, one-byte tags).
struct Der<'a>(&'a [u8]);

struct Element<'a> {
    tag: u8,
    whole: &'a [u8],
    content: &'a [u8],
}

impl<'a> Der<'a> {
    fn content(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.element()
            .filter(|element| element.tag == tag)
            .map(|element| element.content)
    }

    fn element(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, header) = match first {
            0..=0x7f => (usize::from(first), 2),
            0x81 => (usize::from(*rest.first()?), 3),
            0x82 => (
                usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])),
                4,
            ),
            _ => return None,
        };
        let whole = self.0.get(..header + len)?;
        self.0 = &self.0[header + len..];
        Some(Element {
            tag,
            whole,
            content: &whole[header..],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;

    fn certificate(signer: &SigningKey, claimed: &SigningKey) -> Vec<u8> {
        use rcgen::PublicKeyData;
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let spki = key.subject_public_key_info();
        let signature = signer.sign(&binding_message(&spki)).to_bytes();
        let node_id = NodeId::from_bytes(claimed.verifying_key().to_bytes());
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params
            .custom_extensions
            .push(rcgen::CustomExtension::from_oid_content(
                &BINDING_OID,
                binding_extension(&node_id, &signature),
            ));
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_proves_the_node_that_signed_its_key_and_no_other() {
        let (own, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let binding = verify_binding(&certificate(&own, &own)).unwrap();
        assert_eq!(binding.node_id.as_bytes(), own.verifying_key().as_bytes());
        assert_eq!(
            verify_binding(&certificate(&own, &other)),
            Err(BindingError::Forged)
        );
    }

    #[test]
    fn a_certificate_of_something_else_has_no_binding() {
        let plain = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        assert_eq!(verify_binding(plain.cert.der()), Err(BindingError::NoBinding));
        assert_eq!(verify_binding(b"noise"), Err(BindingError::Malformed));
    }

    #[test]
    fn no_certificate_with_one_bit_flipped_proves_another_node() {
        let own = SigningKey::from_bytes(&[1; 32]);
        let der = certificate(&own, &own);
        for bit in 0..der.len() * 8 {
            let mut flipped = der.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(binding) = verify_binding(&flipped) {
                assert_eq!(binding.node_id.as_bytes(), own.verifying_key().as_bytes());
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(der in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = verify_binding(&der);
        }
    }
}
