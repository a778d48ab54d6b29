//! How many connections others may open.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Accepted connections at one time, those that are closing included.
const TOTAL_MAX: usize = 4096;

/// Of these, from one address: the session, a collision, a reconnect, and a few that linger.
const PER_ADDRESS_MAX: usize = 16;

/// How many addresses are remembered before those without connections are forgotten.
const ADDRESSES_MAX: usize = 1024;

/// Counts the accepted connections, in all and by address.
#[derive(Debug)]
pub(super) struct Limits {
    total: Arc<Semaphore>,
    by_address: BTreeMap<IpAddr, Arc<Semaphore>>,
}

/// The right to one accepted connection; held by its task until the socket is closed.
#[derive(Debug)]
pub(super) struct Permit {
    _total: OwnedSemaphorePermit,
    _address: OwnedSemaphorePermit,
}

impl Limits {
    pub(super) fn new() -> Self {
        Self { total: Arc::new(Semaphore::new(TOTAL_MAX)), by_address: BTreeMap::new() }
    }

    /// A place for a connection from this address, if there is one.
    pub(super) fn admit(&mut self, address: IpAddr) -> Option<Permit> {
        if self.by_address.len() >= ADDRESSES_MAX {
            self.by_address.retain(|_, places| places.available_permits() < PER_ADDRESS_MAX);
        }
        let places =
            self.by_address.entry(address).or_insert_with(|| Arc::new(Semaphore::new(PER_ADDRESS_MAX)));
        let address = Arc::clone(places).try_acquire_owned().ok()?;
        let total = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(Permit { _total: total, _address: address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_every_place() {
        let mut limits = Limits::new();
        let (greedy, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let held: Vec<_> = (0..PER_ADDRESS_MAX).map(|_| limits.admit(greedy).unwrap()).collect();
        assert!(limits.admit(greedy).is_none());
        assert!(limits.admit(other).is_some());
        drop(held);
        assert!(limits.admit(greedy).is_some());
    }

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let mut limits = Limits::new();
        let kept = limits.admit([10, 0, 0, 1].into()).unwrap();
        for n in 0..10_000_u32 {
            assert!(limits.admit(std::net::Ipv4Addr::from(0x0b00_0000 + n).into()).is_some());
        }
        assert!(limits.by_address.len() <= ADDRESSES_MAX);
        assert!(limits.by_address.contains_key(&IpAddr::from([10, 0, 0, 1])));
        drop(kept);
    }
}
