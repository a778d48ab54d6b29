//! The session, without sockets and in virtual time: two `Ingress` against each other, and one against a peer played by hand.

mod collision;
mod establish;
mod hostile;
mod pair;
mod restart;
mod solo;
mod timers;
