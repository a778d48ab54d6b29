//! A [`Fib`] in memory: the kernel's rules for routes without a kernel, and failures on demand.
//!
//! Stands in for the kernel in tests and where only the outcome is asked for.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use nix::errno::Errno;

use crate::fib::{Fib, Notification, Snapshot, Write};
use crate::netlink::{Address, Error, Link, Mac, Neighbour, Refusal};
use crate::nexthop::{Nexthop, NexthopKind, Nexthops};
use crate::route::{Action, Protocol, Route, RouteKey};

/// Links, addresses, routes and neighbours as the kernel would keep them.
#[derive(Debug)]
pub struct MemoryFib {
    links: BTreeMap<u32, Link>,
    addresses: Vec<Address>,
    routes: BTreeMap<RouteKey, Route>,
    neighbours: BTreeMap<(u32, IpAddr), Mac>,
    /// `None`: a kernel without nexthop objects.
    nexthops: Option<Nexthops>,
    has_resilient_groups: bool,
    notifications: VecDeque<Notification>,
    /// Those that come later than they happened.
    late: VecDeque<Notification>,
    refusals: VecDeque<Option<Errno>>,
    failing_dumps: usize,
    writes: usize,
    /// What became of the batches that were begun.
    begun: VecDeque<Vec<Result<(), Error>>>,
}

impl Default for MemoryFib {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryFib {
    /// An empty table: no link, no route, no nexthop object.
    pub fn new() -> Self {
        Self {
            links: BTreeMap::new(),
            addresses: Vec::new(),
            routes: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            nexthops: Some(Nexthops::default()),
            has_resilient_groups: true,
            notifications: VecDeque::new(),
            late: VecDeque::new(),
            refusals: VecDeque::new(),
            failing_dumps: 0,
            writes: 0,
            begun: VecDeque::new(),
        }
    }

    /// The same as a kernel that has no nexthop objects (before Linux 5.3).
    pub fn without_nexthops() -> Self {
        Self { nexthops: None, ..Self::new() }
    }

    /// The same as a kernel whose groups are never resilient (before Linux 5.13).
    pub fn without_resilient_groups() -> Self {
        Self { has_resilient_groups: false, ..Self::new() }
    }

    /// The routes there are, by key, with the legs that nexthop objects stand for.
    pub fn routes(&self) -> BTreeMap<RouteKey, Route> {
        self.snapshot().resolved_routes().map(|route| (route.key, route)).collect()
    }

    /// The nexthop objects there are.
    pub fn objects(&self) -> Nexthops {
        self.nexthops.clone().unwrap_or_default()
    }

    /// Something else makes a nexthop object, or changes one.
    pub fn insert_nexthop(&mut self, object: Nexthop) {
        if let Some(objects) = &mut self.nexthops {
            objects.insert(object);
            self.notifications.push_back(Notification::NexthopObjects);
        }
    }

    /// Something else deletes a nexthop object; the routes over it go without a notification.
    pub fn remove_nexthop(&mut self, id: u32) {
        self.drop_nexthop(id);
        self.notifications.push_back(Notification::NexthopObjects);
    }

    /// The permanent neighbour entries there are.
    pub fn neighbours(&self) -> &BTreeMap<(u32, IpAddr), Mac> {
        &self.neighbours
    }

    /// How many writes were tried through the [`Fib`].
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// Decides the fate of coming writes, one entry each: refused with an error number, or let through.
    pub fn refuse(&mut self, fates: impl IntoIterator<Item = Option<Errno>>) {
        self.refusals.extend(fates);
    }

    /// Ends the failures asked for.
    pub fn relent(&mut self) {
        self.refusals.clear();
        self.failing_dumps = 0;
    }

    /// Makes the next dumps fail.
    pub fn fail_dumps(&mut self, count: usize) {
        self.failing_dumps = count;
    }

    /// Throws away what has not been read yet, as a full receive buffer does.
    pub fn overrun(&mut self) {
        self.notifications.clear();
        self.notifications.push_back(Notification::Overrun);
    }

    /// Lets what has not been read yet be told only after [`Self::deliver`], as the kernel tells of a link after it has taken away what was on it.
    pub fn delay(&mut self) {
        self.late.append(&mut self.notifications);
    }

    /// Ends [`Self::delay`].
    pub fn deliver(&mut self) {
        self.notifications.append(&mut self.late);
    }

