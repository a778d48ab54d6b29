//! The objects of an API server, each by itself: a bad one disturbs no other, and what was accepted of it before stays in force.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Origin, Parsed, Reading, check, decode};
use crate::api::json::DocumentError;
use crate::cluster::{Cluster, Kind, Node, Object};
use crate::plan::are_announced;

/// An object's kind and name.
type Id = (Kind, String);

/// Every object as it is, and as it was last accepted.
#[derive(Debug)]
pub struct Admission {
    node: String,
    seen: BTreeMap<Id, Seen>,
    /// But for Services and their endpoints: there are many, and nothing between objects can be wrong with them.
    accepted: BTreeMap<Id, Parsed>,
    /// The accepted objects again, and what is wrong between them.
    cluster: Cluster,
    faults: Vec<DocumentError>,
    /// What is not accepted yet, or was changed since.
    changed: BTreeSet<Id>,
    /// An accepted object has gone, so that [`Self::faults`] may no longer be right.
    gone: bool,
}

/// An object as it is.
#[derive(Debug)]
enum Seen {
    /// It is good by itself.
    Good(Parsed),
    /// It is not.
    Bad(Vec<DocumentError>),
}

impl Admission {
    /// No objects yet, on the node of this name; on none where that is empty.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            seen: BTreeMap::new(),
            accepted: BTreeMap::new(),
            cluster: Cluster::default(),
            faults: Vec::new(),
            changed: BTreeSet::new(),
            gone: false,
        }
    }

    /// An accepted Node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.cluster.nodes.get(name).map(AsRef::as_ref)
    }

    /// The names of the objects of a kind, accepted or not.
    #[must_use]
    pub fn names(&self, kind: Kind) -> BTreeSet<String> {
        self.seen.keys().filter(|id| id.0 == kind).map(|id| id.1.clone()).collect()
    }

    /// How many Nodes are accepted.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.cluster.nodes.len()
    }

    /// Whether the node has to know of Services; nobody has.
    #[must_use]
    pub fn announces_services(&self) -> bool {
        !self.node.is_empty() && are_announced(&self.cluster, &self.node)
    }

    /// Takes in an object as it is now.
    pub fn apply(&mut self, kind: Kind, name: &str, object: Json) {
        let seen = match decode::one(object, Origin::Api) {
            Err(errors) => Seen::Bad(errors),
            Ok(parsed) => {
                let errors = check::each(std::slice::from_ref(&parsed));
                if errors.is_empty() { Seen::Good(parsed) } else { Seen::Bad(errors) }
            }
        };
        let id = (kind, name.to_owned());
        self.changed.insert(id.clone());
        self.seen.insert(id, seen);
    }

    /// Forgets an object; one that is not there is no error.
    pub fn delete(&mut self, kind: Kind, name: &str) {
        let id = (kind, name.to_owned());
        self.seen.remove(&id);
        self.changed.remove(&id);
        if Kind::OF_SERVICES.contains(&kind) {
            self.cluster.delete(kind, name);
        } else if self.accepted.remove(&id).is_some() {
            self.cluster.delete(kind, name);
            // Only filters are named by others; the absence of anything else can but mend.
            self.gone |= kind == Kind::BgpFilter || !self.faults.is_empty();
        }
    }

    /// Accepts what makes sense beside the rest, and says what is in force: what is accepted, or was before it became bad.
    pub fn settle(&mut self) -> Reading {
        if std::mem::take(&mut self.gone) {
            // What a deletion has made of objects in force is nobody else's fault.
            self.faults = self.together(&self.accepted);
        }
        let mut pending = self.pending();
        let rejected = loop {
            let rejected = self.admit(&pending);
            // One may have waited for another that came behind it.
            if rejected.len() == pending.len() || rejected.is_empty() {
                break rejected;
            }
            pending.retain(|(id, _)| rejected.contains_key(id));
        };
        self.changed = rejected.keys().cloned().collect();
        let bad = self.seen.values().filter_map(|seen| match seen {
            Seen::Good(_) => None,
            Seen::Bad(errors) => Some(errors.clone()),
        });
        let mut errors: Vec<DocumentError> = bad.chain(rejected.into_values()).flatten().collect();
        errors.extend(self.faults.iter().cloned());
        errors.sort();
        errors.dedup();
        Reading { cluster: Some(self.cluster.clone()), errors, versions: BTreeMap::new() }
    }

    /// What is to be looked at beside the rest. What the check between objects does not look at is accepted here.
    fn pending(&mut self) -> Vec<(Id, Parsed)> {
        let mut pending = Vec::new();
        for id in std::mem::take(&mut self.changed) {
            let Some(Seen::Good(parsed)) = self.seen.get(&id) else { continue };
            let parsed = parsed.clone();
            if Kind::OF_SERVICES.contains(&id.0) {
                self.cluster.apply(parsed.name, parsed.object);
                continue;
            }
            match self.accepted.get(&id) {
                Some(before) if before.object == parsed.object => {}
                Some(before) if self.alike(before, &parsed) => self.accept(id, parsed),
                _ => pending.push((id, parsed)),
            }
        }
        // Peers name filters: those first.
        pending.sort_by_key(|((kind, _), _)| *kind == Kind::BgpPeer);
        pending
    }

    /// Whether the check between objects can tell no difference: nodes' labels change often, and with their
    /// taints count for the own node only.
    fn alike(&self, before: &Parsed, now: &Parsed) -> bool {
        match (&before.object, &now.object) {
            (Object::Node(before), Object::Node(after)) => {
                now.name != self.node
                    && (&before.pod_cidrs, &before.addresses) == (&after.pod_cidrs, &after.addresses)
            }
            (Object::Namespace(_), Object::Namespace(_)) => true,
            _ => false,
        }
    }

    fn accept(&mut self, id: Id, parsed: Parsed) {
        self.cluster.apply(parsed.name.clone(), parsed.object.clone());
        self.accepted.insert(id, parsed);
    }

    /// Accepts as many of `pending` as go together, and returns the others with their errors. One bad object among many is found
    /// by halves.
    fn admit(&mut self, pending: &[(Id, Parsed)]) -> BTreeMap<Id, Vec<DocumentError>> {
        if pending.is_empty() {
            return BTreeMap::new();
        }
        let mut trial = self.accepted.clone();
        trial.extend(pending.iter().cloned());
        let faults = self.together(&trial);
        let new: Vec<DocumentError> =
            faults.iter().filter(|fault| !self.faults.contains(fault)).cloned().collect();
        if new.is_empty() {
            pending.iter().cloned().for_each(|(id, parsed)| self.accept(id, parsed));
            self.faults = faults;
            return BTreeMap::new();
        }
        match pending {
            [(id, object)] => BTreeMap::from([(id.clone(), blame(object, new))]),
            many => {
                let (first, second) = many.split_at(many.len() / 2);
                let mut rejected = self.admit(first);
                rejected.extend(self.admit(second));
                rejected
            }
        }
    }

    fn together(&self, objects: &BTreeMap<Id, Parsed>) -> Vec<DocumentError> {
        let parsed: Vec<Parsed> = objects.values().cloned().collect();
        let mut cluster = Cluster::default();
        for object in &parsed {
            cluster.apply(object.name.clone(), object.object.clone());
        }
        check::together(&parsed, &cluster, &check::Scope::Api(self.node.clone()))
    }
}

