//! Encrypts what is kept of deliveries: AES-256-GCM, each with a key of its own, which is itself
//! encrypted with the connector's (envelope encryption).
//!
//! Layout: version (1 byte), id of the connector's key (8), nonce (12), encrypted key (48), nonce
//! (12), encrypted content. Connector and delivery are authenticated with it: what was sealed for one
//! is not opened for another.

use crate::config::Secret;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use hkdf::Hkdf;
use rand::RngExt;
use sha2::{Digest, Sha256};

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const ID_BYTES: usize = 8;
const SECRET_CHARS_MIN: usize = 16;
/// What sealing adds.
pub const OVERHEAD_BYTES: usize = 1 + ID_BYTES + 2 * NONCE_BYTES + KEY_BYTES + 2 * TAG_BYTES;

/// Why something cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenFault {
    /// Its key is not known here.
    #[error("its key is not among inbox_keys; add the one that was replaced")]
    KeyMissing,
    /// It is not what was sealed.
    #[error("it is damaged, or was sealed for something else")]
    Damaged,
}

/// The keys of a connector.
pub struct Seal {
    instance: String,
    /// The first seals, all open.
    keys: Vec<ConnectorKey>,
}

struct ConnectorKey {
    id: [u8; ID_BYTES],
    cipher: Aes256Gcm,
}

impl Seal {
    /// # Errors
    /// All that is wrong with the keys.
    pub fn new(instance: &str, secrets: &[Secret]) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        if secrets.is_empty() {
            wrong.push("inbox_keys must be at least one".to_owned());
        }
        let mut keys = Vec::new();
        for (at, secret) in secrets.iter().enumerate() {
            let secret = secret.reveal().as_bytes();
            if secret.len() < SECRET_CHARS_MIN {
                wrong.push(format!(
                    "inbox_keys.{at} is shorter than {SECRET_CHARS_MIN} characters; take a longer one"
                ));
            }
            let mut key = [0; KEY_BYTES];
            // The length is one that the function has.
            let _ = Hkdf::<Sha256>::new(None, secret).expand(b"crossdock inbox", &mut key);
            let mut id = [0; ID_BYTES];
            id.copy_from_slice(&Sha256::digest(key)[..ID_BYTES]);
            keys.push(ConnectorKey {
                id,
                cipher: Aes256Gcm::new(&Key::<Aes256Gcm>::from(key)),
            });
        }
        match wrong.is_empty() {
            true => Ok(Seal {
                instance: instance.to_owned(),
                keys,
            }),
            false => Err(wrong),
        }
    }

    /// Encrypts what was delivered under this name; `None` when the cipher refuses, which it does not
    /// for what fits into memory.
    pub fn seal(&self, delivery: &str, content: &[u8]) -> Option<Vec<u8>> {
        let with = self.keys.first()?;
        let mut random = rand::rng();
        let key: [u8; KEY_BYTES] = random.random();
        let nonces: [[u8; NONCE_BYTES]; 2] = random.random();
        let about = self.about(delivery);
        let mut sealed = Vec::with_capacity(content.len() + OVERHEAD_BYTES);
        sealed.push(VERSION);
        sealed.extend_from_slice(&with.id);
        sealed.extend_from_slice(&nonces[0]);
        sealed.extend(apply(&with.cipher, nonces[0], &key, &about)?);
        sealed.extend_from_slice(&nonces[1]);
        let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key));
        sealed.extend(apply(&cipher, nonces[1], content, &about)?);
        Some(sealed)
    }

    /// Decrypts.
    ///
    /// # Errors
    /// What is wrong, without anything of the content.
    pub fn open(&self, delivery: &str, sealed: &[u8]) -> Result<Vec<u8>, OpenFault> {
        use OpenFault::Damaged;
        let (version, rest) = sealed.split_first().ok_or(Damaged)?;
        if *version != VERSION {
            return Err(Damaged);
        }
        let (id, rest) = rest.split_first_chunk::<ID_BYTES>().ok_or(Damaged)?;
        let with = self.keys.iter().find(|k| k.id == *id);
        let with = with.ok_or(OpenFault::KeyMissing)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Damaged)?;
        let (wrapped, rest) = rest
            .split_first_chunk::<{ KEY_BYTES + TAG_BYTES }>()
            .ok_or(Damaged)?;
        let about = self.about(delivery);
        let key = unapply(&with.cipher, *nonce, wrapped, &about).ok_or(Damaged)?;
        let key: [u8; KEY_BYTES] = key.try_into().map_err(|_| Damaged)?;
        let (nonce, content) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Damaged)?;
        let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key));
        unapply(&cipher, *nonce, content, &about).ok_or(Damaged)
    }

    fn about(&self, delivery: &str) -> Vec<u8> {
        crate::domain::compound_key(&[&self.instance, delivery])
            .as_bytes()
            .to_vec()
    }
}

fn apply(cipher: &Aes256Gcm, nonce: [u8; NONCE_BYTES], msg: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
    let payload = Payload { msg, aad };
    cipher.encrypt(&Nonce::from(nonce), payload).ok()
}

fn unapply(
    cipher: &Aes256Gcm,
    nonce: [u8; NONCE_BYTES],
    msg: &[u8],
    aad: &[u8],
) -> Option<Vec<u8>> {
    let payload = Payload { msg, aad };
    cipher.decrypt(&Nonce::from(nonce), payload).ok()
}
