//! A node in a confederation of other people's routers (RFC 5065): what it hears goes on as it is within its AS, and without the
//! confederation's segments to others.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(40);
/// The confederation, the member AS that the node is in, another member AS, and one outside.
const CONFEDERATION: u32 = 65000;
const NODE_ASN: u32 = 64601;
const OTHER_ASN: u32 = 65011;
const OUTSIDE_ASN: u32 = 65003;

/// Both ends of a link.
fn ends(cable: u8) -> Result<[IpAddr; 2]> {
    Ok([format!("10.1.0.{}", 2 * cable).parse()?, format!("10.1.0.{}", 2 * cable + 1).parse()?])
}

/// Links two machines, with addresses.
fn cable(number: u8, near: (&Namespace, &str), far: (&Namespace, &str)) -> Result<()> {
    let link = Link::new(End::new(near.0, near.1), End::new(far.0, far.1))?;
    let [near, far] = ends(number)?;
    link.near.add_addresses(&[IpNet::new(near, 31)?])?;
    link.far.add_addresses(&[IpNet::new(far, 31)?])
}

/// A session over the link with this number, from its second end unless `from_near`.
fn session(number: u8, name: &str, asn: u32, from_near: bool) -> Result<Neighbor> {
    let [near, far] = ends(number)?;
    let (local, address) = if from_near { (near, far) } else { (far, near) };
    Ok(Neighbor { name: name.to_owned(), address, asn, local, families: vec![Family::V4] })
}

/// The node, and around it: inside its AS `inner`, behind which is `other` of the other member AS, and `client`; and `outside`.
struct Network {
    node: Node,
    routers: Vec<Box<dyn Router>>,
}

impl Network {
    fn up(lab: &Lab) -> Result<Self> {
        let own = node::loopback(&[Family::V4], 1);
        let node = Node::new(lab, "node", own.clone(), node::blocks(&[Family::V4], 1))?;
        node.namespace.ip(&format!("addr add {} dev lo", own[0]))?;
        let [inner, client, outside, other] =
            [lab.machine("inner")?, lab.machine("client")?, lab.machine("outside")?, lab.machine("other")?];
        for (number, (machine, name)) in
            [(&inner, "inner"), (&client, "client"), (&outside, "outside")].into_iter().enumerate()
        {
            cable(u8::try_from(number)?, (&node.namespace, name), (machine, "node"))?;
        }
        cable(3, (&inner, "other"), (&other, "inner"))?;
        let config = |name: &str, asn, id: u8, extra: &str, neighbors: Vec<Neighbor>| {
            let mut config = RouterConfig::new(name, asn, [10, 0, 0, id].into());
            (config.extra, config.neighbors, config.graceful_restart) = (extra.to_owned(), neighbors, false);
            config
        };
        let member =
            format!("bgp confederation identifier {CONFEDERATION}\n bgp confederation peers {OTHER_ASN}");
        let neighbors = vec![session(0, "node", NODE_ASN, false)?, session(3, "other", OTHER_ASN, true)?];
        let inner = router(lab, &inner, Software::Frr, config("inner", NODE_ASN, 251, &member, neighbors))?;
        let neighbors = vec![session(1, "node", NODE_ASN, false)?];
        let client = router(lab, &client, Software::Frr, config("client", NODE_ASN, 252, "", neighbors))?;
        let neighbors = vec![session(2, "node", NODE_ASN, false)?];
        let outside =
            router(lab, &outside, Software::Bird, config("outside", OUTSIDE_ASN, 253, "", neighbors))?;
        let member = format!("confederation {CONFEDERATION}; confederation member yes;");
        let neighbors = vec![session(3, "inner", NODE_ASN, false)?];
        let mut config = config("other", OTHER_ASN, 254, &member, neighbors);
        config.originate = node::blocks(&[Family::V4], 99).into_iter().collect();
        let other = router(lab, &other, Software::Bird, config)?;
        let mut network = Self { node, routers: vec![inner, client, outside, other] };
        network.write()?;
        network.node.weft.start()?;
        network.routers.iter_mut().try_for_each(|router| router.start())?;
        Ok(network)
    }

    fn write(&self) -> Result<()> {
        let rule = json!([{"action": "Accept"}]);
        let learned = json!([{"action": "Accept", "source": "RemotePeers"}]);
        let filter = json!({"importV4": rule, "exportV4": learned});
        let mut all = vec![
            documents::node("node", &[], &self.node.blocks, &self.node.addresses),
            documents::bgp_configuration(&json!({"asNumber": NODE_ASN, "nodeToNodeMeshEnabled": false})),
            documents::resource("BGPFilter", "all", &filter),
        ];
        for (cable, (name, asn, client)) in
            [("inner", NODE_ASN, false), ("client", NODE_ASN, true), ("outside", OUTSIDE_ASN, false)]
                .into_iter()
                .enumerate()
        {
            let [_, far] = ends(u8::try_from(cable)?)?;
            let spec = json!({
                "peerIP": far, "asNumber": asn, "families": ["ipv4-unicast"], "filters": ["all"],
                "routeReflectorClient": client,
            });
            all.push(documents::bgp_peer(name, "node", spec));
        }
        documents::write(&self.node.weft.manifests(), "bgp.yaml", &all)
    }
}

/// Proves RFC 5065 4, 5; FRR, BIRD.
#[test]
fn rfc5065_segments_go_on_within_the_as_and_not_to_others() -> Result<()> {
    Lab::test(|lab| {
        let network = Network::up(lab)?;
        let block = node::blocks(&[Family::V4], 99)[0];
        wait_until("the node to have the block", PATIENCE, || network.node.weft.forwards(block).map(drop))?;
        let routes: Vec<Value> = network.node.weft.json(&format!("routes {block}"))?;
        let path = routes.first().context("no route")?["paths"][0].clone();
        ensure!(path["asPath"] == json!([OTHER_ASN]) && path["localPref"] == 100, "{path}");

        let [_, client, outside, _] = &network.routers[..] else { anyhow::bail!("there are four") };
        wait_until("the client to be told of both member ASes", PATIENCE, || {
            let said = client.ask(&format!("show bgp ipv4 unicast {block} json"))?;
            ensure!(said.contains(&format!("\"({OTHER_ASN})\"")), "{said}");
            Ok(())
        })?;
        wait_until("the one outside to be told of one AS", PATIENCE, || {
            let path = outside.best(block)?;
            ensure!(path.as_path == [NODE_ASN], "{path:?}");
            Ok(())
        })
    })
}
