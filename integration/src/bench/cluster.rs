//! What a large cluster costs a weftd: a real API server with generated objects, and one node that follows them.

use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::daemon::Family;
use crate::documents;
use crate::kubernetes::ControlPlane;
use crate::lab::Lab;
use crate::lan::{Lan, LanSpec};
use crate::netns::Namespace;
use crate::node::Node;
use crate::wait::{now, wait_until};

/// How many writes are under way at once.
const AT_ONCE: usize = 32;
/// How long weftd may take to have read everything, on a busy machine.
const START: Duration = Duration::from_secs(120);
/// How many Nodes change their labels, and within which time they do in each round.
const CHANGES: usize = 1000;
const ROUNDS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(60)];
/// Endpoints of each Service: with 10,000 Services 150,000 pods.
const ENDPOINTS: usize = 15;
/// After this time without using the processor weftd is done.
const QUIET: Duration = Duration::from_secs(5);
/// Names of images on a Node, as a kubelet tells them.
const IMAGES: usize = 40;

/// How large the cluster is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Services.
    pub services: usize,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Report {
    size: Size,
    /// Seconds until everything was read, and seconds of the processor.
    start: (f64, f64),
    /// Bytes that are resident, and the most there were.
    resident: (u64, u64),
    /// Seconds of the processor for [`CHANGES`] changed Nodes, for each of [`ROUNDS`].
    changes: Vec<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size { nodes, services } = self.size;
        writeln!(
            f,
            "{nodes} Nodes with a block each, {services} Services with {} endpoints",
            services * ENDPOINTS
        )?;
        let (seconds, processor) = self.start;
        writeln!(f, "start: {seconds:.1} s, of the processor {processor:.2} s")?;
        let megabytes = |bytes: u64| bytes / 1_000_000;
        let (resident, most) = self.resident;
        writeln!(f, "resident: {} MB, at most {} MB (goal: 150)", megabytes(resident), megabytes(most))?;
        for (processor, time) in self.changes.iter().zip(ROUNDS) {
            writeln!(
                f,
                "{CHANGES} Nodes change within {time:?}: {processor:.2} s of the processor (goal: 1)"
            )?;
        }
        Ok(())
    }
}

/// Measures.
///
/// # Errors
/// If the API server is not there, or refuses something.
pub fn run(lab: &Lab, size: Size) -> Result<Report> {
    let mut lan = Lan::build(lab, LanSpec { nodes: vec![1], families: vec![Family::V4], pods_per_node: 0 })?;
    let (plane, _) = ControlPlane::beside(lab, &lan)?;
    let machine = plane.namespace().clone();
    plane.apply(&[
        documents::bgp_configuration(&json!({
            "asNumber": 64512, "nodeToNodeMeshEnabled": false, "podCIDRSource": "IPPool",
            "serviceClusterIPs": [{"cidr": "10.96.0.0/16"}],
        })),
        documents::resource("IPPool", "pods", &json!({"cidr": "11.0.0.0/8"})),
        documents::resource("BGPPeer", "tor", &json!({"peerIP": "10.2.0.254", "asNumber": 65000})),
    ])?;
    let node = &mut lan.nodes[0];
    plane.add_node(&documents::node(&node.name, &[], &[], &node.addresses))?;
    plane.apply(&[documents::resource(
        "IPBlock",
        "own",
        &json!({"cidr": "11.255.255.0/26", "node": node.name}),
    )])?;
    in_namespace(&machine, &plane, async |client| fill(client, size).await)?;

    node.weft.set_kubeconfig(&plane.kubeconfig_of("weftd", Some(&node.name))?);
    let started = now();
    node.weft.start()?;
    wait_until("weftd to have read everything", START, || {
        let services: Vec<Value> = node.weft.json("services")?;
        ensure!(services.len() > size.services, "{} prefixes of Services", services.len());
        Ok(())
    })?;
    let start = (started.elapsed().as_secs_f64(), processor(node)?);
    let mut changes = Vec::new();
    for (round, time) in ROUNDS.into_iter().enumerate() {
        let before = settled(node)?;
        in_namespace(&machine, &plane, async |client| change(client, size, round, time).await)?;
        changes.push(settled(node)? - before);
    }
    Ok(Report { size, start, resident: (memory(node, "VmRSS")?, memory(node, "VmHWM")?), changes })
}

/// Does something with the API server, from its own machine.
fn in_namespace(
    machine: &Namespace,
    plane: &ControlPlane,
    work: impl AsyncFnOnce(Client) -> Result<()> + Send,
) -> Result<()> {
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig())?;
    machine.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            work(Client::try_from(config)?).await
        })
    })?
}

