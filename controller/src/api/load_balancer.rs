//! Which Service has which LoadBalancer address.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many Services may share an address.
pub const SHARED_MAX: usize = 64;

/// That an address is given to Services. It is named after the address, so that the API server itself refuses to give one twice.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weft.network",
    version = "v1alpha1",
    kind = "LoadBalancerIP",
    doc = "An address and the Services that have it: written by weft-controller, under the address' name.",
    plural = "loadbalancerips",
    shortname = "lbip",
    category = "weft",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".spec.address"}"#,
    printcolumn = r#"{"name":"Namespaces","type":"string","jsonPath":".spec.services[*].namespace"}"#,
    printcolumn = r#"{"name":"Services","type":"string","jsonPath":".spec.services[*].name"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerIPSpec {
    /// The address.
    #[schemars(length(max = 45))]
    pub address: String,
    /// The Services that have it or are about to, in the order in which they came; none: it rests.
    #[serde(default)]
    #[schemars(length(max = SHARED_MAX))]
    pub services: Vec<LoadBalancerIPHolder>,
}

/// A Service that has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerIPHolder {
    /// Its Namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its `metadata.uid`: one that is made anew is another.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The `metadata.resourceVersion` in which the address may be written into its status. Once the Service has another, no write
    /// that is still under way can succeed.
    #[schemars(length(max = 64))]
    pub resource_version: String,
}
