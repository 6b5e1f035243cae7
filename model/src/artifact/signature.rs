//! Who says that these files, and no others, are a version: OpenSSF Model Signing 1.0, by a P-256 key, so that a node can verify it
//! without a network.
//!
//! `model.sig` is a Sigstore bundle: an in-toto statement, which lists each file with its SHA-256, in a DSSE envelope
//! (<https://github.com/ossf/model-signing-spec>). PyPI's `model-signing` verifies ours, and we what it signs. Signatures are
//! deterministic (RFC 6979): the same files signed by the same key are the same version.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use p256::SecretKey;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePublicKey as _, LineEnding};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use thiserror::Error;

/// The file with the signature: the one of a version that it does not cover.
pub const SIGNATURE: &str = "model.sig";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";

/// The first word is the reason, as conditions name it.
#[derive(Debug, Error)]
pub enum SignatureError {
    #[error(
        "SignatureInvalid: the version has no {SIGNATURE}, and only what {trusted} signed is trusted; publish it again with --signing-key"
    )]
    Missing { trusted: String },
    #[error("SignatureInvalid: {SIGNATURE} is no signature by OpenSSF Model Signing 1.0: {why}")]
    Broken { why: String },
    #[error("SignatureInvalid: it is signed by the key {got}, and only {trusted} is trusted")]
    Untrusted { got: String, trusted: String },
    #[error("SignatureInvalid: {SIGNATURE} names the key {key}, which did not make it: it was changed")]
    Forged { key: String },
    #[error("SignatureInvalid: {file} {why}")]
    File { file: String, why: String },
    #[error(
        "{what}: need a P-256 key as PEM, such as openssl ecparam -genkey -name prime256v1 -noout makes, and for verifying openssl ec -pubout"
    )]
    Key { what: String },
}

/// Signs versions.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// PEM, in PKCS #8 or as `openssl ecparam` writes it; without a password.
    ///
    /// # Errors
    /// [`SignatureError::Key`]. Nothing of the text is repeated.
    pub fn from_pem(pem: &str) -> Result<Self, SignatureError> {
        // OpenSSL puts the curve's parameters before the key.
        let start = pem.find("-----BEGIN EC PRIVATE KEY").unwrap_or_default();
        let key = SecretKey::from_pkcs8_pem(pem).or_else(|_| SecretKey::from_sec1_pem(&pem[start..]));
        let key = key.map_err(|_| SignatureError::Key { what: "that is no private key".into() })?;
        Ok(Self(key.into()))
    }

    pub fn public(&self) -> PublicKey {
        PublicKey::new(*self.0.verifying_key())
    }
}

/// Verifies what its private key signed.
#[derive(Clone, Debug)]
pub struct PublicKey {
    key: VerifyingKey,
    /// SHA-256 of its PEM, in hexadecimal: what a bundle names the key by.
    hint: String,
}

impl PublicKey {
    fn new(key: VerifyingKey) -> Self {
        let pem = key.to_public_key_pem(LineEnding::LF).unwrap_or_default();
        Self { key, hint: hex(&Sha256::digest(pem)) }
    }
}

/// Whose signatures count. By default nobody's is asked for: a version is trusted by its digest.
#[derive(Clone, Debug, Default)]
pub struct Trust(Vec<PublicKey>);

