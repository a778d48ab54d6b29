//! The objects of an API server, each by itself: a bad one disturbs no other, and what was accepted of it before stays in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value as Json;

use super::{Origin, Parsed, Reading, check, decode};
use crate::api::json::DocumentError;
use crate::cluster::{Cluster, Kind, Node, Object};
use crate::plan::{are_announced, are_told_apart, secrets_of};

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

    /// The Secrets that the node has to know of; nobody has.
    #[must_use]
    pub fn secrets(&self) -> BTreeSet<String> {
        secrets_of(&self.cluster, &self.node)
    }

    /// Takes in an object as it is now. Tells whether that can make a difference to the node: if not, it is in force already, and there is no
    /// need to [`settle`](Self::settle).
    pub fn apply(&mut self, kind: Kind, name: &str, object: Json) -> bool {
        let id = (kind, name.to_owned());
        let seen = match decode::one(object, Origin::Api) {
            Err(errors) => Seen::Bad(errors),
            Ok(parsed) => {
                let parsed = self.as_it_concerns(parsed);
                let errors = check::each(std::slice::from_ref(&parsed));
                if !errors.is_empty() {
                    Seen::Bad(errors)
                } else if self.is_indifferent(&id, &parsed.object) {
                    self.put_in_force(id.clone(), parsed.clone());
                    self.seen.insert(id, Seen::Good(parsed));
                    return false;
                } else {
                    Seen::Good(parsed)
                }
            }
        };
        self.changed.insert(id.clone());
        self.seen.insert(id, seen);
        true
    }

    /// Of the many endpoints of a large cluster, the node needs to know which are its own.
    fn as_it_concerns(&self, mut parsed: Parsed) -> Parsed {
        if let Object::EndpointSlice(slice) = &mut parsed.object
            && !self.node.is_empty()
        {
            Arc::make_mut(slice).see_from(&self.node);
        }
        parsed
    }

    /// Whether an object in force may become `now` without a look at the rest. In a large cluster some Node changes all the time, but
    /// seldom so that it matters to another.
    fn is_indifferent(&self, id: &Id, now: &Object) -> bool {
        let Some(Seen::Good(before)) = self.seen.get(id) else { return false };
        let before = &before.object;
        !self.changed.contains(id)
            && (before == now
                || !self.node.is_empty()
                    && self.are_alike(&id.1, before, now)
                    && !are_told_apart(&self.cluster, before, now))
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
            // Only filters and profiles are named by others, and configurations inherited from; the absence of anything else can but mend.
            let leans_on = matches!(kind, Kind::BgpFilter | Kind::BfdProfile | Kind::BgpConfiguration);
            self.gone |= leans_on || !self.faults.is_empty();
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
            let checked = !Kind::OF_SERVICES.contains(&id.0);
            match self.accepted.get(&id).filter(|_| checked) {
                Some(before) if before.object == parsed.object => {}
                Some(before) if !self.are_alike(&id.1, &before.object, &parsed.object) => {
                    pending.push((id, parsed));
                }
                None if checked => pending.push((id, parsed)),
                _ => self.put_in_force(id, parsed),
            }
        }
        // Peers name filters and profiles, and configurations name profiles: those first.
        pending.sort_by_key(|((kind, _), _)| matches!(kind, Kind::BgpPeer | Kind::BgpConfiguration));
        pending
    }

    /// Whether the check between objects can tell no difference: nodes' labels change often, and with their
    /// taints count for the own node only.
    fn are_alike(&self, name: &str, before: &Object, now: &Object) -> bool {
        match (before, now) {
            (Object::Node(before), Object::Node(after)) => {
                name != self.node
                    && (&before.pod_cidrs, &before.addresses) == (&after.pod_cidrs, &after.addresses)
            }
            (Object::Namespace(_), Object::Namespace(_)) => true,
            _ => false,
        }
    }

    fn put_in_force(&mut self, id: Id, parsed: Parsed) {
        self.cluster.apply(parsed.name.clone(), parsed.object.clone());
        if !Kind::OF_SERVICES.contains(&id.0) {
            self.accepted.insert(id, parsed);
        }
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
            pending.iter().cloned().for_each(|(id, parsed)| self.put_in_force(id, parsed));
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
mod tests;
