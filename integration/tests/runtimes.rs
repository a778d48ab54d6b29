//! Real containers: Debian's containerd and podman call `weft-cni`, with portmap chained behind it.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::node::Node;
use weft_integration::runtime::{Containerd, Host, HostPort, Podman, Runtime, SERVED, write_image};
use weft_integration::wait::wait_until;

/// How soon nodes that just started know each other's blocks.
const CONVERGENCE: Duration = Duration::from_secs(20);

/// A node's runtimes.
struct Machine {
    containerd: Containerd,
    podman: Podman,
    host: Rc<Host>,
}

impl Machine {
    fn runtimes(&self) -> [&dyn Runtime; 2] {
        [&self.containerd, &self.podman]
    }

    fn runtimes_mut(&mut self) -> [&mut dyn Runtime; 2] {
        [&mut self.containerd, &mut self.podman]
    }
}

/// Two nodes that speak with each other, whose pods go to the outside under their node's address.
struct Site {
    machines: Vec<Machine>,
    lan: Lan,
}

impl Site {
    fn test(body: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        Lab::test(|lab| {
            let mut site = Self::up(lab)?;
            body(&mut site)?;
            site.lan.nodes.iter().zip(&site.machines).try_for_each(|(node, machine)| {
                nothing_left(node, &machine.host).with_context(|| format!("on {}", node.name))
            })
        })
    }

    fn up(lab: &Lab) -> Result<Self> {
        let spec = LanSpec { nodes: vec![2], families: Family::BOTH.to_vec(), pods_per_node: 0 };
        let mut lan = Lan::build(lab, spec)?;
        let pools = Family::BOTH.map(|family| {
            let mut pool = documents::pod_pool(family);
            pool["spec"]["natOutgoing"] = json!(true);
            pool
        });
        let image = write_image(lab)?;
        let mut machines = Vec::new();
        for node in &mut lan.nodes {
            documents::write(&node.weft.manifests(), "pools.yaml", &pools)?;
            let host = Rc::new(Host::new(lab, node)?);
            node.weft.start()?;
            let containerd = Containerd::start(lab, &host, &image)?;
            let podman = Podman::start(&host, &image)?;
            machines.push(Machine { containerd, podman, host });
        }
        for machine in &machines {
            let conflist = || machine.host.conflist();
            wait_until(format!("the network of {}", machine.host.node()), CONVERGENCE, conflist)?;
        }
        let site = Self { machines, lan };
        site.wait_converged()?;
        Ok(site)
    }

