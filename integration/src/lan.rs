//! Nodes in one or two subnets that speak with each other: the node-to-node mesh.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use crate::daemon::Family;
use crate::documents;
use crate::lab::Lab;
use crate::link::{End, Switch};
use crate::netns::Namespace;
use crate::node::{self, Node};

/// The last octet of the router's addresses.
const ROUTER: u8 = 254;

/// What a mesh should be.
#[derive(Clone, Debug)]
pub struct LanSpec {
    /// How many nodes each subnet has; two subnets are joined by a router.
    pub nodes: Vec<u8>,
    /// The address families, IPv4 first.
    pub families: Vec<Family>,
    /// Pods on each node.
    pub pods_per_node: u8,
}

/// Nodes with their address on `eth0`, in subnets 10.2.S.0/24 and fd00:10:2:S::/64.
#[derive(Debug)]
pub struct Lan {
    /// What it is.
    pub spec: LanSpec,
    /// The nodes: n1, n2...
    pub nodes: Vec<Node>,
    /// The switches, one a subnet.
    pub switches: Vec<Switch>,
    /// The router between two subnets: nothing but forwarding and connected routes.
    pub router: Option<Namespace>,
}

impl Lan {
    /// Plugs everything in and writes the documents; nothing is started.
    ///
    /// # Errors
    /// If something cannot be made.
    pub fn build(lab: &Lab, spec: LanSpec) -> Result<Self> {
        let mut lan = Self { nodes: Vec::new(), switches: Vec::new(), router: None, spec };
        if lan.spec.nodes.len() > 1 {
            let router = lab.machine("router")?;
            router.forward()?;
            lan.router = Some(router);
        }
        for (subnet, count) in lan.spec.nodes.clone().into_iter().enumerate() {
            let subnet = u8::try_from(subnet)?;
            let switch = Switch::new(lab.machine(&format!("switch{subnet}"))?)?;
            if let Some(router) = &lan.router {
                let link = switch.plug(End::new(router, format!("subnet{subnet}")))?;
                link.near.add_addresses(&lan.addresses(subnet, ROUTER)?)?;
            }
            for _ in 0..count {
                lan.add_node(lab, subnet, &switch)?;
            }
            lan.switches.push(switch);
        }
        lan.write()?;
        Ok(lan)
    }

    /// Builds it, starts weftd everywhere and adds the pods.
    ///
    /// # Errors
    /// If something does not come up.
    pub fn up(lab: &Lab, spec: LanSpec) -> Result<Self> {
        let mut lan = Self::build(lab, spec)?;
        lan.nodes.iter_mut().try_for_each(|node| node.weft.start())?;
        for node in &mut lan.nodes {
            node.wait_ready_for_pods()?;
            for _ in 0..lan.spec.pods_per_node {
                node.add_pod(lab)?;
            }
        }
        Ok(lan)
    }

    fn write(&self) -> Result<()> {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|node| documents::node(&node.name, &[], &node.blocks, &node.addresses))
            .collect();
        let pools: Vec<Value> =
            self.spec.families.iter().map(|family| documents::pod_pool(*family)).collect();
        for node in &self.nodes {
            let folder = node.weft.manifests();
            documents::write(&folder, "nodes.yaml", &nodes)?;
            documents::write(&folder, "pools.yaml", &pools)?;
            documents::write(
                &folder,
                "bgp.yaml",
                &[documents::bgp_configuration(&json!({"asNumber": 64512}))],
            )?;
        }
        Ok(())
    }

    /// Tells the router which node each block is behind, as its own routing protocol would.
    ///
    /// # Errors
    /// If there is no router.
    pub fn teach_router(&self) -> Result<()> {
        let router = self.router.as_ref().context("one subnet has no router")?;
        let mut commands = String::new();
        for node in &self.nodes {
            for (address, block) in node.addresses.iter().zip(&node.blocks) {
                commands.push_str(&format!("route add {block} via {address}\n"));
            }
        }
        router.ip(&commands)
    }

    fn add_node(&mut self, lab: &Lab, subnet: u8, switch: &Switch) -> Result<()> {
        let index = u8::try_from(self.nodes.len() + 1)?;
        let prefixes = self.addresses(subnet, index)?;
        let addresses = prefixes.iter().map(IpNet::addr).collect();
        let node = Node::new(lab, &format!("n{index}"), addresses, node::blocks(&self.spec.families, index))?;
        let link = switch.plug(End::new(&node.namespace, "eth0"))?;
        link.near.add_addresses(&prefixes)?;
        if self.router.is_some() {
            for gateway in self.addresses(subnet, ROUTER)? {
                node.namespace.ip(&format!("route add default via {}", gateway.addr()))?;
            }
        }
        self.nodes.push(node);
        Ok(())
    }

    fn addresses(&self, subnet: u8, host: u8) -> Result<Vec<IpNet>> {
        let of = |family: &Family| -> Result<IpNet> {
            Ok(match family {
                Family::V4 => IpNet::V4(Ipv4Net::new(Ipv4Addr::new(10, 2, subnet, host), 24)?),
                Family::V6 => {
                    let address = Ipv6Addr::new(0xfd00, 0x10, 2, subnet.into(), 0, 0, 0, host.into());
                    IpNet::V6(Ipv6Net::new(address, 64)?)
                }
            })
        };
        self.spec.families.iter().map(of).collect()
    }

    /// The address of the router in a subnet.
    ///
    /// # Errors
    /// If the mesh has no such family.
    pub fn router_address(&self, subnet: u8, family: Family) -> Result<IpAddr> {
        let all = self.addresses(subnet, ROUTER)?;
        all.iter()
            .map(IpNet::addr)
            .find(|address| Family::of(*address) == family)
            .context("the mesh has no such family")
    }
}
