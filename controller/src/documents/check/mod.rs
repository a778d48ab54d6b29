//! What makes no sense although every field is well-formed: in one object ([`spec`]), and between objects.

mod bfd;
mod bmp;
mod inherited;
mod mrt;
mod policy;
mod resilient;
mod services;
mod spec;
mod tcp_ao;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use weft_bgp::protection::Password;

use super::{Origin, Parsed};
use crate::api::Invalid;
use crate::api::json::DocumentError;
use crate::cluster::{Cluster, Kind, Object, Signing};
use crate::plan::{Place, wanted};

/// The faults of each object by itself.
pub(super) fn each(parsed: &[Parsed]) -> Vec<DocumentError> {
    let mut errors = Vec::new();
    for object in parsed {
        let faults = match &object.object {
            Object::BgpConfiguration(s) => spec::configuration(&object.name, s),
            Object::BgpPeer(s) => spec::peer(s),
            Object::BgpFilter(s) => spec::filter(s),
            Object::BfdProfile(s) => bfd::profile(s),
            Object::IpPool(s) => spec::pool(s),
            Object::IpBlock(_)
            | Object::Node(_)
            | Object::Namespace(_)
            | Object::Secret(_)
            | Object::Service(_)
            | Object::EndpointSlice(_) => Vec::new(),
        };
        errors.extend(faults.into_iter().map(|(field, invalid)| object.error(&field, invalid)));
    }
    errors
}

/// Objects that are there twice.
pub(super) fn duplicates(parsed: &[Parsed]) -> Vec<DocumentError> {
    let mut seen: BTreeMap<(Kind, &str), &Parsed> = BTreeMap::new();
    let mut errors = Vec::new();
    for object in parsed {
        match seen.get(&(object.object.kind(), &object.name)) {
            Some(first) => errors.push(object.error(
                "metadata.name",
                Invalid::new(
                    format!("{} is there already, {}", object.title(), place(first)),
                    "keep one of the two, or name one otherwise",
                ),
            )),
            None => drop(seen.insert((object.object.kind(), &object.name), object)),
        }
    }
    errors
}

/// What the objects are checked for.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// A folder, which is taken as a whole: what is named in it is there.
    Folder,
    /// The same before anybody takes it: also what would keep single sessions down.
    Beforehand,
    /// An API server, whose objects come and go one by one, for the sake of the node of this name. A Node may come after
    /// what names it, and go before.
    Api(String),
}

/// What is wrong between objects.
pub(super) fn together(parsed: &[Parsed], cluster: &Cluster, scope: &Scope) -> Vec<DocumentError> {
    let mut errors = dangling(parsed, cluster, scope);
    errors.extend(overlapping(
        ranges(parsed, cluster),
        "it overlaps",
        "pools and blocks must not overlap: narrow one",
    ));
    errors.extend(services::ranges(parsed));
    errors.extend(policy::aggregates(parsed));
    errors.extend(services::pools(parsed));
    errors.extend(shared_addresses(parsed));
    errors.extend(sessions(parsed, cluster, scope));
    errors.extend(inherited::faults(parsed, cluster));
    errors
}

