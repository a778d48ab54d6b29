//! `node.json`: what weftd tells the plugin about this node.
//!
//! weftd writes `RUN_DIR/node.json` with [`NodeFile::write_atomic`] once it knows its plan, and again on every
//! change; the plugin reads it in every ADD. The run directory is a tmpfs, so the file is gone after a reboot;
//! where it is not, the boot id tells. Example:
//!
//! ```json
//! {
//!   "schemaVersion": 2,
//!   "bootId": "8d1a1222-2a90-4425-95ac-9b13df4c4b80",
//!   "node": "n1",
//!   "mtu": 1500,
//!   "pools": {"pods": {"namespaces": null, "automatic": true}},
//!   "ipv4": {
//!     "blocks": [{"cidr": "10.244.1.0/26", "pool": "pods", "open": true, "announced": true, "cooldownSeconds": 30}],
//!     "gateway": "169.254.1.1",
//!     "nodeAddress": "192.0.2.1"
//!   },
//!   "ipv6": null,
//!   "reserved": ["10.244.1.0/30"]
//! }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// The only `schemaVersion` that is written and read.
pub const SCHEMA_VERSION: u32 = 2;
/// Name of the file in the run directory.
pub const FILE_NAME: &str = "node.json";
/// The IPv4 gateway pods see: link-local, on no interface, answered by a permanent neighbour entry.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The IPv6 gateway pods see, on the host end of every pod's link.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The smallest MTU IPv4 allows (RFC 791).
const MTU_MIN_V4: u32 = 68;
/// The smallest MTU IPv6 allows (RFC 8200 section 5); the kernel takes IPv6 off a link below it.
const MTU_MIN_V6: u32 = 1280;
/// The largest MTU a veth takes.
const MTU_MAX: u32 = 65_535;

/// What the plugin needs to know about this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFile {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The kernel's id of the boot in which the file was written ([`boot_id`]).
    pub boot_id: String,
    /// The node's name.
    pub node: String,
    /// MTU of pod links, in bytes.
    pub mtu: u32,
    /// The pools that the blocks are of, by name.
    pub pools: BTreeMap<String, PoolFile>,
    /// How pods get IPv4; `None` where they get none.
    pub ipv4: Option<FamilyFile<Ipv4Net, Ipv4Addr>>,
    /// How pods get IPv6; `None` where they get none.
    pub ipv6: Option<FamilyFile<Ipv6Net, Ipv6Addr>>,
    /// Ranges whose addresses are given only to who asks for one of them by number.
    pub reserved: Vec<IpNet>,
}

/// Who gets addresses of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolFile {
    /// The Kubernetes namespaces that the pool is for: their pods get addresses of it and of no pool that is for all.
    /// `None`: it is for all that no other pool is for.
    pub namespaces: Option<BTreeSet<String>>,
    /// Whether it is used without being asked for by name.
    pub automatic: bool,
}

/// One address family of [`NodeFile`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyFile<Net, Address> {
    /// The node's blocks, in the order they are used up.
    pub blocks: Vec<BlockFile<Net>>,
    /// The gateway in the pod: [`GATEWAY_V4`] or [`GATEWAY_V6`], nothing else.
    pub gateway: Address,
    /// The preferred source of pod routes: an address on one of the node's interfaces. `None` leaves the choice
    /// to the kernel.
    pub node_address: Option<Address>,
}

/// One block of the node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockFile<Net> {
    /// The block; no host bits.
    pub cidr: Net,
    /// The pool that it is of; `None` for a `podCIDR` that lies in no pool, which is for all.
    pub pool: Option<String>,
    /// Whether new pods get addresses of it. A block that was taken from the node while pods had addresses of it is
    /// closed, and goes with the last of them.
    pub open: bool,
    /// Whether a peer has been told of it: pods with its addresses can be reached from elsewhere.
    pub announced: bool,
    /// How long an address rests before it is given out again, in seconds.
    pub cooldown_seconds: u32,
}