impl Trust {
    /// Public keys as PEM, one after another; other lines between them are skipped.
    ///
    /// # Errors
    /// [`SignatureError::Key`] if one is no P-256 key, or there is none.
    pub fn from_pem(pem: &str) -> Result<Self, SignatureError> {
        const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
        let keys = pem.split(BEGIN).skip(1).enumerate().map(|(index, rest)| {
            let end = rest.rfind("-----END PUBLIC KEY-----").map_or(rest.len(), |at| at + 24);
            VerifyingKey::from_public_key_pem(&format!("{BEGIN}{}", &rest[..end]))
                .map(PublicKey::new)
                .map_err(|_| SignatureError::Key { what: format!("key {} of the trusted ones is none", index + 1) })
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(SignatureError::Key { what: "there is no public key".into() });
        }
        Ok(Self(keys))
    }

    /// Whether a signature is asked for.
    pub fn asks(&self) -> bool {
        !self.0.is_empty()
    }

    /// Holds a version against its signature. `files`: all of it, as its manifest lists them, path → `sha256:HEX`.
    ///
    /// # Errors
    /// [`SignatureError`] says what is not as it was signed.
    pub fn verify(&self, files: &BTreeMap<String, String>, signature: Option<&[u8]>) -> Result<(), SignatureError> {
        if !self.asks() {
            return Ok(());
        }
        let bundle = signature.ok_or_else(|| SignatureError::Missing { trusted: self.names() })?;
        let bundle: Bundle = serde_json::from_slice(bundle).map_err(broken)?;
        covers(&self.authentic(&bundle)?, files)
    }

    /// What a trusted key has signed.
    fn authentic(&self, bundle: &Bundle) -> Result<Vec<u8>, SignatureError> {
        let Bundle { media_type, verification_material: material, dsse_envelope: envelope } = bundle;
        if (media_type.as_str(), envelope.payload_type.as_str()) != (BUNDLE, PAYLOAD) {
            return Err(broken(format!("it is {media_type} with {}", envelope.payload_type)));
        }
        let [signature] = &envelope.signatures[..] else {
            return Err(broken(format!("it has {} signatures, need one", envelope.signatures.len())));
        };
        let hint = &material.public_key.hint;
        let Some(PublicKey { key, hint }) = self.0.iter().find(|known| known.hint == *hint) else {
            return Err(SignatureError::Untrusted { got: short(hint), trusted: self.names() });
        };
        let payload = BASE64_STANDARD.decode(&envelope.payload).map_err(broken)?;
        let signature = BASE64_STANDARD.decode(&signature.sig).map_err(broken)?;
        let forged = |_| SignatureError::Forged { key: short(hint) };
        let signature = DerSignature::from_bytes(&signature).map_err(forged)?;
        key.verify(&encoded(&payload), &signature).map_err(forged)?;
        Ok(payload)
    }

    fn names(&self) -> String {
        self.0.iter().map(|key| short(&key.hint)).collect::<Vec<_>>().join(", ")
    }
}

/// Whether a bundle is about these files; not, who made it.
///
/// # Errors
/// [`SignatureError`] says what is not as it was signed.
pub fn is_of(bundle: &[u8], files: &BTreeMap<String, String>) -> Result<(), SignatureError> {
    let bundle: Bundle = serde_json::from_slice(bundle).map_err(broken)?;
    covers(&BASE64_STANDARD.decode(bundle.dsse_envelope.payload).map_err(broken)?, files)
}

/// Whether a statement lists these files, and no others.
fn covers(payload: &[u8], files: &BTreeMap<String, String>) -> Result<(), SignatureError> {
    let signed = listed(payload)?;
    let fault = |file: &String, why: &str| Err(SignatureError::File { file: file.clone(), why: why.into() });
    for (path, digest) in files.iter().filter(|(path, _)| *path != SIGNATURE) {
        match signed.get(path) {
            None => return fault(path, "is not what was signed: it came later"),
            Some(known) if known != digest => return fault(path, "is not as it was signed"),
            Some(_) => {}
        }
    }
    match signed.keys().find(|path| !files.contains_key(*path)) {
        Some(path) => fault(path, "was signed, and the version has it no more"),
        None => Ok(()),
    }
}

/// The bundle that says that `files` (path → `sha256:HEX`) are the version `name`.
pub fn sign(name: &str, files: &BTreeMap<String, String>, key: &PrivateKey) -> Vec<u8> {
    let covered = files.iter().filter(|(path, _)| *path != SIGNATURE).map(|(path, digest)| (path, bare(digest)));
    let resources: Vec<Value> =
        covered.clone().map(|(path, digest)| json!({"name": path, "algorithm": "sha256", "digest": digest})).collect();
    let statement = json!({
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root(covered.map(|(_, digest)| digest))}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": false, "ignore_paths": [SIGNATURE]},
            "resources": resources,
        },
    });
    let payload = statement.to_string().into_bytes();
    let signature: DerSignature = key.0.sign(&encoded(&payload));
    let bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key.public().hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": BASE64_STANDARD.encode(payload),
            "payloadType": PAYLOAD,
            "signatures": [{"sig": BASE64_STANDARD.encode(signature.to_bytes()), "keyid": ""}],
        },
    });
    format!("{bundle}\n").into_bytes()
}