    /// Something else writes a route over whatever holds its key.
    pub fn insert(&mut self, route: Route) {
        let replaced = self.routes.insert(route.key, route.clone()).is_some();
        self.notifications.push_back(Notification::RouteAdded { route, replaced });
    }

    /// Something else deletes a route.
    pub fn remove(&mut self, key: RouteKey) {
        if let Some(route) = self.routes.remove(&key) {
            self.notifications.push_back(Notification::RouteRemoved(route));
        }
    }

    /// A link appears or changes. Routes that have no leg left go without a notification, as the kernel does it
    /// when a link goes down; so do nexthop objects, and the routes over them, when it loses its carrier.
    pub fn set_link(&mut self, link: Link) {
        if !link.is_running() {
            self.drop_nexthops_on(link.index);
        }
        if !link.up {
            self.drop_routes(|route| route_uses_only(route, link.index));
        }
        self.links.insert(link.index, link.clone());
        self.notifications.push_back(Notification::Link(link));
    }

    /// A link goes, with its routes, addresses and neighbours.
    pub fn remove_link(&mut self, index: u32) {
        self.drop_nexthops_on(index);
        self.drop_routes(|route| route_uses_only(route, index));
        self.addresses.retain(|address| address.link != index);
        self.neighbours.retain(|(link, _), _| *link != index);
        self.links.remove(&index);
        self.notifications.push_back(Notification::LinkRemoved(index));
    }

    /// An address appears.
    pub fn add_address(&mut self, address: Address) {
        self.addresses.push(address);
        self.notifications.push_back(Notification::Address(address));
    }

    /// An address goes; routes that prefer it as source go without a notification.
    pub fn remove_address(&mut self, address: Address) {
        self.addresses.retain(|held| held != &address);
        self.drop_routes(|route| route.preferred_source == Some(address.ip()));
        self.notifications.push_back(Notification::AddressRemoved(address));
    }

    fn drop_nexthops_on(&mut self, link: u32) {
        let Some(objects) = &self.nexthops else { return };
        let on_link = |object: &&Nexthop| matches!(object.kind, NexthopKind::Leg(leg) if leg.link == link);
        let ids: Vec<u32> = objects.iter().filter(on_link).map(|object| object.id).collect();
        ids.into_iter().for_each(|id| self.drop_nexthop(id));
    }

    fn drop_nexthop(&mut self, id: u32) {
        let gone = self.nexthops.as_mut().map(|objects| objects.remove(id)).unwrap_or_default();
        self.drop_routes(|route| matches!(route.action, Action::Object(id) if gone.contains(&id)));
    }

    fn drop_routes(&mut self, gone: impl Fn(&Route) -> bool) {
        self.routes.retain(|_, route| !gone(route));
    }

    fn write(&mut self, write: &Write) -> Result<(), Errno> {
        match write {
            Write::Add(route) if self.routes.contains_key(&route.key) => Err(Errno::EEXIST),
            Write::Add(route) | Write::Replace(route) => {
                self.check(route)?;
                self.routes.insert(route.key, route.clone());
                Ok(())
            }
            Write::Delete(key, protocol) => self.delete(*key, *protocol),
            Write::Neighbour(entry) => {
                let link = self.links.get(&entry.link).ok_or(Errno::ENODEV)?;
                self.neighbours.insert((link.index, entry.address), entry.mac);
                Ok(())
            }
            Write::AddNexthop(object) => self.write_nexthop(object, false),
            Write::ReplaceNexthop(object) => self.write_nexthop(object, true),
            Write::DeleteNexthop(id) => {
                self.nexthop(*id).ok_or(Errno::ENOENT)?;
                self.drop_nexthop(*id);
                Ok(())
            }
        }
    }

    fn nexthop(&self, id: u32) -> Option<&Nexthop> {
        self.nexthops.as_ref()?.get(id)
    }

