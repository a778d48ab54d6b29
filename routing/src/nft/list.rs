//! What is in nftables, read as `nft -j` tells it (libnftables-json(5)).

use std::collections::BTreeSet;

use serde_json::Value;

use super::run::{Error, nft};
use super::services::{REJECTED_V4, REJECTED_V6};
use super::{GUARD_TABLE, NAT_TABLE, SERVICES_TABLE, SPOOFED_V4, SPOOFED_V6};

/// What is there of Weft's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// The guard.
    pub guard: Option<Table>,
    /// The translation of sources.
    pub nat: Option<Table>,
    /// The end of packets to Services.
    pub services: Option<Table>,
    /// What the guard has dropped.
    pub spoofed: Packets,
    /// What was rejected on its way to Services.
    pub rejected: Packets,
}

impl Installed {
    /// Whether all tables hold the same, whatever was counted.
    #[must_use]
    pub fn same_rules(&self, other: &Self) -> bool {
        (&self.guard, &self.nat, &self.services) == (&other.guard, &other.nat, &other.services)
    }
}

/// The sets, chains and rules of a table, to be compared with those of another time. Handles and counts are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table(Vec<Value>);

/// Packets counted since the table was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// IPv4.
    pub ipv4: u64,
    /// IPv6.
    pub ipv6: u64,
}

/// Reads Weft's tables in the network namespace of the calling thread.
///
/// # Errors
/// `nft` is not there, does not end in time, or the kernel refuses.
pub fn list() -> Result<Installed, Error> {
    let present = tables()?;
    let read = |name: &str| -> Result<Option<Vec<Value>>, Error> {
        if !present.contains(name) {
            return Ok(None);
        }
        objects(&["-j", "list", "table", "inet", name]).map(Some)
    };
    let (guard, nat, services) = (read(GUARD_TABLE)?, read(NAT_TABLE)?, read(SERVICES_TABLE)?);
    let packets = |objects: &Option<Vec<Value>>, [ipv4, ipv6]: [&str; 2]| {
        let objects = objects.as_deref().unwrap_or_default();
        Packets { ipv4: counter(objects, ipv4), ipv6: counter(objects, ipv6) }
    };
    Ok(Installed {
        spoofed: packets(&guard, [SPOOFED_V4, SPOOFED_V6]),
        rejected: packets(&services, [REJECTED_V4, REJECTED_V6]),
        guard: guard.map(table),
        nat: nat.map(table),
        services: services.map(table),
    })
}

/// The names of all tables of family `inet`.
pub(super) fn tables() -> Result<BTreeSet<String>, Error> {
    let name = |object: &Value| Some(object.get("table")?.get("name")?.as_str()?.to_owned());
    Ok(objects(&["-j", "list", "tables", "inet"])?.iter().filter_map(name).collect())
}

fn objects(arguments: &[&str]) -> Result<Vec<Value>, Error> {
    let mut root: Value = serde_json::from_str(&nft(arguments, "")?)?;
    match root.get_mut("nftables").map(Value::take) {
        Some(Value::Array(objects)) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

fn counter(objects: &[Value], name: &str) -> u64 {
    let named = |counter: &&Value| counter.get("name").and_then(Value::as_str) == Some(name);
    let found = objects.iter().filter_map(|object| object.get("counter")).find(named);
    found.and_then(|counter| counter.get("packets")?.as_u64()).unwrap_or(0)
}

fn table(objects: Vec<Value>) -> Table {
    let lasting = objects.into_iter().filter(|object| object.get("metainfo").is_none());
    Table(lasting.map(without_passing).collect())
}

/// An object without what changes by itself.
fn without_passing(mut object: Value) -> Value {
    for body in object.as_object_mut().into_iter().flat_map(|object| object.values_mut()) {
        if let Some(body) = body.as_object_mut() {
            body.retain(|key, _| !matches!(key.as_str(), "handle" | "packets" | "bytes"));
        }
    }
    object
}
