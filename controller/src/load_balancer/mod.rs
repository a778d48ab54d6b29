//! Services of type LoadBalancer and their addresses: who is given one of which pool, who gives one back.
//!
//! An address is claimed before it is written into a Service's status, by a LoadBalancerIP that is named after it ([`name`]), so that the
//! API server itself refuses to give one twice. The claim says in which state (`resourceVersion`) of the Service the address may be
//! written into its status, and the write is of just this state. It comes back the other way round: the status is cleared; the
//! Service is taken out of the claim only after a look at the live Service has shown that it does not have the address and is in
//! another state than the claim says, so that no write which somebody still has under way can succeed; the claim without a Service rests,
//! then it is deleted. So whoever works on old news, or dies between two steps, gives no address twice.
//!
//! LoadBalancerIPs that cannot be read were made by people, and are left to them.

mod keeper;
mod plan;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use weft_bgp::types::Family;

pub use self::keeper::{Keeper, News};
pub use self::plan::plan;
use crate::api::{IPPoolSpec, Labels, LoadBalancerIPHolder, LoadBalancerIPSpec};
use crate::blocks::name_of_address;

/// The pools that a Service's addresses come from: a JSON list of names, in order.
pub const POOLS_ANNOTATION: &str = "weft.network/pools";
/// The addresses that a Service asks for, parted by commas, one of a family.
pub const ADDRESSES_ANNOTATION: &str = "weft.network/load-balancer-ips";
/// Services of one Namespace with the same value may share an address.
pub const SHARING_ANNOTATION: &str = "weft.network/sharing-key";
/// The type of the condition by which a Service is told.
pub const CONDITION: &str = "weft.network/AddressAssigned";

/// What counts of a `v1` Service here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// What it asks for, or what is wrong with that; nothing if it is of another type.
    pub wish: Option<Result<Wish, String>>,
    /// With whom it may share an address.
    pub sharing: Sharing,
    /// `spec.externalIPs`.
    pub external_ips: BTreeSet<IpAddr>,
    /// `status.loadBalancer.ingress`: addresses that packets come with; nothing where it is a name or something else.
    pub ingress: Vec<Option<IpAddr>>,
    /// What it was told last, and since when it is so (RFC 3339).
    pub told: Option<(Told, String)>,
}

impl Service {
    fn shows(&self, address: IpAddr) -> bool {
        self.ingress.contains(&Some(address))
    }

    fn shown(&self) -> impl Iterator<Item = IpAddr> {
        self.ingress.iter().copied().flatten()
    }
}

/// What a Service of type LoadBalancer asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// `spec.ipFamilies`.
    pub families: Vec<Family>,
    /// `spec.ipFamilyPolicy` is RequireDualStack: all families, or nothing.
    pub all: bool,
    /// The addresses asked for.
    pub requested: BTreeMap<Family, IpAddr>,
    /// The pools asked for.
    pub pools: Option<Vec<String>>,
}

/// With whom a Service may share an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// The value of the annotation; none: with nobody.
    pub key: Option<String>,
    /// Protocols and ports.
    pub ports: BTreeSet<(String, i32)>,
    /// `spec.externalTrafficPolicy` is Local.
    pub local: bool,
    /// `spec.selector`.
    pub selector: BTreeMap<String, String>,
}

impl Sharing {
    /// Whether two Services of one Namespace may have one address: no packet is for both, and every node that is sent packets for one
    /// answers for the other.
    #[must_use]
    pub fn may_share(&self, other: &Self) -> bool {
        self.key.is_some()
            && self.key == other.key
            && self.ports.is_disjoint(&other.ports)
            && ((!self.local && !other.local) || self.has_selector_of(other))
    }

    /// Without a selector nobody knows whether the endpoints are the same.
    fn has_selector_of(&self, other: &Self) -> bool {
        !self.selector.is_empty() && self.selector == other.selector
    }
}

/// What a Service is told: its condition of type [`CONDITION`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether it has what it asks for.
    pub holds: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

/// A LoadBalancerIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// What it says, if that can be read.
    pub spec: Option<LoadBalancerIPSpec>,
}

impl Claim {
    fn holders(&self) -> &[LoadBalancerIPHolder] {
        self.spec.as_ref().map_or(&[], |spec| &spec.services)
    }

    fn is_empty(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.services.is_empty())
    }
}

/// What the plan is made of. Services are named `NAMESPACE/NAME`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// IPPools.
    pub pools: &'a BTreeMap<String, Arc<IPPoolSpec>>,
    /// The labels of Namespaces.
    pub namespaces: &'a BTreeMap<String, Arc<Labels>>,
    /// Services of type LoadBalancer, and others that have an address, of `spec.externalIPs` too, or were told something.
    pub services: &'a BTreeMap<String, Arc<Service>>,
    /// LoadBalancerIPs.
    pub claims: &'a BTreeMap<String, Arc<Claim>>,
    /// The claims that have been without a Service for long enough.
    pub rested: &'a BTreeSet<String>,
    /// The `loadBalancerClass` that is ours.
    pub class: &'a str,
    /// Whether Services without a class are ours.
    pub default: bool,
}

