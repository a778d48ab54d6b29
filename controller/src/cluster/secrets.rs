//! What Weft knows of Secrets: the values by key, which are never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use weft_bgp::protection::{Authentication, Password};

use super::Cluster;
use crate::api::SecretKeyRef;

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

impl Cluster {
    /// How sessions know each other that have the password of this Secret.
    #[must_use]
    pub fn authentication(&self, reference: &SecretKeyRef) -> Authentication {
        let SecretKeyRef { name, key } = reference;
        let Some(secret) = self.secrets.get(name) else {
            return Authentication::Unavailable(format!("there is no Secret {name} that weftd may read"));
        };
        let Some(value) = secret.values.get(key) else {
            let keys: BTreeSet<&str> = secret.values.keys().map(String::as_str).collect();
            let keys = keys.into_iter().take(5).collect::<Vec<_>>().join(", ");
            let keys = if keys.is_empty() { "nothing".to_owned() } else { keys };
            return Authentication::Unavailable(format!("the Secret {name} has no {key}: it has {keys}"));
        };
        match Password::new(value) {
            Ok(password) => Authentication::Md5(password),
            Err(why) => Authentication::Unavailable(format!("the password {key} of the Secret {name} {why}")),
        }
    }
}
