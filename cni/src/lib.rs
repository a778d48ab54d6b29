//! The CNI plugin: a pod's link, addresses and routes, and the crash-safe store of addresses.
//!
//! - [`spec`]: what the CNI specification says goes in and out: configuration, environment, results, errors.
//! - [`node`]: `node.json`, what weftd tells the plugin about this node.
//! - [`ipam`]: allocation of addresses inside the node's blocks, and the store that remembers them.
//! - [`datapath`]: the link, addresses, routes and neighbours of one pod.
//! - [`plugin`]: the commands ADD, DEL, CHECK, GC, STATUS and VERSION.
//!
//! weftd links this crate for [`node`] and [`ipam`]; the binary `weft-cni` runs [`plugin`].
//!
//! The plugin is synchronous, and its one thread enters the pod's network namespace and comes back. It works while
//! weftd is down: `node.json` is its only source and the store its only memory.

pub mod datapath;
mod hash;
pub mod ipam;
pub mod mac;
pub mod node;
pub mod plugin;
pub mod spec;