/// Names of what is not there.
fn dangling(parsed: &[Parsed], cluster: &Cluster, scope: &Scope) -> Vec<DocumentError> {
    let no_node = |object: &Parsed, field: &str, node: &str| {
        (!matches!(scope, Scope::Api(_)) && !cluster.nodes.contains_key(node)).then(|| {
            let invalid =
                Invalid::new(format!("there is no Node {node}"), "add its document, or correct the name");
            object.error(field, invalid)
        })
    };
    let no_profile = |object: &Parsed, named: &Option<String>| {
        let name =
            named.as_ref().filter(|name| !name.is_empty() && !cluster.bfd_profiles.contains_key(*name))?;
        let invalid =
            Invalid::new(format!("there is no BFDProfile {name}"), "add its document, or correct the name");
        Some(object.error("spec.bfdProfile", invalid))
    };
    let no_secrets = |object: &Parsed, field: &str, signing: Option<Signing<'_>>| {
        let signing = signing.filter(|_| matches!(scope, Scope::Beforehand));
        signing.map(|signing| no_secrets(object, field, signing, cluster)).unwrap_or_default()
    };
    let mut errors = Vec::new();
    for object in parsed {
        match &object.object {
            Object::BgpPeer(spec) => {
                let password = spec.password.as_ref().map(|password| &password.secret_key_ref);
                errors.extend(no_secrets(object, "password", password.map(Signing::Password)));
                errors.extend(no_secrets(object, "tcpAO", spec.tcp_ao.as_ref().map(Signing::TcpAo)));
                errors.extend(no_profile(object, &spec.bfd_profile));
                let missing =
                    spec.filters.iter().enumerate().filter(|(_, f)| !cluster.filters.contains_key(*f));
                errors.extend(missing.map(|(index, filter)| {
                    let message = format!("there is no BGPFilter {filter}");
                    object.error(
                        &format!("spec.filters[{index}]"),
                        Invalid::new(message, "add its document, or correct the name"),
                    )
                }));
            }
            Object::BgpConfiguration(spec) => {
                errors.extend(policy::dangling(object, cluster));
                let password = spec.node_mesh_password.as_ref().map(|password| &password.secret_key_ref);
                errors.extend(no_secrets(object, "nodeMeshPassword", password.map(Signing::Password)));
                let keys = spec.node_mesh_tcp_ao.as_ref().map(Signing::TcpAo);
                errors.extend(no_secrets(object, "nodeMeshTCPAO", keys));
                errors.extend(no_profile(object, &spec.bfd_profile));
                if let Some(node) = object.name.strip_prefix("node.") {
                    errors.extend(no_node(object, "metadata.name", node));
                } else if spec.router_id.is_some() && cluster.nodes.len() > 1 {
                    let message =
                        format!("the default routerID is that of {} Nodes at once", cluster.nodes.len());
                    let remedy = "leave it out, or set it per node in BGPConfiguration node.NAME";
                    errors.push(object.error("spec.routerID", Invalid::new(message, remedy)));
                }
            }
            Object::IpBlock(spec) => errors.extend(no_node(object, "spec.node", &spec.node)),
            Object::BgpFilter(_) => errors.extend(policy::dangling(object, cluster)),
            Object::IpPool(_)
            | Object::BfdProfile(_)
            | Object::Node(_)
            | Object::Namespace(_)
            | Object::Secret(_)
            | Object::Service(_)
            | Object::EndpointSlice(_) => {}
        }
    }
    errors
}

/// Passwords and keys that are not there, or that the kernel would not take: the session of them stays down, and no other is concerned.
fn no_secrets(object: &Parsed, field: &str, signing: Signing<'_>, cluster: &Cluster) -> Vec<DocumentError> {
    let (what, indexed) = match signing {
        Signing::Password(_) => ("password", false),
        Signing::TcpAo(_) => ("key", true),
    };
    let mut errors = Vec::new();
    for (index, reference) in signing.references().enumerate() {
        let list = if indexed { format!("{field}.keys[{index}]") } else { field.to_owned() };
        let at = |part: &str| format!("spec.{list}.secretKeyRef.{part}");
        if !cluster.secrets.contains_key(&reference.name) {
            let message = format!("there is no Secret {}", reference.name);
            let invalid = Invalid::new(message, "add its document, or correct the name");
            errors.push(object.error(&at("name"), invalid));
        } else if let Err(why) = cluster.secret(reference, what) {
            let remedy = format!("put a {what} of 1 to {} octets there, or correct the key", Password::MAX);
            errors.push(object.error(&at("key"), Invalid::new(why, remedy)));
        }
    }
    errors
}

/// A prefix that must not overlap with others of its sort.
struct Range<'a> {
    /// Pools overlap with pools, blocks with blocks.
    sort: Kind,
    net: IpNet,
    object: &'a Parsed,
    field: String,
}

/// The pools, and the blocks in use: a node with IPBlocks does not use its podCIDRs.
fn ranges<'a>(parsed: &'a [Parsed], cluster: &Cluster) -> Vec<Range<'a>> {
    let mut ranges = Vec::new();
    for object in parsed {
        let mut add = |sort, net, field: String| ranges.push(Range { sort, net, object, field });
        match &object.object {
            Object::IpPool(spec) => add(Kind::IpPool, spec.cidr.net(), "spec.cidr".into()),
            Object::IpBlock(spec) => add(Kind::IpBlock, spec.cidr.net(), "spec.cidr".into()),
            Object::Node(node) if !cluster.blocks.values().any(|b| b.node == object.name) => {
                let single = object.origin.has_single_pod_cidr();
                for (index, net) in node.pod_cidrs.iter().enumerate() {
                    let field =
                        if single { "spec.podCIDR".into() } else { format!("spec.podCIDRs[{index}]") };
                    add(Kind::IpBlock, *net, field);
                }
            }
            Object::Node(_)
            | Object::Namespace(_)
            | Object::Secret(_)
            | Object::Service(_)
            | Object::EndpointSlice(_)
            | Object::BgpConfiguration(_)
            | Object::BgpPeer(_)
            | Object::BgpFilter(_)
            | Object::BfdProfile(_) => {}
        }
    }
    ranges
}

