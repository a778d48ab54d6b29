//! The objects of an API server, each by itself: a bad one disturbs no other, and what was accepted of it before stays in force.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Origin, Parsed, Reading, check, decode};
use crate::api::json::DocumentError;
use crate::cluster::{Cluster, Kind};

/// An object's kind and name.
type Id = (Kind, String);

/// Every object as it is, and as it was last accepted.
#[derive(Debug)]
pub struct Admission {
    scope: check::Scope,
    seen: BTreeMap<Id, Seen>,
    accepted: BTreeMap<Id, Parsed>,
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
    /// No objects yet, on the node of this name.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self { scope: check::Scope::Api(node.to_owned()), seen: BTreeMap::new(), accepted: BTreeMap::new() }
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
        self.seen.insert((kind, name.to_owned()), seen);
    }

    /// Forgets an object; one that is not there is no error.
    pub fn delete(&mut self, kind: Kind, name: &str) {
        let id = (kind, name.to_owned());
        self.seen.remove(&id);
        self.accepted.remove(&id);
    }

    /// Forgets the objects of a kind that are not among `names`, as after a fresh list.
    pub fn retain(&mut self, kind: Kind, names: &BTreeSet<String>) {
        let stays = |id: &Id| id.0 != kind || names.contains(&id.1);
        self.seen.retain(|id, _| stays(id));
        self.accepted.retain(|id, _| stays(id));
    }

    /// Accepts what makes sense beside the rest, and says what is in force: what is accepted, or was before it became bad.
    pub fn settle(&mut self) -> Reading {
        // What a deletion has made of objects in force is nobody else's fault.
        let known: BTreeSet<DocumentError> = self.faults(&self.accepted).into_iter().collect();
        let changed = |(id, seen): (&Id, &Seen)| match seen {
            Seen::Good(parsed) if self.accepted.get(id).is_none_or(|old| old.object != parsed.object) => {
                Some((id.clone(), parsed.clone()))
            }
            _ => None,
        };
        let mut pending: Vec<(Id, Parsed)> = self.seen.iter().filter_map(changed).collect();
        // Peers name filters: those first.
        pending.sort_by_key(|((kind, _), _)| *kind == Kind::BgpPeer);
        let rejected = loop {
            let rejected = self.admit(&pending, &known);
            // One may have waited for another that came behind it.
            if rejected.len() == pending.len() || rejected.is_empty() {
                break rejected;
            }
            pending.retain(|(id, _)| rejected.contains_key(id));
        };
        let bad = self.seen.values().filter_map(|seen| match seen {
            Seen::Good(_) => None,
            Seen::Bad(errors) => Some(errors.clone()),
        });
        let mut errors: Vec<DocumentError> = bad.chain(rejected.into_values()).flatten().collect();
        errors.extend(self.faults(&self.accepted));
        errors.sort();
        errors.dedup();
        Reading { cluster: Some(cluster(self.accepted.values())), errors }
    }

    /// Accepts as many of `pending` as go together, and returns the others with their errors. One bad object among many is found
    /// by halves.
    fn admit(
        &mut self,
        pending: &[(Id, Parsed)],
        known: &BTreeSet<DocumentError>,
    ) -> BTreeMap<Id, Vec<DocumentError>> {
        let mut trial = self.accepted.clone();
        trial.extend(pending.iter().cloned());
        let faults: Vec<DocumentError> =
            self.faults(&trial).into_iter().filter(|fault| !known.contains(fault)).collect();
        if faults.is_empty() {
            self.accepted = trial;
            return BTreeMap::new();
        }
        match pending {
            [] => BTreeMap::new(),
            [(id, object)] => BTreeMap::from([(id.clone(), blame(object, faults))]),
            many => {
                let (first, second) = many.split_at(many.len() / 2);
                let mut rejected = self.admit(first, known);
                rejected.extend(self.admit(second, known));
                rejected
            }
        }
    }

    fn faults(&self, objects: &BTreeMap<Id, Parsed>) -> Vec<DocumentError> {
        let parsed: Vec<Parsed> = objects.values().cloned().collect();
        check::together(&parsed, &cluster(&parsed), &self.scope)
    }
}

fn cluster<'a>(objects: impl IntoIterator<Item = &'a Parsed>) -> Cluster {
    let mut cluster = Cluster::default();
    for parsed in objects {
        cluster.apply(parsed.name.clone(), parsed.object.clone());
    }
    cluster
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
    fn few_bad_among_many_are_found() {
        let mut admission = Admission::new("n1");
        for index in 0..200 {
            let block = if index == 77 { 3 } else { index };
            node(&mut admission, &format!("n{index:03}"), &format!("10.{block}.0.0/24"));
        }
        let (cluster, errors) = settled(&mut admission);
        assert_eq!(objects(&errors), ["Node/n077"]);
        assert_eq!(cluster.nodes.len(), 199);
        admission.retain(Kind::Node, &BTreeSet::from(["n077".to_owned()]));
        let (cluster, errors) = settled(&mut admission);
        assert_eq!((errors.len(), cluster.nodes.len()), (0, 1));
    }
}
