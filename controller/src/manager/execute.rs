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
            outcome(made, is_there_already).with_context(|| format!("cannot make IPBlock {name}"))
        }
        Change::Close { name } => {
            let Some(live) = live(&blocks, name, before).await? else { return Ok(Outcome::Overtaken) };
            let spec = IPBlockSpec { closed: true, ..live.spec.clone() };
            let closed = blocks.replace(name, &PostParams::default(), &IPBlock { spec, ..live }).await;
            outcome(closed, is_overtaken).with_context(|| format!("cannot close IPBlock {name}"))
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
            outcome(deleted, is_overtaken).with_context(|| format!("cannot delete IPBlock {name}"))
        }
    }
}

/// Deletes the BGPNodeStatus of a node that is gone.
pub(super) async fn forget_node(client: &Client, node: &str) -> Result<()> {
    let objects: Api<BGPNodeStatus> = Api::all(client.clone());
    let Some(live) = objects.get_opt(node).await.context("cannot get it")? else { return Ok(()) };
    let deleted = objects.delete(node, &precisely(live.metadata.uid, live.metadata.resource_version)).await;
    outcome(deleted, is_overtaken).map(drop).with_context(|| format!("cannot delete BGPNodeStatus {node}"))
}

/// The object as it is, if it says what it was taken to say.
async fn live(blocks: &Api<IPBlock>, name: &str, before: Option<&IPBlockSpec>) -> Result<Option<IPBlock>> {
    let live = blocks.get_opt(name).await.with_context(|| format!("cannot get IPBlock {name}"))?;
    Ok(live.filter(|live| Some(&live.spec) == before))
}

fn precisely(uid: Option<String>, resource_version: Option<String>) -> DeleteParams {
    DeleteParams { preconditions: Some(Preconditions { uid, resource_version }), ..DeleteParams::default() }
}

fn outcome<T>(result: kube::Result<T>, overtaken: fn(&kube::Error) -> bool) -> Result<Outcome> {
    Ok(made_unless(result, overtaken)?.map_or(Outcome::Overtaken, |_| Outcome::Made))
}

/// What a write made; nothing where it was refused for a reason of which there will be news.
pub(super) fn made_unless<T>(
    result: kube::Result<T>,
    overtaken: fn(&kube::Error) -> bool,
) -> Result<Option<T>> {
    match result {
        Ok(made) => Ok(Some(made)),
        Err(error) if overtaken(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a write of an object was refused as it is not what it was taken for.
pub(super) fn is_overtaken(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if [NOT_FOUND, CONFLICT].contains(&status.code))
}

/// Whether an object was not made as there is one. Here 404 is an error: it is the kind that is not there.
pub(super) fn is_there_already(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == CONFLICT)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_is_not_found_is_overtaken_only_if_it_was_there() {
        let answer = |code| {
            let status = Status::failure("no", "No").with_code(code);
            Err::<(), _>(kube::Error::Api(status.boxed()))
        };
        for (code, written, created) in [(404, true, false), (409, true, true), (403, false, false)] {
            let is = |outcome: Result<Outcome>| outcome.is_ok_and(|outcome| outcome == Outcome::Overtaken);
            assert_eq!(is(outcome(answer(code), is_overtaken)), written, "{code}");
            assert_eq!(is(outcome(answer(code), is_there_already)), created, "{code}");
        }
        assert_eq!(outcome(Ok(()), is_there_already).unwrap(), Outcome::Made);
    }
}