/// The faults that an object brings, said of that object: the others were there before.
fn blame(object: &Parsed, faults: Vec<DocumentError>) -> Vec<DocumentError> {
    let title = object.title();
    let said_of = |fault: DocumentError| match &fault.object {
        Some(other) if *other != title => DocumentError {
            object: Some(title.clone()),
            field: None,
            message: format!("{other}: {}", fault.message),
            ..fault
        },
        _ => fault,
    };
    faults.into_iter().map(said_of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, name: &str, spec: Json) -> Json {
        json!({"apiVersion": "weft.network/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    }

    fn pool(admission: &mut Admission, name: &str, cidr: &str) {
        admission.apply(Kind::IpPool, name, object("IPPool", name, json!({"cidr": cidr})));
    }

    fn peer(admission: &mut Admission, name: &str, filters: &[&str]) {
        let spec = json!({"peerIP": "192.0.2.1", "asNumber": 65000, "filters": filters});
        admission.apply(Kind::BgpPeer, name, object("BGPPeer", name, spec));
    }

    fn filter(admission: &mut Admission, name: &str) {
        let spec = json!({"importV4": [{"action": "Accept"}]});
        admission.apply(Kind::BgpFilter, name, object("BGPFilter", name, spec));
    }

    fn node(admission: &mut Admission, name: &str, pod_cidr: &str) {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"podCIDRs": [pod_cidr]}, "status": {"capacity": {"cpu": "2"}}});
        admission.apply(Kind::Node, name, node);
    }

    /// What is in force, and the errors.
    fn settled(admission: &mut Admission) -> (Cluster, Vec<DocumentError>) {
        let reading = admission.settle();
        (reading.cluster.unwrap(), reading.errors)
    }

    fn objects(errors: &[DocumentError]) -> Vec<&str> {
        errors.iter().filter_map(|error| error.object.as_deref()).collect()
    }

    #[test]
    fn a_bad_object_disturbs_no_other_and_keeps_its_last_accepted_spec() {
        let mut admission = Admission::new("n1");
        node(&mut admission, "n1", "10.244.0.0/24");
        pool(&mut admission, "a", "10.244.0.0/16");
        let (good, errors) = settled(&mut admission);
        assert_eq!(errors, []);
        pool(&mut admission, "a", "10.244.0.1/16");
        pool(&mut admission, "b", "10.9.0.0/16");
        let (cluster, errors) = settled(&mut admission);
        assert_eq!(objects(&errors), ["IPPool/a"]);
        assert_eq!(cluster.pools["a"], good.pools["a"]);
        assert!(cluster.pools.contains_key("b"));
        let said = &errors[0];
        assert_eq!((said.file.as_deref(), said.line, said.field.as_deref()), (None, None, Some("spec.cidr")));
        // Bad from the start, it is not in force at all; right again, it is.
        pool(&mut admission, "c", "nonsense");
        assert!(!settled(&mut admission).0.pools.contains_key("c"));
        pool(&mut admission, "c", "10.8.0.0/16");
        pool(&mut admission, "a", "10.244.0.0/16");
        let (cluster, errors) = settled(&mut admission);
        assert!(errors.is_empty() && cluster.pools.contains_key("c"), "{errors:?}");
    }

    #[test]
    fn who_comes_later_gives_way() {
        let mut admission = Admission::new("n1");
        pool(&mut admission, "a", "10.244.0.0/16");
        admission.settle();
        // A wider one sorts first, and yet it is the one that came later.
        pool(&mut admission, "wide", "10.0.0.0/8");
        let (cluster, errors) = settled(&mut admission);
        assert_eq!(objects(&errors), ["IPPool/wide"]);
        assert!(errors[0].message.starts_with("IPPool/a: "), "{errors:?}");
        assert_eq!(cluster.pools.keys().collect::<Vec<_>>(), ["a"]);
        admission.delete(Kind::IpPool, "a");
        let (cluster, errors) = settled(&mut admission);
        assert_eq!((errors.len(), cluster.pools.len()), (0, 1));
    }

    #[test]
    fn one_waits_for_another_whichever_comes_first() {
        let mut admission = Admission::new("n1");
        peer(&mut admission, "tor", &["from-tor"]);
        let (cluster, errors) = settled(&mut admission);
        assert_eq!(objects(&errors), ["BGPPeer/tor"]);
        assert!(cluster.peers.is_empty());
        filter(&mut admission, "from-tor");
        let (cluster, errors) = settled(&mut admission);
        assert_eq!((errors.len(), cluster.peers.len()), (0, 1));
        // What is in force stays so, and the error is told.
        admission.delete(Kind::BgpFilter, "from-tor");
        pool(&mut admission, "a", "10.244.0.0/16");
        let (cluster, errors) = settled(&mut admission);
        assert_eq!(objects(&errors), ["BGPPeer/tor"]);
        assert_eq!((cluster.peers.len(), cluster.pools.len()), (1, 1));
    }

    #[test]
    fn a_node_may_come_after_what_names_it() {
        let mut admission = Admission::new("n1");
        let spec = json!({"node": "n7", "cidr": "10.244.0.0/26"});
        admission.apply(Kind::IpBlock, "b", object("IPBlock", "b", spec));
        let configuration = object("BGPConfiguration", "node.n7", json!({"asNumber": 65001}));
        admission.apply(Kind::BgpConfiguration, "node.n7", configuration);
        assert_eq!(settled(&mut admission).1, []);
    }

    #[test]
    fn what_changes_is_in_force_whether_it_had_to_be_checked_or_not() {
        let mut admission = Admission::new("n1");
        let labelled = |name: &str, rack: &str, pod_cidr: &str| {
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"rack": rack}},
                "spec": {"podCIDRs": [pod_cidr]}})
        };
        for (name, pod_cidr) in [("n1", "10.1.0.0/24"), ("n2", "10.2.0.0/24"), ("n3", "10.3.0.0/24")] {
            admission.apply(Kind::Node, name, labelled(name, "a", pod_cidr));
        }
        assert_eq!(settled(&mut admission).1, []);
        admission.apply(Kind::Node, "n1", labelled("n1", "b", "10.1.0.0/24"));
        admission.apply(Kind::Node, "n2", labelled("n2", "b", "10.2.0.0/24"));
        // This one takes another's block.
        admission.apply(Kind::Node, "n3", labelled("n3", "b", "10.2.0.0/25"));
        let (cluster, errors) = settled(&mut admission);
        let racks: Vec<&str> = cluster.nodes.values().map(|node| node.labels["rack"].as_str()).collect();
        assert_eq!((racks, objects(&errors)), (vec!["b", "b", "a"], vec!["Node/n3"]));
        // Told again until the other one is gone.
        assert_eq!(objects(&settled(&mut admission).1), ["Node/n3"]);
        admission.delete(Kind::Node, "n2");
        let (cluster, errors) = settled(&mut admission);
        assert_eq!((cluster.nodes["n3"].labels["rack"].as_str(), errors.len()), ("b", 0));
    }

    #[test]
    fn a_taint_that_comes_and_goes_is_in_force_at_once() {
        let mut admission = Admission::new("n1");
        let tainted = |name: &str, pod_cidr: &str, taints: Json| {
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "spec": {"podCIDRs": [pod_cidr], "taints": taints}})
        };
        let drain = json!([{"key": "weft.network/drain", "value": "x", "effect": "NoSchedule"}]);
        for (taints, count) in [(json!([]), 0), (drain, 1), (json!([]), 0)] {
            for (name, pod_cidr) in [("n1", "10.1.0.0/24"), ("n2", "10.2.0.0/24")] {
                admission.apply(Kind::Node, name, tainted(name, pod_cidr, taints.clone()));
            }
            let (cluster, errors) = settled(&mut admission);
            assert_eq!(errors, []);
            assert!(cluster.nodes.values().all(|node| node.drain_taints.len() == count), "{cluster:?}");
        }
        let errors =
            admission_errors(&mut admission, tainted("n1", "10.1.0.0/24", json!([{"effect": "NoSchedule"}])));
        assert_eq!(errors, ["spec.taints[0].key"]);
    }

    fn admission_errors(admission: &mut Admission, node: Json) -> Vec<String> {
        admission.apply(Kind::Node, "n1", node);
        settled(admission).1.into_iter().filter_map(|error| error.field).collect()
    }

    #[test]
    fn a_bad_service_stays_as_it_was_and_one_that_goes_is_gone() {
        let mut admission = Admission::new("n1");
        let service = |ip: &str| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"clusterIP": ip}})
        };
        admission.apply(Kind::Service, "shop/web", service("10.96.0.1"));
        let (good, errors) = settled(&mut admission);
        assert_eq!((good.services.len(), errors.len()), (1, 0));
        admission.apply(Kind::Service, "shop/web", service("nonsense"));
        let (cluster, errors) = settled(&mut admission);
        assert_eq!((&cluster.services, objects(&errors)), (&good.services, vec!["Service/web"]));
        admission.delete(Kind::Service, "shop/web");
        let (cluster, errors) = settled(&mut admission);
        assert_eq!((cluster.services.len(), errors.len()), (0, 0));
    }

    #[test]
    fn few_bad_among_many_are_found() {
        let mut admission = Admission::new("n1");
        for index in 0..200 {
            let block = if index == 77 { 3 } else { index };
            node(&mut admission, &format!("n{index:03}"), &format!("10.{block}.0.0/24"));
        }
        let (cluster, errors) = settled(&mut admission);
        assert_eq!(objects(&errors), ["Node/n077"]);
        assert_eq!(cluster.nodes.len(), 199);
        for name in admission.names(Kind::Node).into_iter().filter(|name| name != "n077") {
            admission.delete(Kind::Node, &name);
        }
        let (cluster, errors) = settled(&mut admission);
        assert_eq!((errors.len(), cluster.nodes.len()), (0, 1));
    }
}
