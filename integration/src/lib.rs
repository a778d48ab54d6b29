//! The lab: nodes, ToRs, spines and pods as network namespaces of one machine, with cuts and kills as calls.
//!
//! | module | what it has |
//! |---|---|
//! | [`lab`] | one test's namespaces, files and logs, gone when it ends |
//! | [`netns`], [`link`], [`process`] | the parts: namespaces, cables and switches, commands and daemons |
//! | [`daemon`] | weftd, BIRD, FRR and GoBGP behind one [`daemon::Router`] |
//! | [`documents`] | what an admin writes for weftd |
//! | [`node`], [`pod`] | a machine with weftd, and the pods on it, made by the real `weft-cni` |
//! | [`fabric`], [`lan`] | topologies: racks with ToRs and a spine; nodes in one subnet or two |
//! | [`runtime`] | containerd and podman on nodes, with real containers |
//! | [`monitor`] | what happens to routes meanwhile |
//! | [`station`] | a monitoring station of BMP, and tshark to read what it hears |
//! | [`probe`] | traffic, and what its receivers see |
//! | [`promises`] | the promises of the network model, checked |
//! | [`mod@bench`] | how long the plugin takes, beside others and beside the kernel |
//! | [`wait`] | waiting with a deadline |
//!
//! The lab knows the project only from outside: its programs, their command lines and their JSON. The benchmark alone links
//! its crates, to ask the kernel as the plugin does and to write what weftd would.

#![expect(
    clippy::indexing_slicing,
    reason = "JSON is indexed by name, which yields null for what is not there"
)]

pub mod bench;
pub mod daemon;
pub mod documents;
pub mod fabric;
pub mod kubernetes;
pub mod lab;
pub mod lan;
pub mod link;
pub mod monitor;
pub mod netns;
pub mod node;
pub mod pod;
pub mod probe;
pub mod process;
pub mod promises;
pub mod runtime;
pub mod station;
pub mod wait;
