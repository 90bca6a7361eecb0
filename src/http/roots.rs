//! Authorities that vouch for names: those of the system, or those in a PEM that the user gave.
//!
//! The system's bundle is read when it is asked for. A list of our own would be a tenth of a megabyte in the binary, and
//! as old as the binary.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Where systems keep their bundle: Debian, Alpine, Yocto and Arch; Fedora; SUSE; the BSDs.
pub const ROOT_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The longest bundle: Mozilla's has 250 KiB.
const BUNDLE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Certificates of authorities; cloning is cheap.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

/// Why there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootsError {
    /// No bundle of the system.
    #[error(
        "this system has no certificates of authorities to verify servers by: install ca-certificates, \
         or name the server's own certificate"
    )]
    NoBundle,
    /// A PEM without a certificate that can vouch.
    #[error("there is no certificate in this PEM")]
    NoCertificate,
}

impl Roots {
    /// The system's. Blocking: reads a file.
    ///
    /// # Errors
    /// [`RootsError::NoBundle`].
    pub fn of_system() -> Result<Roots, RootsError> {
        let found = ROOT_FILES.iter().find_map(|path| {
            let path = Path::new(path);
            let fits = path.metadata().is_ok_and(|file| file.len() <= BUNDLE_BYTES_MAX);
            Roots::of_pem(&std::fs::read(path).ok().filter(|_| fits)?).ok()
        });
        found.ok_or(RootsError::NoBundle)
    }

    /// Those in a PEM, for example a server's own certificate. What is in it besides is passed over.
    ///
    /// # Errors
    /// [`RootsError::NoCertificate`].
    pub fn of_pem(pem: &[u8]) -> Result<Roots, RootsError> {
        let mut store = RootCertStore::empty();
        let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
        store.add_parsable_certificates(certificates);
        match store.is_empty() {
            true => Err(RootsError::NoCertificate),
            false => Ok(Roots(Arc::new(store))),
        }
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pem_without_certificates_is_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["box.test".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let both = format!("{}{}", key.serialize_pem(), certificate.pem());
        assert_eq!(
            format!("{:?}", Roots::of_pem(both.as_bytes()).unwrap()),
            "Roots(1)"
        );
        for wrong in ["", "box", &key.serialize_pem()] {
            assert_eq!(
                Roots::of_pem(wrong.as_bytes()).unwrap_err(),
                RootsError::NoCertificate
            );
        }
    }
}
