//! The Linux kernel's routes, links and neighbours, as values kept in step.
//!
//! Knows nothing of BGP or Kubernetes. Synchronous: what must not block a caller runs on an OS thread of its
//! own.

pub mod netlink;
pub mod netns;
pub mod route;
pub mod sysctl;