impl<Net: Copy> BlockFile<Net> {
    /// The same block under another type of network.
    fn map<Other>(&self, of: impl FnOnce(Net) -> Other) -> BlockFile<Other> {
        BlockFile {
            cidr: of(self.cidr),
            pool: self.pool.clone(),
            open: self.open,
            announced: self.announced,
            cooldown_seconds: self.cooldown_seconds,
        }
    }
}

/// One address family of a node, whichever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// The node's blocks, in the order they are used up.
    pub blocks: Vec<BlockFile<IpNet>>,
    /// The preferred source of pod routes.
    pub node_address: Option<IpAddr>,
}

/// Why `node.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there.
    #[error("{} does not exist: weftd has not yet written it in this boot", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The text is not what weftd writes.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was written in an earlier boot.
    #[error("{} is of an earlier boot ({found}): weftd has not yet written it in this boot", path.display())]
    EarlierBoot {
        /// The file.
        path: PathBuf,
        /// The boot id in the file.
        found: String,
    },
}

/// The kernel's id of this boot (random(4)): made anew at each start of the system.
pub fn boot_id() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text =
        fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.into(), source })?;
    Ok(text.trim_end().to_owned())
}

impl NodeFile {
    /// Reads and checks `node.json` in `run_dir`: the schema version, the boot id and every value.
    pub fn read(run_dir: &Path, boot_id: &str) -> Result<Self, Error> {
        let path = run_dir.join(FILE_NAME);
        let text = fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { path: path.clone() },
            _ => Error::Io { action: "read", path: path.clone(), source },
        })?;
        match Self::parse(&text) {
            Ok(file) if file.boot_id != boot_id => Err(Error::EarlierBoot { path, found: file.boot_id }),
            Ok(file) => Ok(file),
            Err(reason) => Err(Error::Malformed { path, reason }),
        }
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            schema_version: u32,
        }
        let version: Version = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if version.schema_version != SCHEMA_VERSION {
            return Err(format!(
                "schemaVersion is {}, this plugin reads {SCHEMA_VERSION}: weftd and weft-cni must be of one release",
                version.schema_version
            ));
        }
        let file: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        file.check()?;
        Ok(file)
    }

    /// What the types do not say: `Err` names the field and what would be right.
    fn check(&self) -> Result<(), String> {
        check_mtu(self.mtu, self.ipv6.is_some()).map_err(|reason| format!("mtu: {reason}"))?;
        let v4 = self.ipv4.as_ref().map(|family| (IpAddr::V4(family.gateway), IpAddr::V4(GATEWAY_V4)));
        let v6 = self.ipv6.as_ref().map(|family| (IpAddr::V6(family.gateway), IpAddr::V6(GATEWAY_V6)));
        if let Some((found, wanted)) = v4.into_iter().chain(v6).find(|(found, wanted)| found != wanted) {
            return Err(format!("gateway {found}: it is {wanted} on every node"));
        }
        for block in self.families().into_iter().flat_map(|family| family.blocks) {
            let cidr = block.cidr;
            if cidr != cidr.trunc() {
                return Err(format!("block {cidr} has host bits; the block is {}", cidr.trunc()));
            }
            if let Some(pool) = block.pool.filter(|pool| !self.pools.contains_key(pool)) {
                return Err(format!("block {cidr} is of pool {pool}, which is not among the pools"));
            }
        }
        Ok(())
    }

    /// Writes `node.json` in `run_dir` so that a reader sees the old file or the new one, never a part: a
    /// temporary file, `fsync`, `rename`.
    pub fn write_atomic(&self, run_dir: &Path) -> Result<(), Error> {
        let path = run_dir.join(FILE_NAME);
        self.check().map_err(|reason| Error::Malformed { path: path.clone(), reason })?;
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Malformed { path: path.clone(), reason: error.to_string() })?;
        text.push(b'\n');
        let temporary = run_dir.join("node.json.new");
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| Error::Io { action: "write", path: path.clone(), source })
    }

    /// The families in which this node has blocks, IPv4 first.
    pub fn families(&self) -> Vec<Family> {
        let ipv4 = self.ipv4.as_ref().map(|family| Family {
            blocks: family.blocks.iter().map(|block| block.map(IpNet::V4)).collect(),
            node_address: family.node_address.map(IpAddr::V4),
        });
        let ipv6 = self.ipv6.as_ref().map(|family| Family {
            blocks: family.blocks.iter().map(|block| block.map(IpNet::V6)).collect(),
            node_address: family.node_address.map(IpAddr::V6),
        });
        ipv4.into_iter().chain(ipv6).filter(|family| !family.blocks.is_empty()).collect()
    }

    /// The addresses of the node itself, which no pod may get although a block may hold them.
    pub fn own_addresses(&self) -> BTreeSet<IpAddr> {
        self.families().into_iter().filter_map(|family| family.node_address).collect()
    }
}