/// The files of a statement, path → `sha256:HEX`.
fn listed(payload: &[u8]) -> Result<BTreeMap<String, String>, SignatureError> {
    let Statement { predicate_type, subject, predicate } = serde_json::from_slice(payload).map_err(broken)?;
    let Serialization { method, hash_type } = &predicate.serialization;
    if (predicate_type.as_str(), method.as_str(), hash_type.as_str()) != (PREDICATE, "files", "sha256") {
        return Err(broken(format!("it lists {method} by {hash_type} as {predicate_type}; need files by sha256")));
    }
    let digests = predicate.resources.iter().map(|resource| resource.digest.as_str());
    let root = root(digests);
    match &subject[..] {
        [Subject { digest }] if digest.get("sha256") == Some(&root) => {}
        _ => return Err(broken("its root digest is not that of its files")),
    }
    let mut files = BTreeMap::new();
    for Resource { name, algorithm, digest } in predicate.resources {
        if algorithm != "sha256" || files.insert(name.clone(), format!("sha256:{digest}")).is_some() {
            return Err(broken(format!("\"{name}\" is listed twice, or by {algorithm}")));
        }
    }
    Ok(files)
}

/// SHA-256 over the digests of all files, in their order.
fn root<'a>(digests: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for digest in digests {
        let bytes = digest.as_bytes().chunks(2).map_while(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        });
        hasher.update(bytes.collect::<Vec<_>>());
    }
    hex(&hasher.finalize())
}

/// What is signed of a payload: DSSE's pre-authentication encoding.
fn encoded(payload: &[u8]) -> Vec<u8> {
    let mut encoded = format!("DSSEv1 {} {PAYLOAD} {} ", PAYLOAD.len(), payload.len()).into_bytes();
    encoded.extend_from_slice(payload);
    encoded
}

