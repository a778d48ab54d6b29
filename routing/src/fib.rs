//! The kernel's forwarding table as the engine sees it: read whole, written in batches, heard when it changes.

use crate::netlink::{Address, Error, Link, Neighbour};
use crate::nexthop::{Nexthop, Nexthops};
use crate::route::{Action, Protocol, Route, RouteKey};

/// Everything the engine needs to know of the kernel, read at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// All routes of table main, ours and others'. Of those over nexthop objects only ours over ours name these; the others have the legs
    /// that theirs stand for.
    pub routes: Vec<Route>,
    /// All nexthop objects; `None` where the kernel has no such thing.
    pub nexthops: Option<Nexthops>,
    /// All permanent neighbour entries.
    pub neighbours: Vec<Neighbour>,
}

impl Snapshot {
    /// The routes with the legs that nexthop objects stand for.
    pub fn resolved_routes(&self) -> impl Iterator<Item = Route> {
        self.routes.iter().map(|route| match (&route.action, &self.nexthops) {
            (Action::Object(id), Some(objects)) => {
                Route { action: Action::Forward(objects.legs(*id)), ..route.clone() }
            }
            _ => route.clone(),
        })
    }
}

/// One change asked of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Write {
    /// Add a route whose key must be free (`NLM_F_CREATE | NLM_F_EXCL`).
    Add(Route),
    /// Write a route over one that is known to be ours (`NLM_F_CREATE | NLM_F_REPLACE`).
    Replace(Route),
    /// Delete the route with this key and protocol.
    Delete(RouteKey, Protocol),
    /// Set a permanent neighbour entry.
    Neighbour(Neighbour),
    /// Make a nexthop object whose id must be free (`NLM_F_CREATE | NLM_F_EXCL`).
    AddNexthop(Nexthop),
    /// Let an object that is known to be ours stand for something else (`NLM_F_REPLACE`): all routes over it follow.
    ReplaceNexthop(Nexthop),
    /// Delete an object that is known to be ours. The kernel takes the routes over it along.
    DeleteNexthop(u32),
}

impl Write {
    /// The nexthop object that it makes a route go over.
    pub(crate) fn object(&self) -> Option<u32> {
        match self {
            Self::Add(Route { action: Action::Object(id), .. })
            | Self::Replace(Route { action: Action::Object(id), .. }) => Some(*id),
            _ => None,
        }
    }
}

/// Something that changed in the kernel, by whomever except this [`Fib`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// A route appeared. `replaced`: it took the place of the route that held its key.
    RouteAdded {
        /// The route as it is now.
        route: Route,
        /// It took the place of whatever held the key (`NLM_F_REPLACE`).
        replaced: bool,
    },
    /// A route, or the named legs of it, went.
    RouteRemoved(Route),
    /// A link appeared or changed.
    Link(Link),
    /// The link with this index went.
    LinkRemoved(u32),
    /// An address appeared or changed.
    Address(Address),
    /// An address went.
    AddressRemoved(Address),
    /// A permanent neighbour entry was set.
    Neighbour(Neighbour),
    /// The neighbour with this link index and address is no permanent entry any more.
    NeighbourRemoved(u32, std::net::IpAddr),
    /// Nexthop objects changed, and with them where the routes that name them lead.
    NexthopObjects,
    /// Notifications were lost: only a dump tells what is true.
    Overrun,
}

/// The kernel's tables, or a stand-in for them.
///
/// An implementation is subscribed to changes from its creation on, so that no change between a
/// [`dump`](Self::dump) and the next [`notifications`](Self::notifications) is missed. A change may be reported
/// although a dump already showed it.
pub trait Fib {
    /// Reads everything.
    fn dump(&mut self) -> Result<Snapshot, Error>;

    /// Reads the nexthop objects alone; `None` where the kernel has no such thing.
    fn nexthops(&mut self) -> Result<Option<Nexthops>, Error>;

    /// Carries out writes in order; one result for each. A refused write does not stop those behind it.
    fn apply(&mut self, writes: &[Write]) -> Vec<Result<(), Error>>;

    /// Begins to carry out writes, of which none needs another that is applied meanwhile, behind those that were begun before. Two batches are
    /// begun and not finished at most.
    fn begin<'a>(&mut self, writes: impl IntoIterator<Item = &'a Write>);

    /// Waits for what was begun first: one result for each write, as of [`Self::apply`].
    fn finish(&mut self) -> Vec<Result<(), Error>>;

    /// What changed since the last call, in order, at most a few thousand at a time; empty when nothing is
    /// left. Never waits.
    fn notifications(&mut self) -> Vec<Notification>;
}