/// What to do. Each is done only if the object is still in the state that it was taken to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Claim an address for a Service.
    Claim {
        /// The address.
        address: IpAddr,
        /// Who gets it.
        holder: LoadBalancerIPHolder,
        /// The claim that others have it by; none: make it.
        claim: Option<Arc<Claim>>,
    },
    /// Take down in the claim in which state the Service is.
    Renew {
        /// The address.
        address: IpAddr,
        /// Whose state it is.
        holder: LoadBalancerIPHolder,
        /// The claim.
        claim: Arc<Claim>,
    },
    /// Take a Service out of the claim.
    Release {
        /// The address.
        address: IpAddr,
        /// Who no longer has it.
        holder: LoadBalancerIPHolder,
        /// The claim.
        claim: Arc<Claim>,
    },
    /// Delete a claim of nobody.
    Delete {
        /// The address.
        address: IpAddr,
        /// The claim.
        claim: Arc<Claim>,
    },
    /// Write addresses into a Service's status, in place of those that are there.
    Assign {
        /// The Service.
        service: String,
        /// The state that it is in.
        before: Arc<Service>,
        /// All its addresses.
        addresses: Vec<IpAddr>,
        /// What it is told besides.
        told: Option<Told>,
    },
    /// Write a Service's condition, or take it out.
    Tell {
        /// The Service.
        service: String,
        /// The state that it is in.
        before: Arc<Service>,
        /// What it is told.
        told: Option<Told>,
    },
}

impl Change {
    /// The Service that must be looked at before the change is made, if any.
    #[must_use]
    pub fn look_at(&self) -> Option<&LoadBalancerIPHolder> {
        match self {
            Self::Renew { holder, .. } | Self::Release { holder, .. } => Some(holder),
            _ => None,
        }
    }

    /// The Services that a claim is to have, by what the live Service of [`Self::look_at`] is; none: the change is not to be made.
    #[must_use]
    pub fn services(&self, live: Option<&Service>) -> Option<Vec<LoadBalancerIPHolder>> {
        match self {
            Self::Claim { holder, claim, .. } => {
                let before = claim.as_ref().map_or(&[][..], |claim| claim.holders());
                Some(before.iter().chain([holder]).cloned().collect())
            }
            Self::Renew { holder, claim, .. } => {
                let live = live.filter(|live| live.uid == holder.uid)?;
                // Only a state that is over may be replaced: nothing can be written of it any more.
                if live.resource_version == holder.resource_version {
                    return None;
                }
                let resource_version = live.resource_version.clone();
                let renewed = LoadBalancerIPHolder { resource_version, ..holder.clone() };
                let renew = |one: &LoadBalancerIPHolder| if one == holder { &renewed } else { one }.clone();
                Some(claim.holders().iter().map(renew).collect())
            }
            Self::Release { address, holder, claim } => {
                let live = live.filter(|live| live.uid == holder.uid);
                let may_have =
                    |live: &Service| live.shows(*address) || live.resource_version == holder.resource_version;
                if live.is_some_and(may_have) {
                    return None;
                }
                Some(claim.holders().iter().filter(|one| *one != holder).cloned().collect())
            }
            Self::Delete { .. } | Self::Assign { .. } | Self::Tell { .. } => None,
        }
    }
}

/// A Service that cannot have an address, as the pools are too small.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shortage {
    /// The IPPool.
    pub pool: String,
    /// The Service.
    pub service: String,
}

/// What should be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub changes: Vec<Change>,
    /// What Services are to be told, by Service: there is no hurry.
    pub tells: BTreeMap<String, Change>,
    /// In order.
    pub shortages: Vec<Shortage>,
    /// How many Services do not have what they ask for.
    pub refused: usize,
    /// How many addresses of each IPPool Services have.
    pub used: BTreeMap<String, u64>,
}

/// The name of the LoadBalancerIP of an address: the same of the same address, and a DNS subdomain (RFC 1123).
#[must_use]
pub fn name(address: IpAddr) -> String {
    name_of_address(address)
}

/// The address that a LoadBalancerIP of this name is of.
#[must_use]
pub fn address_of(claim: &str) -> Option<IpAddr> {
    let address = claim.parse().ok().filter(IpAddr::is_ipv4);
    let address = address.or_else(|| claim.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6));
    // Of one address there is one name.
    address.filter(|address| name(*address) == claim)
}

/// A Service's name with its Namespace.
fn key(holder: &LoadBalancerIPHolder) -> String {
    format!("{}/{}", holder.namespace, holder.name)
}

#[cfg(test)]
mod tests;
