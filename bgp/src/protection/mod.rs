//! What a session asks of its sockets so that nobody else can pass for the peer: that segments are signed, by TCP-MD5 (RFC 2385) or
//! TCP-AO (RFC 5925), and that the peer is near (GTSM, RFC 5082).

pub mod ao;

use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;

use self::ao::KeyChain;

/// A password that segments are signed with. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<[u8]>);

impl Password {
    /// The longest that the kernel takes, in octets (`TCP_MD5SIG_MAXKEYLEN`).
    pub const MAX: usize = 80;

    /// The password of these octets.
    ///
    /// # Errors
    /// What is wrong with them, without a word of what they are.
    pub fn new(octets: &[u8]) -> Result<Self, String> {
        match octets {
            [] => Err("is empty".into()),
            [.., b'\n' | b'\r'] => Err("ends with a line break, which is no part of a password".into()),
            _ if octets.len() > Self::MAX => {
                Err(format!("has {} octets, and the kernel takes {} at most", octets.len(), Self::MAX))
            }
            _ => Ok(Self(octets.into())),
        }
    }

    /// The octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What segments are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// TCP-MD5 (RFC 2385).
    Md5(Password),
    /// TCP-AO (RFC 5925).
    Ao(KeyChain),
}

/// How the ends of a session know each other beside their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// Not at all.
    #[default]
    None,
    /// Every segment is signed.
    Signed(Signature),
    /// By something that is not to be had: the session stays down, and this says why.
    Unavailable(String),
}

impl Authentication {
    /// What segments are signed with.
    #[must_use]
    pub fn signature(&self) -> Option<&Signature> {
        match self {
            Self::Signed(signature) => Some(signature),
            Self::None | Self::Unavailable(_) => None,
        }
    }

    /// The keys that a session with those of `before` goes on with; none: it cannot ([`KeyChain::staying`]).
    #[must_use]
    pub fn rollover(&self, before: &Self) -> Option<&KeyChain> {
        match (before, self) {
            (Self::Signed(Signature::Ao(before)), Self::Signed(Signature::Ao(now))) => {
                now.staying(before).map(|_| now)
            }
            _ => None,
        }
    }
}

/// What the socket of a session is to have before anything is said or believed on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// What segments are signed with.
    pub signature: Option<Signature>,
    /// How many hops away the peer is at most, if that is checked; 1: on the link.
    pub ttl_security: Option<NonZeroU8>,
}

/// What is said of a peer that leaves a dial without an answer.
pub const NO_ANSWER: &str = "no answer";

impl Protection {
    /// Why a peer that is there may not answer: what is to be said behind [`NO_ANSWER`].
    #[must_use]
    pub fn silence(&self) -> &'static str {
        match (&self.signature, self.ttl_security) {
            (Some(Signature::Md5(_)), _) => ": most often the other end has another password, or none",
            (Some(Signature::Ao(_)), _) => {
                ": most often the other end does not have the first of the TCP-AO keys, or has none"
            }
            (None, Some(_)) => {
                ": most often the other end is farther away than ttlSecurity, or does not send with a TTL of 255"
            }
            (None, None) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_has_1_to_80_octets_and_is_never_shown() {
        for (octets, fault) in [
            (&b""[..], "is empty"),
            (&[b'x'; 81], "has 81 octets, and the kernel takes 80 at most"),
            (b"secret\n", "ends with a line break, which is no part of a password"),
        ] {
            assert_eq!(Password::new(octets).map(|_| ()), Err(fault.to_owned()));
        }
        let password = Password::new(&[b'x'; 80]).unwrap();
        let shown = format!("{:?} {:?}", password, Authentication::Signed(Signature::Md5(password.clone())));
        assert!(!shown.contains('x') && !shown.contains("120"), "{shown}");
    }
}