/// Says what is wrong with an MTU, in bytes, for pods with or without IPv6.
pub(crate) fn check_mtu(mtu: u32, ipv6: bool) -> Result<(), String> {
    let least = if ipv6 { MTU_MIN_V6 } else { MTU_MIN_V4 };
    if (least..=MTU_MAX).contains(&mtu) {
        return Ok(());
    }
    let family = if ipv6 { " with IPv6" } else { "" };
    Err(format!("{mtu} is not between {least} and {MTU_MAX}, the limits of a pod's link{family}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn example() -> NodeFile {
        NodeFile {
            schema_version: SCHEMA_VERSION,
            boot_id: "boot".into(),
            node: "n1".into(),
            mtu: 1500,
            pools: BTreeMap::from([("pods".into(), PoolFile { namespaces: None, automatic: true })]),
            ipv4: Some(FamilyFile {
                blocks: vec![BlockFile {
                    cidr: "10.244.1.0/26".parse().unwrap(),
                    pool: Some("pods".into()),
                    open: true,
                    announced: false,
                    cooldown_seconds: 30,
                }],
                gateway: GATEWAY_V4,
                node_address: Some("192.0.2.1".parse().unwrap()),
            }),
            ipv6: None,
            reserved: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(NodeFile::read(dir.path(), "boot"), Err(Error::Missing { .. })));
        example().write_atomic(dir.path()).unwrap();
        assert_eq!(NodeFile::read(dir.path(), "boot").unwrap(), example());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        assert!(matches!(NodeFile::read(dir.path(), "next"), Err(Error::EarlierBoot { .. })));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = serde_json::to_value(example()).unwrap();
        let wrong = [
            ("schemaVersion", json!(1), "schemaVersion is 1"),
            ("mtu", json!(67), "mtu"),
            ("pools", json!({}), "pool pods, which is not among the pools"),
            ("ipv4", json!({"blocks": [], "gateway": "10.0.0.1", "nodeAddress": null}), "169.254.1.1"),
            (
                "ipv4",
                json!({"blocks": [{"cidr": "10.0.0.1/26", "pool": null, "open": true, "announced": true,
                    "cooldownSeconds": 0}], "gateway": "169.254.1.1", "nodeAddress": null}),
                "the block is 10.0.0.0/26",
            ),
        ];
        for (field, value, expected) in wrong {
            let mut text = good.clone();
            text[field] = value;
            let error = NodeFile::parse(text.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let mut v6 = good;
        v6["mtu"] = json!(1279);
        v6["ipv6"] = json!({"blocks": [], "gateway": "fe80::1", "nodeAddress": null});
        let cases = [("{".to_owned(), "EOF"), (v6.to_string(), "1280")];
        for (text, expected) in cases {
            let error = NodeFile::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_family_without_blocks_gives_no_addresses() {
        let mut node = example();
        node.ipv4.as_mut().unwrap().blocks.clear();
        assert_eq!(node.families(), []);
        assert_eq!(example().own_addresses().len(), 1);
    }

    #[test]
    fn the_boot_id_is_a_uuid() {
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