    /// Waits until each node routes to the other's blocks.
    fn wait_converged(&self) -> Result<()> {
        let [first, second] = &self.lan.nodes[..] else { anyhow::bail!("not two nodes") };
        for (node, other) in [(first, second), (second, first)] {
            for block in &other.blocks {
                wait_until(format!("{} to know {block}", node.name), CONVERGENCE, || {
                    ensure!(!node.namespace.routes_to(*block)?.is_empty(), "no route");
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    fn address(&self, node: usize, family: Family) -> Result<IpAddr> {
        self.lan.nodes[node].address(family)
    }
}

/// The routes to pods that a node has.
fn pod_routes(node: &Node) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for family in ["-4", "-6"] {
        let routes = node.namespace.ip_json(&format!("{family} route show proto 177"))?;
        all.extend(routes.as_array().cloned().unwrap_or_default());
    }
    Ok(all)
}

/// What weft-cni's store holds: the addresses of each container, as the runtime calls it to CNI.
fn stored(node: &Node) -> Result<BTreeMap<String, Vec<IpAddr>>> {
    let mut all: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let shown: Value = node.weft.json("ipam show")?;
    for entry in shown["addresses"].as_array().with_context(|| format!("no addresses in {shown}"))? {
        let container = entry["container"].as_str().with_context(|| format!("no container in {entry}"))?;
        let address = entry["address"].as_str().with_context(|| format!("no address in {entry}"))?;
        ensure!(entry["state"] == "committed" && entry["network"] == "weft", "{entry}");
        all.entry(container.to_owned()).or_default().push(address.parse()?);
    }
    Ok(all)
}

/// weftd compares the store with the kernel and with what libcni noted for its runtimes: all have as many containers, and fit.
fn ensure_fits(node: &Node, containers: usize) -> Result<()> {
    let found: Value = node.weft.json("ipam check")?;
    let compared = &found["compared"];
    for what in [&compared["entries"], &compared["links"], &compared["runtime"]["interfaces"]] {
        ensure!(*what == containers, "not {containers} containers: {found}");
    }
    ensure!(found["ok"] == true, "{found}");
    Ok(())
}

/// No container is left: nor are links, routes, rules of portmap, network namespaces, or what libcni and the store keep of one.
fn nothing_left(node: &Node, host: &Host) -> Result<()> {
    let links = node.namespace.ip_json("link show")?.to_string();
    ensure!(!links.contains("\"weft"), "links: {links}");
    let routes = pod_routes(node)?;
    ensure!(routes.is_empty(), "routes: {routes:?}");
    for save in ["iptables-save", "ip6tables-save"] {
        let rules = host.exec(&[save, "-t", "nat"])?.success()?.stdout;
        ensure!(!rules.contains("CNI-DN-") && !rules.contains("DNAT --to"), "{save}: {rules}");
    }
    let stored = stored(node)?;
    ensure!(stored.is_empty(), "the store: {stored:?}");
    ensure_fits(node, 0)?;
    for folder in ["/run/netns", "/var/lib/cni/results"] {
        let files = host.exec(&["ls", folder])?.success()?.stdout;
        ensure!(files.is_empty(), "{folder}: {files}");
    }
    Ok(())
}

/// A container has a /32 and a /128 of its node's blocks, and the node routes exactly those to it.
fn own_addresses(node: &Node, runtime: &dyn Runtime, container: &str) -> Result<Vec<IpAddr>> {
    let prefixes = runtime.addresses(container)?;
    ensure!(prefixes.len() == node.blocks.len(), "{container} has {prefixes:?}");
    for (prefix, block) in prefixes.iter().zip(&node.blocks) {
        ensure!(*prefix == IpNet::from(prefix.addr()), "{container} has {prefix}, not one address");
        ensure!(block.contains(&prefix.addr()), "{container} has {prefix}, which is not in {block}");
        let routes = node.namespace.routes_to(*prefix)?;
        ensure!(routes.len() == 1 && routes[0]["protocol"] == "177", "{container} at {prefix}: {routes:?}");
    }
    Ok(prefixes.iter().map(IpNet::addr).collect())
}

#[test]
fn containers_of_all_runtimes_reach_each_other_under_their_own_addresses() -> Result<()> {
    Site::test(|site| {
        const CONTAINER: &str = "one";
        let mut all = Vec::new();
        for (node, machine) in site.lan.nodes.iter().zip(&mut site.machines) {
            let mut expected = BTreeMap::new();
            for runtime in machine.runtimes_mut() {
                runtime.run(CONTAINER, &[])?;
                let addresses = own_addresses(node, runtime, CONTAINER)?;
                expected.insert(runtime.container_id(CONTAINER)?, addresses.clone());
                all.push((node.name.clone(), runtime.name(), addresses));
            }
            ensure!(stored(node)? == expected, "{:?} is stored, not {expected:?}", stored(node)?);
            ensure_fits(node, expected.len())?;
        }
        let runtimes: Vec<&dyn Runtime> = site.machines.iter().flat_map(Machine::runtimes).collect();
        for (from, runtime) in all.iter().zip(&runtimes) {
            for to in all.iter().filter(|to| to.2 != from.2) {
                for (own, address) in from.2.iter().zip(&to.2) {
                    let what = || format!("from {} of {} to {} of {}", from.1, from.0, to.1, to.0);
                    runtime.ping(CONTAINER, *address).with_context(what)?;
                    let seen =
                        runtime.source_to(CONTAINER, SocketAddr::new(*address, SERVED)).with_context(what)?;
                    ensure!(seen == *own, "{}: {own} is seen as {seen}", what());
                }
            }
        }
        for machine in &mut site.machines {
            machine.runtimes_mut().into_iter().try_for_each(|runtime| runtime.remove(CONTAINER))?;
        }
        Ok(())
    })
}

/// `ctr` cannot ask for host ports: it is podman that does.
#[test]
fn a_host_port_answers_from_everywhere() -> Result<()> {
    Site::test(|site| {
        let port = HostPort { node: 8080, container: SERVED };
        site.machines[0].podman.run("server", &[port])?;
        for machine in &mut site.machines {
            machine.containerd.run("client", &[])?;
        }
        for family in Family::BOTH {
            let server = SocketAddr::new(site.address(0, family)?, port.node);
            let [near, far] = &site.machines[..] else { anyhow::bail!("not two machines") };
            // Nobody else's address is touched, so that the server sees who asks...
            ensure!(far.host.source_to(server)? == site.address(1, family)?, "the other node");
            for (node, machine) in site.lan.nodes.iter().zip(&site.machines) {
                let client = &machine.containerd;
                let own = own_addresses(node, client, "client")?;
                ensure!(own.contains(&client.source_to("client", server)?), "a container of {}", node.name);
            }
            ensure!(near.host.source_to(server)? == site.address(0, family)?, "the own node");
            // ...but where the answer would not come back through the node.
            let seen = near.podman.source_to("server", server).context("the server's own host port")?;
            ensure!(seen == site.address(0, family)?, "the server itself is seen as {seen}");
        }
        let localhost = SocketAddr::from((Ipv4Addr::LOCALHOST, port.node));
        let seen = site.machines[0].host.source_to(localhost).context("the node's localhost")?;
        ensure!(seen == site.address(0, Family::V4)?, "the node's localhost is seen as {seen}");

        // The port leads nowhere else once its container is gone.
        site.machines[0].podman.remove("server")?;
        for family in Family::BOTH {
            let server = SocketAddr::new(site.address(0, family)?, port.node);
            ensure!(site.machines[1].host.source_to(server).is_err(), "{server} still answers");
        }
        site.machines.iter_mut().try_for_each(|machine| machine.containerd.remove("client"))
    })
}

/// `ctr` cannot ask for addresses either.
#[test]
fn a_container_gets_the_addresses_that_it_asks_for() -> Result<()> {
    Site::test(|site| {
        let node = &site.lan.nodes[0];
        let [near, far] = &mut site.machines[..] else { anyhow::bail!("not two machines") };
        let asked: [IpAddr; 2] = ["10.244.1.40".parse()?, "fd00:10:244:1::28".parse()?];
        let mac = "02:00:00:00:00:2a";
        let flags =
            [format!("--ip={}", asked[0]), format!("--ip6={}", asked[1]), format!("--mac-address={mac}")];
        near.podman.run_with("asks", &flags.each_ref().map(String::as_str))?;
        let own = own_addresses(node, &near.podman, "asks")?;
        ensure!(own == asked, "{own:?}");
        let link = near.podman.exec("asks", &["ip", "link", "show", "dev", "eth0"])?.success()?.stdout;
        ensure!(link.contains(mac), "{link}");
        let again = near.podman.run_with("late", &flags.each_ref().map(String::as_str));
        let error = format!("{:#}", again.err().context("one address was given to two")?);
        ensure!(error.contains(&asked[0].to_string()), "{error}");
        far.containerd.run("client", &[])?;
        asked.iter().try_for_each(|address| far.containerd.ping("client", *address))?;
        far.containerd.remove("client")?;
        near.podman.remove("late")?;
        near.podman.remove("asks")
    })
}

#[test]
fn containers_start_again_and_survive_their_watchers_death_without_a_trace() -> Result<()> {
    Site::test(|site| {
        let port = HostPort { node: 8081, container: SERVED };
        let node = &site.lan.nodes[0];
        let [near, far] = &mut site.machines[..] else { anyhow::bail!("not two machines") };
        far.containerd.run("client", &[])?;
        near.containerd.run("one", &[])?;
        near.podman.run("one", &[port])?;
        for runtime in near.runtimes_mut() {
            let before = own_addresses(node, runtime, "one")?;
            runtime.restart("one")?;
            let after = own_addresses(node, runtime, "one")?;
            for address in &after {
                far.containerd.ping("client", *address)?;
            }
            let lost: Vec<&IpAddr> = before.iter().filter(|address| !after.contains(address)).collect();
            for address in lost {
                let routes = node.namespace.routes_to((*address).into())?;
                ensure!(routes.is_empty(), "{address} was lost and has {routes:?}");
            }
        }
        let server = SocketAddr::new(node.address(Family::V4)?, port.node);
        far.host.source_to(server).context("the host port of a container that started again")?;
        ensure!(pod_routes(node)?.len() == 4, "{:?}", pod_routes(node)?);

        // containerd takes the shim's death for the container's.
        near.containerd.kill_watcher("one")?;
        near.containerd.wait_gone("one")?;
        // podman's containers live on.
        near.podman.kill_watcher("one")?;
        far.host.source_to(server).context("the host port of a container without conmon")?;
        near.podman.remove("one")?;
        far.containerd.remove("client")
    })
}

#[test]
fn containers_come_and_go_while_weftd_is_dead() -> Result<()> {
    Site::test(|site| {
        site.lan.nodes[0].weft.kill9()?;
        let [near, far] = &mut site.machines[..] else { anyhow::bail!("not two machines") };
        near.host.plugin("STATUS", &json!({}))?;
        far.podman.run("server", &[])?;
        let servers = own_addresses(&site.lan.nodes[1], &far.podman, "server")?;
        for runtime in near.runtimes_mut() {
            runtime.run("one", &[])?;
            let own = own_addresses(&site.lan.nodes[0], runtime, "one")?;
            for (own, server) in own.iter().zip(&servers) {
                let seen = runtime.source_to("one", SocketAddr::new(*server, SERVED))?;
                ensure!(seen == *own, "{own} is seen as {seen}");
            }
            runtime.remove("one")?;
        }
        far.podman.remove("server")?;
        site.lan.nodes[0].weft.start()?;
        site.lan.nodes[0].weft.wait_answers()
    })
}

/// `ctr run --detach` asks for a network and never gives it back: what GC is for.
#[test]
fn gc_frees_what_a_runtime_forgot() -> Result<()> {
    Site::test(|site| {
        let node = &site.lan.nodes[0];
        let machine = &mut site.machines[0];
        machine.host.plugin("STATUS", &json!({}))?;
        machine.containerd.run("kept", &[])?;
        machine.podman.run("kept", &[])?;
        machine.containerd.run_detached("forgotten")?;
        let forgotten = own_addresses(node, &machine.containerd, "forgotten")?;
        let id = machine.containerd.container_id("forgotten")?;
        machine.containerd.remove_detached("forgotten")?;
        ensure!(stored(node)?.get(&id) == Some(&forgotten), "{id} is not in {:?}", stored(node)?);

        let kept: Vec<String> =
            machine.runtimes().iter().map(|runtime| runtime.container_id("kept")).collect::<Result<_>>()?;
        let valid: Vec<Value> = kept.iter().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect();
        machine.host.plugin("GC", &json!({"cni.dev/valid-attachments": valid}))?;
        let left = stored(node)?;
        ensure!(left.len() == kept.len() && kept.iter().all(|id| left.contains_key(id)), "{left:?}");
        for address in forgotten {
            ensure!(node.namespace.routes_to(address.into())?.is_empty(), "a route to {address} is left");
        }
        for runtime in machine.runtimes_mut() {
            for address in own_addresses(node, runtime, "kept")? {
                runtime.ping("kept", address)?;
            }
            runtime.remove("kept")?;
        }
        // What libcni noted of the ADD, only a DEL takes away.
        let note = format!("/var/lib/cni/results/weft-{id}-eth0");
        machine.host.exec(&["rm", &note])?.success()?;
        Ok(())
    })
}
