//! TLS to a broker: which authority it must be certified by, and who we are. All in PEM, from the environment: a Secret's values.

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// Certificates of authorities.
const CA: &str = "SCONCE_MQTT_CA";
/// Ours, and those between it and its authority; with its private key. Neither: by name and password alone, or unknown.
const CERTIFICATE: &str = "SCONCE_MQTT_CERTIFICATE";
const KEY: &str = "SCONCE_MQTT_KEY";

/// # Errors
/// In words: what is missing, or cannot be used.
pub fn configuration(variable: impl Fn(&str) -> Option<String>) -> Result<ClientConfig, String> {
    let authorities = variable(CA)
        .ok_or_else(|| format!("mqtts needs the certificate of the broker's authority, in PEM, in {CA}"))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(CA, &authorities)? {
        roots.add(authority).map_err(|error| format!("{CA} cannot be used: {error}"))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    match (variable(CERTIFICATE), variable(KEY)) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(chain), Some(key)) => {
            let chain = certificates(CERTIFICATE, &chain)?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
            let key = key.map_err(|error| format!("{KEY} is no private key in PEM: {error}"))?;
            let built = builder.with_client_auth_cert(chain, key);
            built.map_err(|error| format!("{CERTIFICATE} and {KEY} cannot be used: {error}; are they of one pair?"))
        }
        _ => Err(format!("{CERTIFICATE} and {KEY} go together")),
    }
}

fn certificates(name: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let read = read.map_err(|error| format!("{name} is no PEM: {error}"))?;
    if read.is_empty() { Err(format!("{name} has no certificate in PEM")) } else { Ok(read) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_unusable_is_named() {
        let authority = rcgen::generate_simple_self_signed(["authority".to_owned()]).unwrap();
        let (ca, key) = (authority.cert.pem(), authority.signing_key.serialize_pem());
        let check = |variables: &[(&str, &str)], expected: &str| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            match configuration(variable) {
                Ok(_) => assert_eq!(expected, ""),
                Err(why) => assert!(!expected.is_empty() && why.contains(expected), "{why}"),
            }
        };
        check(&[], "in SCONCE_MQTT_CA");
        check(&[(CA, "a password")], "SCONCE_MQTT_CA has no certificate in PEM");
        check(&[(CA, &ca)], "");
        check(&[(CA, &ca), (CERTIFICATE, &ca)], "go together");
        check(&[(CA, &ca), (CERTIFICATE, &ca), (KEY, "a password")], "SCONCE_MQTT_KEY is no private key");
        check(&[(CA, &ca), (CERTIFICATE, &ca), (KEY, &key)], "");
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        check(&[(CA, &ca), (CERTIFICATE, &ca), (KEY, &other)], "of one pair?");
    }
}
