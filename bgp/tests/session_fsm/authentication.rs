//! What a session signs with changes.

use weft_bgp::ingress::{IngressInput, IngressOutput};
use weft_bgp::protection::ao::{Key, KeyChain};
use weft_bgp::protection::{Authentication, Password, Signature};
use weft_bgp::session::State;
use weft_bgp::types::ConnectionId;

use crate::pair::peer_config;
use crate::solo::{Solo, open};

pub(crate) fn md5(password: &str) -> Authentication {
    Authentication::Signed(Signature::Md5(Password::new(password.as_bytes()).unwrap()))
}

/// Keys by their ID, the same both ways, and their secret.
pub(crate) fn ao(keys: &[(u8, &str)]) -> Authentication {
    let key = |(id, secret): &(u8, &str)| Key {
        send_id: *id,
        receive_id: *id,
        algorithm: <_>::default(),
        secret: Password::new(secret.as_bytes()).unwrap(),
    };
    Authentication::Signed(Signature::Ao(KeyChain::new(keys.iter().map(key).collect()).unwrap()))
}

fn configure(solo: &mut Solo, authentication: Authentication) {
    let mut config = peer_config(65001, 65002);
    config.authentication = authentication;
    solo.input(IngressInput::Configure(config.into()));
}

fn established(authentication: Authentication) -> (Solo, ConnectionId) {
    let mut config = peer_config(65001, 65002);
    config.authentication = authentication;
    Solo::established(config, open())
}

#[test]
fn a_changed_password_is_told_and_begins_the_session_anew() {
    for (before, now) in [
        (Authentication::None, md5("secret")),
        (md5("secret"), md5("another")),
        (md5("secret"), ao(&[(1, "secret")])),
        (ao(&[(1, "secret")]), ao(&[(1, "another")])),
        (ao(&[(1, "secret")]), ao(&[(2, "secret")])),
        (ao(&[(1, "secret")]), Authentication::None),
    ] {
        let (mut solo, _) = established(before);
        configure(&mut solo, now);
        assert_eq!(solo.ingress.last_error().expect("an error").text, "the password has changed");
        assert_ne!(solo.ingress.state(), State::Established);
        assert_eq!(solo.count(|output| matches!(output, IngressOutput::RollOver { .. })), 0);
    }
}

/// Proves RFC 5925.
#[test]
fn a_session_goes_on_with_other_keys_of_tcp_ao_if_one_stays() {
    let (mut solo, established) = established(ao(&[(1, "old")]));
    for keys in [&[(1, "old"), (2, "new")][..], &[(2, "new"), (1, "old")], &[(2, "new")]] {
        configure(&mut solo, ao(keys));
        let Authentication::Signed(Signature::Ao(wanted)) = ao(keys) else { unreachable!() };
        let rolled_over = |output: &IngressOutput| match output {
            IngressOutput::RollOver { connection, keys } => *connection == established && *keys == wanted,
            _ => false,
        };
        assert_eq!(solo.count(rolled_over), 1, "{keys:?}");
    }
    assert_eq!(solo.ingress.state(), State::Established);
    assert_eq!(solo.count(|output| matches!(output, IngressOutput::Down(_))), 0);
}

/// Proves RFC 5925.
#[test]
fn a_dial_with_the_keys_of_before_is_begun_anew() {
    let mut config = peer_config(65001, 65002);
    config.authentication = ao(&[(1, "old")]);
    let mut solo = Solo::new(config);
    let dials = |solo: &Solo| solo.count(|output| matches!(output, IngressOutput::Dial { .. }));
    let closed = |solo: &Solo| solo.count(|output| matches!(output, IngressOutput::Close { .. }));
    assert_eq!((dials(&solo), closed(&solo)), (1, 0));
    configure(&mut solo, ao(&[(2, "new"), (1, "old")]));
    assert_eq!((dials(&solo), closed(&solo)), (2, 1));
}
