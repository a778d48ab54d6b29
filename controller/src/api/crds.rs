//! The resource types as Kubernetes wants them described.

use kube::CustomResourceExt;

use super::{BGPConfiguration, BGPFilter, BGPPeer, IPBlock, IPPool};

/// The CustomResourceDefinitions of every kind, as YAML documents in order of their names.
///
/// # Errors
/// A schema that cannot be written as YAML; a test proves that there is none.
pub fn crds() -> Result<String, serde_yaml::Error> {
    let mut text =
        String::from("# Generated from the types in controller/src/api by `make crds`. Do not edit.\n");
    for crd in [BGPConfiguration::crd(), BGPFilter::crd(), BGPPeer::crd(), IPBlock::crd(), IPPool::crd()] {
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(&crd)?);
    }
    Ok(text)
}
