//! What Weft knows of Secrets: the values by key, which are never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use weft_bgp::protection::ao::{Algorithm, Key, KeyChain};
use weft_bgp::protection::{Authentication, Password, Signature};

use super::Cluster;
use crate::api::{SecretKeyRef, TcpAoAlgorithm, TcpAoKey, TcpAoSpec};

/// A `v1` Secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// `data` and `stringData`, decoded.
    pub values: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// What sessions are signed with, by the Secrets that have it.
#[derive(Clone, Copy, Debug)]
pub enum Signing<'a> {
    /// A password (TCP-MD5).
    Password(&'a SecretKeyRef),
    /// Keys (TCP-AO).
    TcpAo(&'a TcpAoSpec),
}

impl<'a> Signing<'a> {
    /// Of the two, which are not written both.
    pub(crate) fn of(password: Option<&'a SecretKeyRef>, keys: Option<&'a TcpAoSpec>) -> Option<Self> {
        keys.map(Self::TcpAo).or(password.map(Self::Password))
    }

    /// The Secrets.
    pub(crate) fn references(self) -> impl Iterator<Item = &'a SecretKeyRef> {
        let (password, keys) = match self {
            Self::Password(reference) => (Some(reference), &[][..]),
            Self::TcpAo(spec) => (None, spec.keys.as_slice()),
        };
        password.into_iter().chain(keys.iter().map(|key| &key.secret_key_ref))
    }
}

impl Cluster {
    /// How sessions know each other that are signed like this.
    #[must_use]
    pub fn authentication(&self, signing: Signing<'_>) -> Authentication {
        let signature = match signing {
            Signing::Password(reference) => self.secret(reference, "password").map(Signature::Md5),
            Signing::TcpAo(spec) => self.key_chain(spec).map(Signature::Ao),
        };
        signature.map_or_else(Authentication::Unavailable, Authentication::Signed)
    }

    fn key_chain(&self, spec: &TcpAoSpec) -> Result<KeyChain, String> {
        let key = |key: &TcpAoKey| {
            let algorithm = match key.algorithm {
                TcpAoAlgorithm::HmacSha1 => Algorithm::HmacSha1,
                TcpAoAlgorithm::AesCmac => Algorithm::AesCmac,
            };
            let secret = self.secret(&key.secret_key_ref, "key")?;
            Ok::<_, String>(Key { send_id: key.send_id, receive_id: key.receive_id, algorithm, secret })
        };
        let (keys, missing): (Vec<_>, Vec<_>) = spec.keys.iter().map(key).partition(Result::is_ok);
        match missing.into_iter().find_map(Result::err) {
            Some(why) if keys.is_empty() => Err(why),
            _ => KeyChain::new(keys.into_iter().flatten().collect()).map_err(|why| format!("tcpAO {why}")),
        }
    }

    /// Why a session that is signed like this goes without some of its keys: with any that is there it is signed.
    pub(crate) fn missing_keys(&self, spec: &TcpAoSpec) -> Vec<String> {
        let secrets = spec.keys.iter().map(|key| self.secret(&key.secret_key_ref, "key"));
        secrets.filter_map(Result::err).collect()
    }

    /// The value that is to be a `what`.
    pub(crate) fn secret(&self, reference: &SecretKeyRef, what: &str) -> Result<Password, String> {
        let SecretKeyRef { name, key } = reference;
        let Some(secret) = self.secrets.get(name) else {
            return Err(format!("there is no Secret {name} that weftd may read"));
        };
        let Some(value) = secret.values.get(key) else {
            let keys: BTreeSet<&str> = secret.values.keys().map(String::as_str).collect();
            let keys = keys.into_iter().take(5).collect::<Vec<_>>().join(", ");
            let keys = if keys.is_empty() { "nothing".to_owned() } else { keys };
            return Err(format!("the Secret {name} has no {key}: it has {keys}"));
        };
        Password::new(value).map_err(|why| format!("the {what} {key} of the Secret {name} {why}"))
    }
}
