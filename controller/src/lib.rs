//! Everything that knows the cluster: the documents people write, the plan made from them, the daemon that carries it out
//! and the command line that asks about it.
//!
//! ```text
//! files or Kubernetes → documents → Cluster → plan(cluster, node, host) → NodePlan → daemon → speaker, routing, weft-cni
//! ```

pub mod api;
pub mod blocks;
pub mod cluster;
pub mod ctl;
pub mod daemon;
pub mod documents;
mod kubernetes;
pub mod load_balancer;
mod log;
pub mod manager;
pub mod plan;
