//! Changes of IPBlocks, carried out at the API server: each only if the object is what it was taken for.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};

use crate::api::{BGPNodeStatus, IPBlock, IPBlockSpec};
use crate::blocks::Change;

const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is made.
    Made,
    /// The object is not what it was taken for: there will be news of it.
    Overtaken,
}

/// Makes a change of an IPBlock that was taken to say `before`.
pub(super) async fn execute(
    client: &Client,
    change: &Change,
    before: Option<&IPBlockSpec>,
) -> Result<Outcome> {
    let blocks: Api<IPBlock> = Api::all(client.clone());
    match change {
        Change::Give { name, spec } => {
            let made = blocks.create(&PostParams::default(), &IPBlock::new(name, spec.clone())).await;
            outcome(made).with_context(|| format!("cannot make IPBlock {name}"))
        }
        Change::Close { name } => {
            let Some(live) = live(&blocks, name, before).await? else { return Ok(Outcome::Overtaken) };
            let spec = IPBlockSpec { closed: true, ..live.spec.clone() };
            let closed = blocks.replace(name, &PostParams::default(), &IPBlock { spec, ..live }).await;
            outcome(closed).with_context(|| format!("cannot close IPBlock {name}"))
        }
        Change::Return { name, orphaned } => {
            let Some(live) = live(&blocks, name, before).await? else { return Ok(Outcome::Overtaken) };
            let released = live.status.as_ref().and_then(|status| status.released_generation);
            if !orphaned && (!live.spec.closed || released.is_none() || released != live.metadata.generation)
            {
                return Ok(Outcome::Overtaken);
            }
            if *orphaned {
                let nodes: Api<Node> = Api::all(client.clone());
                let node = nodes.get_metadata_opt(&live.spec.node).await;
                if node.with_context(|| format!("cannot get Node {}", live.spec.node))?.is_some() {
                    return Ok(Outcome::Overtaken);
                }
            }
            let deleted =
                blocks.delete(name, &precisely(live.metadata.uid, live.metadata.resource_version)).await;
            outcome(deleted).with_context(|| format!("cannot delete IPBlock {name}"))
        }
    }
}

/// Deletes the BGPNodeStatus of a node that is gone.
pub(super) async fn forget_node(client: &Client, node: &str) -> Result<()> {
    let objects: Api<BGPNodeStatus> = Api::all(client.clone());
    let Some(live) = objects.get_opt(node).await.context("cannot get it")? else { return Ok(()) };
    let deleted = objects.delete(node, &precisely(live.metadata.uid, live.metadata.resource_version)).await;
    outcome(deleted).map(drop).with_context(|| format!("cannot delete BGPNodeStatus {node}"))
}

/// The object as it is, if it says what it was taken to say.
async fn live(blocks: &Api<IPBlock>, name: &str, before: Option<&IPBlockSpec>) -> Result<Option<IPBlock>> {
    let live = blocks.get_opt(name).await.with_context(|| format!("cannot get IPBlock {name}"))?;
    Ok(live.filter(|live| Some(&live.spec) == before))
}

fn precisely(uid: Option<String>, resource_version: Option<String>) -> DeleteParams {
    DeleteParams { preconditions: Some(Preconditions { uid, resource_version }), ..DeleteParams::default() }
}

fn outcome<T>(result: kube::Result<T>) -> Result<Outcome> {
    match result {
        Ok(_) => Ok(Outcome::Made),
        Err(error) if is_overtaken(&error) => Ok(Outcome::Overtaken),
        Err(error) => Err(error.into()),
    }
}

/// Whether a write was refused as the object is not what it was taken for.
pub(super) fn is_overtaken(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if [NOT_FOUND, CONFLICT].contains(&status.code))
}
