//! Encryption with configured keys: AES-256-GCM.
//!
//! [`Seal`] gives each thing a key of its own, which is itself encrypted with the configured one
//! (envelope encryption). Layout: version (1 byte), id of the configured key (8), nonce (12), encrypted
//! key (48), nonce (12), encrypted content. Owner and name are authenticated with it: what was sealed for
//! one is not opened for another.
//!
//! [`DataKey`] is a key that is kept by whoever holds it. What it seals is the same each time, so that a
//! fact that is told again is the same fact: the nonce is a MAC of what is sealed (a synthetic nonce), and
//! two contents under one nonce would need a collision of 96 bits under one key.

use super::Secret;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
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
    /// Its key is not among those of this setting.
    #[error("its key is not among {0}; add the one that was replaced there")]
    KeyMissing(&'static str),
    /// It is not what was sealed.
    #[error("it is damaged, or was sealed for something else")]
    Damaged,
}

/// What configured keys are for.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// Their setting, as messages name it.
    pub setting: &'static str,
    /// By what the keys that are derived for it differ from those for anything else.
    info: &'static [u8],
}

/// What is kept of deliveries.
pub const INBOX: Purpose = Purpose {
    setting: "inbox_keys",
    info: b"crossdock inbox",
};
/// The keys of persons.
pub const CUSTOMERS: Purpose = Purpose {
    setting: "customers.keys",
    info: b"crossdock customers",
};

/// Configured keys, for one owner.
pub struct Seal {
    setting: &'static str,
    owner: String,
    /// The first seals, all open.
    keys: Vec<Configured>,
}

struct Configured {
    id: [u8; ID_BYTES],
    cipher: Aes256Gcm,
}

impl Seal {
    /// # Errors
    /// All that is wrong with the keys.
    pub fn new(purpose: Purpose, owner: &str, secrets: &[Secret]) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let setting = purpose.setting;
        if secrets.is_empty() {
            wrong.push(format!("{setting} must be at least one"));
        }
        let mut keys = Vec::new();
        for (at, secret) in secrets.iter().enumerate() {
            let secret = secret.reveal().as_bytes();
            if secret.len() < SECRET_CHARS_MIN {
                wrong.push(format!(
                    "{setting}.{at} is shorter than {SECRET_CHARS_MIN} characters; take a longer one"
                ));
            }
            let mut key = [0; KEY_BYTES];
            // The length is one that the function has.
            let _ = Hkdf::<Sha256>::new(None, secret).expand(purpose.info, &mut key);
            let mut id = [0; ID_BYTES];
            id.copy_from_slice(&Sha256::digest(key)[..ID_BYTES]);
            keys.push(Configured {
                id,
                cipher: Aes256Gcm::new(&Key::<Aes256Gcm>::from(key)),
            });
        }
        match wrong.is_empty() {
            true => Ok(Seal {
                setting,
                owner: owner.to_owned(),
                keys,
            }),
            false => Err(wrong),
        }
    }

    /// Encrypts what stands under this name; `None` when the cipher refuses, which it does not
    /// for what fits into memory.
    pub fn seal(&self, name: &str, content: &[u8]) -> Option<Vec<u8>> {
        let with = self.keys.first()?;
        let mut random = rand::rng();
        let key: [u8; KEY_BYTES] = random.random();
        let nonces: [[u8; NONCE_BYTES]; 2] = random.random();
        let about = self.about(name);
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
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, OpenFault> {
        use OpenFault::Damaged;
        let (version, rest) = sealed.split_first().ok_or(Damaged)?;
        if *version != VERSION {
            return Err(Damaged);
        }
        let (id, rest) = rest.split_first_chunk::<ID_BYTES>().ok_or(Damaged)?;
        let with = self.keys.iter().find(|k| k.id == *id);
        let with = with.ok_or(OpenFault::KeyMissing(self.setting))?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Damaged)?;
        let (wrapped, rest) = rest
            .split_first_chunk::<{ KEY_BYTES + TAG_BYTES }>()
            .ok_or(Damaged)?;
        let about = self.about(name);
        let key = unapply(&with.cipher, *nonce, wrapped, &about).ok_or(Damaged)?;
        let key: [u8; KEY_BYTES] = key.try_into().map_err(|_| Damaged)?;
        let (nonce, content) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Damaged)?;
        let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key));
        unapply(&cipher, *nonce, content, &about).ok_or(Damaged)
    }

    fn about(&self, name: &str) -> Vec<u8> {
        crate::domain::compound_key(&[&self.owner, name])
            .as_bytes()
            .to_vec()
    }
}

/// A key of its own for whatever is to be readable only as long as the key is kept.
pub struct DataKey {
    cipher: Aes256Gcm,
    /// Makes the nonces.
    mac: [u8; KEY_BYTES],
}

impl DataKey {
    /// A new key, by chance; its bytes are to be kept sealed.
    pub fn fresh() -> [u8; KEY_BYTES] {
        rand::rng().random()
    }

    /// The key of these bytes; `None` when they are not as many as a key has.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let derive = |info: &[u8]| {
            let mut key = [0; KEY_BYTES];
            let derived = Hkdf::<Sha256>::new(None, bytes).expand(info, &mut key);
            derived.ok().map(|()| key)
        };
        let cipher = derive(b"crossdock data").filter(|_| bytes.len() == KEY_BYTES)?;
        Some(DataKey {
            cipher: Aes256Gcm::new(&Key::<Aes256Gcm>::from(cipher)),
            mac: derive(b"crossdock nonce")?,
        })
    }

    /// Encrypts what stands under this name: nonce (12 bytes), encrypted content.
    pub fn seal(&self, name: &str, content: &[u8]) -> Option<Vec<u8>> {
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&self.mac).ok()?;
        mac.update(&(name.len() as u64).to_be_bytes());
        mac.update(name.as_bytes());
        mac.update(content);
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&mac.finalize().into_bytes()[..NONCE_BYTES]);
        let mut sealed = nonce.to_vec();
        sealed.extend(apply(&self.cipher, nonce, content, name.as_bytes())?);
        Some(sealed)
    }

    /// Decrypts; `None` when it is damaged, or was sealed under another name or with another key.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, content) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        unapply(&self.cipher, *nonce, content, name.as_bytes())
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