fn bare(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The beginning of a key's hint, enough to know it by.
fn short(hint: &str) -> String {
    hint.chars().take(12).collect()
}

fn broken(why: impl ToString) -> SignatureError {
    SignatureError::Broken { why: why.to_string() }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Hint,
}

#[derive(Deserialize)]
struct Hint {
    hint: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signed>,
}

#[derive(Deserialize)]
struct Signed {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    predicate_type: String,
    subject: Vec<Subject>,
    predicate: Predicate,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_slice(&[seed; 32]).unwrap()
    }

    fn public(seed: u8) -> String {
        key(seed).public_key().to_public_key_pem(LineEnding::LF).unwrap()
    }

    fn trust(seed: u8) -> Trust {
        Trust::from_pem(&public(seed)).unwrap()
    }

    fn files() -> BTreeMap<String, String> {
        ["config.json", "weights/f32/model.safetensors", SIGNATURE]
            .map(|path| (path.to_owned(), crate::digest::sha256(path.as_bytes())))
            .into()
    }

    fn signed() -> Vec<u8> {
        sign("digits", &files(), &PrivateKey(key(7).into()))
    }

    #[test]
    fn what_is_as_it_was_signed_passes_whoever_else_is_trusted() {
        let signed = signed();
        assert_eq!(signed, self::signed(), "deterministic");
        for keys in [public(7), format!("who: me\n{}\n# and\n{}", public(8), public(7))] {
            Trust::from_pem(&keys).unwrap().verify(&files(), Some(&signed)).unwrap();
        }
        Trust::default().verify(&files(), None).unwrap();
    }

    #[test]
    fn what_is_not_is_named() {
        let trust = trust(7);
        let check = |trust: &Trust, files: &BTreeMap<String, String>, signature: Option<&[u8]>, expected: &str| {
            let error = trust.verify(files, signature).unwrap_err().to_string();
            assert!(error.starts_with("SignatureInvalid: ") && error.contains(expected), "{error}");
        };
        let signed = signed();
        check(&trust, &files(), None, "the version has no model.sig, and only what ");
        check(&self::trust(8), &files(), Some(&signed), "it is signed by the key ");
        let mut spoiled = files();
        spoiled.insert("config.json".into(), crate::digest::sha256(b"spoiled"));
        check(&trust, &spoiled, Some(&signed), "config.json is not as it was signed");
        let mut more = files();
        more.insert("evil.json".into(), crate::digest::sha256(b"evil"));
        check(&trust, &more, Some(&signed), "evil.json is not what was signed: it came later");
        let mut less = files();
        less.remove("config.json");
        check(&trust, &less, Some(&signed), "config.json was signed, and the version has it no more");
        check(&trust, &files(), Some(b"{}"), "is no signature by OpenSSF Model Signing 1.0: missing field");
    }

    #[test]
    fn nothing_of_a_bundle_can_be_changed() {
        let trust = trust(7);
        let bundle: Value = serde_json::from_slice(&signed()).unwrap();
        let check = |change: fn(&mut Value), expected: &str| {
            let mut bundle = bundle.clone();
            change(&mut bundle);
            let error = trust.verify(&files(), Some(bundle.to_string().as_bytes())).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let other_payload = |bundle: &mut Value| {
            let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
            let text = String::from_utf8(BASE64_STANDARD.decode(payload).unwrap()).unwrap();
            bundle["dsseEnvelope"]["payload"] = json!(BASE64_STANDARD.encode(text.replace("digits", "figits")));
        };
        check(other_payload, "which did not make it: it was changed");
        check(|bundle| bundle["dsseEnvelope"]["signatures"][0]["sig"] = json!("AAAA"), "which did not make it");
        check(|bundle| bundle["dsseEnvelope"]["signatures"] = json!([]), "it has 0 signatures, need one");
        check(|bundle| bundle["mediaType"] = json!("text/plain"), "it is text/plain with application/vnd.in-toto+json");
        check(|bundle| bundle["verificationMaterial"]["publicKey"]["hint"] = json!("ä"), "signed by the key ä");
    }

    #[test]
    fn keys_that_are_none_are_told_and_not_repeated() {
        let check = |told: SignatureError, expected: &str| {
            let told = told.to_string();
            assert!(told.starts_with(expected) && told.contains("openssl ecparam"), "{told}");
        };
        check(PrivateKey::from_pem("secret").err().unwrap(), "that is no private key: need a P-256 key as PEM");
        check(PrivateKey::from_pem(&public(7)).err().unwrap(), "that is no private key");
        check(Trust::from_pem("").unwrap_err(), "there is no public key");
        check(Trust::from_pem(&public(7).replace('A', "B")).unwrap_err(), "key 1 of the trusted ones is none");
    }

    #[test]
    fn a_private_key_is_read_as_it_is_kept() {
        use p256::pkcs8::EncodePrivateKey as _;
        let pkcs8 = key(7).to_pkcs8_pem(LineEnding::LF).unwrap();
        let sec1 = key(7).to_sec1_pem(LineEnding::LF).unwrap();
        // As OpenSSL writes it.
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for pem in [pkcs8.as_str(), sec1.as_str(), &format!("{parameters}{}", sec1.as_str())] {
            assert_eq!(PrivateKey::from_pem(pem).unwrap().public().hint, trust(7).0[0].hint);
        }
    }
}
