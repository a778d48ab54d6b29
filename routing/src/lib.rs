//! The Linux kernel's routes, links and neighbours, as values kept in step.
//!
//! Knows nothing of BGP or Kubernetes. Synchronous: what must not block a caller runs on an OS thread of its
//! own.

pub mod delta;
pub mod fib;
mod kernel;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod resolve;
pub mod route;
pub mod sync;
pub mod sysctl;

pub use self::kernel::{Error, Kernel, cleanup};
pub use self::resolve::{NextHopRef, Resolution};
pub use self::sync::{Counters, Engine, Event, FibEntry, PodRoute, RouteChange, Settings};