fn overlapping(mut ranges: Vec<Range<'_>>, what: &str, remedy: &str) -> Vec<DocumentError> {
    // A prefix sorts before all that lies in it, so whatever overlaps does so with the last one that lay in no other.
    ranges.sort_by_key(|range| (range.sort, range.net));
    let mut outer: Option<&Range<'_>> = None;
    let mut errors = Vec::new();
    for range in &ranges {
        match outer.filter(|outer| outer.sort == range.sort && outer.net.contains(&range.net)) {
            Some(outer) => {
                let (net, other) = (range.net, outer.net);
                let message = format!(
                    "{net}: {what} with {other} of {}, {}",
                    outer.object.title(),
                    place(outer.object)
                );
                errors.push(range.object.error(&range.field, Invalid::new(message, remedy)));
            }
            None => outer = Some(range),
        }
    }
    errors
}

/// Two nodes of one address.
fn shared_addresses(parsed: &[Parsed]) -> Vec<DocumentError> {
    let mut seen: BTreeMap<IpAddr, &Parsed> = BTreeMap::new();
    let mut errors = Vec::new();
    for object in parsed {
        let Object::Node(node) = &object.object else { continue };
        for address in &node.addresses {
            match seen.get(address).filter(|first| first.name != object.name) {
                Some(first) => {
                    let message =
                        format!("{address} is also an address of {}, {}", first.title(), place(first));
                    let invalid = Invalid::new(message, "give each Node addresses of its own");
                    errors.push(object.error("status.addresses", invalid));
                }
                None => drop(seen.insert(*address, object)),
            }
        }
    }
    errors
}

/// Two BGPPeers that ask one node for sessions with one address, on one interface or of one range, and route reflector clients of another AS.
fn sessions(parsed: &[Parsed], cluster: &Cluster, scope: &Scope) -> Vec<DocumentError> {
    let mut contests: BTreeMap<(&str, &str), (Place<'_>, &str)> = BTreeMap::new();
    let mut external: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    let nodes = cluster.nodes.iter().filter(|(node, _)| match scope {
        Scope::Folder | Scope::Beforehand => true,
        Scope::Api(own) => *node == own,
    });
    for (node, facts) in nodes {
        let mut first: BTreeMap<Place<'_>, &str> = BTreeMap::new();
        for session in wanted(cluster, node, facts) {
            let (Some(place), Some(peer)) = (session.place(), session.peer()) else { continue };
            if let Some(ases) = session.external_client(cluster, node) {
                external.entry(peer).or_insert((node, ases));
            }
            match first.get(&place) {
                Some(other) => drop(contests.entry((peer, other)).or_insert((place, node))),
                None => drop(first.insert(place, peer)),
            }
        }
    }
    let named = |name: &str| parsed.iter().find(|o| o.object.kind() == Kind::BgpPeer && o.name == name);
    let mut errors = Vec::new();
    for (peer, (node, ases)) in external {
        errors.extend(named(peer).map(|object| {
            let message = format!("an eBGP peer is no route reflector client: on Node {node} {ases}");
            let remedy =
                "give both ends one AS, with localASNumber if need be, or leave routeReflectorClient out";
            object.error("spec.routeReflectorClient", Invalid::new(message, remedy))
        }));
    }
    for ((second, first), (place, node)) in contests {
        errors.extend(named(second).map(|object| {
            let message = match place {
                Place::Range(range) => format!("BGPPeer/{first} has Node {node} listen for {range} too"),
                _ => format!("BGPPeer/{first} asks for a session of Node {node} with {place} too"),
            };
            let field = match &object.object {
                Object::BgpPeer(spec) if spec.interface.is_some() => "spec.interface",
                Object::BgpPeer(spec) if spec.peer_ip.is_some() => "spec.peerIP",
                Object::BgpPeer(spec) if spec.listen_range.is_some() => "spec.listenRange",
                _ => "spec.peerSelector",
            };
            object.error(field, Invalid::new(message, "keep one of the two, or part them by nodeSelector"))
        }));
    }
    errors
}

fn place(object: &Parsed) -> String {
    match &object.origin {
        Origin::File { file, located } => format!("{file} line {}", located.line),
        Origin::Api => "in the cluster".to_owned(),
    }
}
