//! What people and programs write and read: the resource types of group `weft.network/v1alpha1` and the JSON of the socket.
//!
//! The resource types are typed to the last field: a CIDR is a [`Cidr`], a selector a [`Selector`]. What deserializes is
//! well-formed; what is well-formed but makes no sense beside the other objects is found by [`crate::documents`].

mod bfd;
mod bgp;
mod bmp;
pub mod clear;
mod crds;
mod error;
mod ip;
pub mod ipam;
pub mod json;
mod load_balancer;
mod mrt;
mod node_status;
pub mod peer_detail;
mod policy;
mod resilient;
mod selector;
mod services;
mod status;
mod values;

pub use bfd::*;
pub use bgp::*;
pub use bmp::*;
pub use crds::crds;
pub use error::Invalid;
pub use ip::*;
pub use load_balancer::*;
pub use mrt::*;
pub use node_status::*;
pub use policy::*;
pub use resilient::*;
pub use selector::{Labels, Selector};
pub use services::*;
pub use status::*;
pub use values::*;

/// The API group of every resource that Weft defines.
pub const GROUP: &str = "weft.network";

/// The version of the group.
pub const VERSION: &str = "v1alpha1";

/// Taints of a Node by which it is drained, whatever their values and effects: Weft's own, and Kubernetes' for nodes that are shut
/// down.
pub const DRAIN_TAINTS: [&str; 3] =
    ["weft.network/drain", "node.kubernetes.io/out-of-service", "node.cloudprovider.kubernetes.io/shutdown"];

/// A Node with this label set to `"false"` is in no node-to-node mesh.
pub const MESH_LABEL: &str = "weft.network/mesh";