    /// What the kernel checks of a nexthop object: its link has a carrier, its members are there, and a group stays a group, of its kind and
    /// with its number of buckets.
    fn write_nexthop(&mut self, object: &Nexthop, replace: bool) -> Result<(), Errno> {
        match self.nexthop(object.id) {
            Some(_) if !replace => return Err(Errno::EEXIST),
            None if replace => return Err(Errno::ENOENT),
            Some(held) if shape(&held.kind) != shape(&object.kind) => return Err(Errno::EINVAL),
            _ => {}
        }
        match &object.kind {
            NexthopKind::Leg(leg) => {
                let link = self.links.get(&leg.link).ok_or(Errno::ENODEV)?;
                if !link.is_running() {
                    return Err(Errno::ENETDOWN);
                }
            }
            NexthopKind::Group { resilience: Some(_), .. } if !self.has_resilient_groups => {
                return Err(Errno::EINVAL);
            }
            NexthopKind::Group { members, .. } => {
                let is_leg =
                    |id| self.nexthop(id).is_some_and(|held| matches!(held.kind, NexthopKind::Leg(_)));
                if members.is_empty() || !members.iter().all(|(id, _)| is_leg(*id)) {
                    return Err(Errno::EINVAL);
                }
            }
            NexthopKind::Other => return Err(Errno::EINVAL),
        }
        self.nexthops.as_mut().ok_or(Errno::EOPNOTSUPP)?.insert(object.clone());
        Ok(())
    }

    fn delete(&mut self, key: RouteKey, protocol: Protocol) -> Result<(), Errno> {
        self.routes.get(&key).filter(|held| held.protocol == protocol).ok_or(Errno::ESRCH)?;
        self.routes.remove(&key);
        Ok(())
    }

    fn snapshot(&self) -> Snapshot {
        let neighbour = |((link, address), mac): (&(u32, IpAddr), &Mac)| Neighbour {
            link: *link,
            address: *address,
            mac: *mac,
        };
        Snapshot {
            links: self.links.values().cloned().collect(),
            addresses: self.addresses.clone(),
            routes: self.routes.values().cloned().collect(),
            nexthops: self.nexthops.clone(),
            neighbours: self.neighbours.iter().map(neighbour).collect(),
        }
    }

    /// What the kernel checks of a route: its links are up, its nexthop object is there, its preferred source is local.
    fn check(&self, route: &Route) -> Result<(), Errno> {
        if let Action::Object(id) = route.action {
            self.nexthop(id).ok_or(Errno::EINVAL)?;
        }
        if let Action::Forward(legs) = &route.action {
            for leg in legs {
                let link = self.links.get(&leg.link).ok_or(Errno::ENODEV)?;
                if !link.up {
                    return Err(Errno::ENETDOWN);
                }
            }
        }
        match route.preferred_source {
            Some(source) if !self.addresses.iter().any(|address| address.ip() == source) => {
                Err(Errno::EINVAL)
            }
            _ => Ok(()),
        }
    }
}

/// What no replacement changes of an object.
fn shape(kind: &NexthopKind) -> (std::mem::Discriminant<NexthopKind>, Option<u16>) {
    let buckets = match kind {
        NexthopKind::Group { resilience, .. } => resilience.map(|resilience| resilience.buckets),
        NexthopKind::Leg(_) | NexthopKind::Other => None,
    };
    (std::mem::discriminant(kind), buckets)
}

fn route_uses_only(route: &Route, link: u32) -> bool {
    match &route.action {
        Action::Forward(legs) => legs.iter().all(|leg| leg.link == link),
        Action::Object(_) | Action::Unreachable | Action::Blackhole | Action::Other(_) => false,
    }
}

impl Fib for MemoryFib {
    fn dump(&mut self) -> Result<Snapshot, Error> {
        if let Some(left) = self.failing_dumps.checked_sub(1) {
            self.failing_dumps = left;
            return Err(Error::Interrupted { tries: 1 });
        }
        Ok(self.snapshot())
    }

    fn nexthops(&mut self) -> Result<Option<Nexthops>, Error> {
        Ok(self.nexthops.clone())
    }

    fn apply(&mut self, writes: &[Write]) -> Vec<Result<(), Error>> {
        self.writes = self.writes.saturating_add(writes.len());
        let mut results = Vec::with_capacity(writes.len());
        for write in writes {
            let result = match self.refusals.pop_front().flatten() {
                Some(errno) => Err(errno),
                None => self.write(write),
            };
            results.push(result.map_err(|errno| Error::Refused(Refusal { errno, message: None })));
        }
        results
    }

    /// It is carried out at once, so that whatever happens before the end comes after it.
    fn begin<'a>(&mut self, writes: impl IntoIterator<Item = &'a Write>) {
        let writes: Vec<Write> = writes.into_iter().cloned().collect();
        let results = self.apply(&writes);
        self.begun.push_back(results);
    }

    fn finish(&mut self) -> Vec<Result<(), Error>> {
        self.begun.pop_front().unwrap_or_default()
    }

    fn notifications(&mut self) -> Vec<Notification> {
        self.notifications.drain(..).collect()
    }
}
