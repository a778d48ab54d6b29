//! What a weftd writes to the API server: its own objects only.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::api::{BGPNodeStatus, BGPNodeStatusSpec, IPBlock, NodeReport};
use crate::documents::Version;

/// The taint that keeps pods away until the node's network is up, for who uses it.
const NOT_READY_TAINT: &str = "weft.network/agent-not-ready";
/// The condition that the scheduler goes by.
const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";
const REASON: &str = "WeftIsUp";
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// Writes on behalf of one node.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    node: String,
}

impl Writer {
    pub(crate) fn new(client: Client, node: &str) -> Self {
        Self { client, node: node.to_owned() }
    }

    /// Puts the report into the node's BGPNodeStatus, which is made where it is missing.
    pub(crate) async fn write_report(&self, report: &NodeReport) -> Result<()> {
        let objects: Api<BGPNodeStatus> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "status": report }));
        match objects.patch_status(&self.node, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(error)) if error.code == NOT_FOUND => {}
            written => return written.map(drop).context("cannot change it"),
        }
        let new = BGPNodeStatus::new(&self.node, BGPNodeStatusSpec {});
        objects.create(&PostParams::default(), &new).await.context("cannot make it")?;
        objects
            .patch_status(&self.node, &PatchParams::default(), &patch)
            .await
            .context("cannot change it")?;
        Ok(())
    }

    /// Tells the Node that its network is up, and takes the taint off that says it is not.
    pub(crate) async fn tell_node(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let mut node = nodes.get(&self.node).await.context("cannot get it")?;
        let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        if !conditions.any(is_up) {
            let now = Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string();
            let up = json!({"type": NETWORK_UNAVAILABLE, "status": "False", "reason": REASON, "message": "weftd has converged",
                "lastHeartbeatTime": now, "lastTransitionTime": now});
            let patch = Patch::Strategic(json!({ "status": { "conditions": [up] } }));
            let patched = nodes.patch_status(&self.node, &PatchParams::default(), &patch).await;
            node = patched.context("cannot set the condition")?;
        }
        let taints: Vec<Taint> = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let rest: Vec<&Taint> = taints.iter().filter(|taint| taint.key != NOT_READY_TAINT).collect();
        if rest.len() < taints.len() {
            // Compare and set: a taint that somebody adds meanwhile must not be lost.
            let version = node.metadata.resource_version;
            let patch = Patch::Merge(
                json!({ "metadata": { "resourceVersion": version }, "spec": { "taints": rest } }),
            );
            nodes
                .patch(&self.node, &PatchParams::default(), &patch)
                .await
                .context("cannot take the taint off")?;
        }
        Ok(())
    }

    /// Gives up a block, if its IPBlock is still in this state; else there will be news of it.
    pub(crate) async fn give_up(&self, name: &str, version: &Version) -> Result<()> {
        let blocks: Api<IPBlock> = Api::all(self.client.clone());
        let patch = json!({
            "metadata": { "resourceVersion": version.resource_version },
            "status": { "releasedGeneration": version.generation },
        });
        match blocks.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(error)) if [NOT_FOUND, CONFLICT].contains(&error.code) => Ok(()),
            written => written.map(drop).context("cannot change its status"),
        }
    }
}

fn is_up(condition: &NodeCondition) -> bool {
    condition.type_ == NETWORK_UNAVAILABLE
        && condition.status == "False"
        && condition.reason.as_deref() == Some(REASON)
}