fn api(
    client: &Client,
    group: &str,
    kind: &str,
    plural: &str,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let version = if group == "weft.network" { "v1alpha1" } else { "v1" };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

async fn fill(client: Client, size: Size) -> Result<()> {
    let nodes = api(&client, "", "Node", "nodes", None);
    create(&nodes, size.nodes, node).await?;
    let statuses = (0..size.nodes).map(|index| {
        let (nodes, status) = (&nodes, Patch::Merge(node_status(index)));
        async move { nodes.patch_status(&node_name(index), &PatchParams::default(), &status).await.map(drop) }
    });
    let written = stream::iter(statuses).buffer_unordered(AT_ONCE).try_collect::<()>().await;
    written.context("cannot write a Node's status")?;
    create(&api(&client, "weft.network", "IPBlock", "ipblocks", None), size.nodes, block).await?;
    let services = api(&client, "", "Service", "services", Some("default"));
    create(&services, size.services, service).await?;
    let slices = api(&client, "discovery.k8s.io", "EndpointSlice", "endpointslices", Some("default"));
    create(&slices, size.services, |index| slice(index, size.nodes)).await
}

async fn create(api: &Api<DynamicObject>, count: usize, make: impl Fn(usize) -> Value) -> Result<()> {
    let writes = (0..count).map(|index| {
        let object = serde_json::from_value::<DynamicObject>(make(index));
        async move {
            let object = object?;
            api.create(&PostParams::default(), &object).await.context("cannot make an object")?;
            anyhow::Ok(())
        }
    });
    stream::iter(writes).buffer_unordered(AT_ONCE).try_collect().await
}

fn octets(index: usize) -> [u8; 2] {
    let [.., high, low] = u32::try_from(index).unwrap_or_default().to_be_bytes();
    [high, low]
}

fn node_name(index: usize) -> String {
    format!("node-{index}")
}

/// The first addresses of its block.
fn base(index: usize) -> String {
    let [high, low] = octets(index * 4);
    format!("11.{high}.{low}")
}

fn node(index: usize) -> Value {
    let labels = json!({"rack": format!("r{}", index / 40), "kubernetes.io/hostname": node_name(index)});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node_name(index), "labels": labels}})
}

/// As large as a kubelet makes it.
fn node_status(index: usize) -> Value {
    let [high, low] = octets(index);
    let images: Vec<Value> = (0..IMAGES)
        .map(|image| {
            let name = format!("registry.example.com/team-{image}/application");
            let digest = format!("{name}@sha256:{index:032x}{image:032x}");
            json!({"names": [digest, format!("{name}:v1.{image}.{index}")], "sizeBytes": 100_000_000})
        })
        .collect();
    let condition = |kind: &str, status: &str| {
        let time = "2026-01-01T00:00:00Z";
        json!({"type": kind, "status": status, "reason": format!("Kubelet{kind}"), "message": format!("kubelet tells of {kind}"),
            "lastHeartbeatTime": time, "lastTransitionTime": time})
    };
    let pressures = ["MemoryPressure", "DiskPressure", "PIDPressure"].map(|kind| condition(kind, "False"));
    let conditions: Vec<Value> = pressures.into_iter().chain([condition("Ready", "True")]).collect();
    let address = json!([{"type": "InternalIP", "address": format!("10.3.{high}.{low}")}]);
    json!({"status": {"addresses": address, "conditions": conditions, "images": images}})
}

fn block(index: usize) -> Value {
    let base = base(index);
    json!({
        "apiVersion": "weft.network/v1alpha1", "kind": "IPBlock", "metadata": {"name": format!("{base}.0-26")},
        "spec": {"cidr": format!("{base}.0/26"), "node": node_name(index)},
    })
}

fn service(index: usize) -> Value {
    let selector = json!({"app": format!("service-{index}")});
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("service-{index}"), "labels": selector},
        "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

fn slice(index: usize, nodes: usize) -> Value {
    let service = format!("service-{index}");
    let endpoints: Vec<Value> = (0..ENDPOINTS)
        .map(|endpoint| {
            let node = (index * ENDPOINTS + endpoint) % nodes.max(1);
            json!({"addresses": [format!("{}.{}", base(node), endpoint + 1)], "nodeName": node_name(node),
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("{service}-7d4b9c6f5-{endpoint:05}")}})
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
        "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

/// Changes a label of [`CHANGES`] Nodes, evenly within a time.
async fn change(client: Client, size: Size, round: usize, time: Duration) -> Result<()> {
    let nodes = api(&client, "", "Node", "nodes", None);
    let began = now();
    for index in 0..CHANGES {
        let due = time.mul_f64(index as f64 / CHANGES as f64);
        sleep(due.saturating_sub(began.elapsed())).await;
        let patch = json!({"metadata": {"labels": {"round": format!("{round}-{index}")}}});
        let name = node_name(index % size.nodes.max(1));
        nodes
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .context("cannot change a Node")?;
    }
    Ok(())
}

fn id(node: &mut Node) -> Result<u32> {
    Ok(node.weft.process().as_ref().context("weftd does not run")?.id())
}

/// Seconds of the processor that weftd has used so far (proc_pid_stat(5)).
fn processor(node: &mut Node) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", id(node)?))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime are the 14th and 15th of all; the first two are before the parenthesis. A tick is 10 ms.
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}

/// The same, once it has come to rest: what it does anyway in that time does not count.
fn settled(node: &mut Node) -> Result<f64> {
    wait_until("weftd to come to rest", START, || {
        let before = processor(node)?;
        std::thread::sleep(QUIET);
        let used = processor(node)? - before;
        ensure!(used < 0.05, "{used:.2} s used within {QUIET:?}");
        Ok(())
    })?;
    processor(node)
}

fn memory(node: &mut Node, what: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", id(node)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let kib: u64 =
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("no such line")?;
    Ok(kib * 1024)
}
