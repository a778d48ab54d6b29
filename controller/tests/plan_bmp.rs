//! Plans and documents of monitoring stations.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::fs;
use std::time::Duration;

use weft_bgp::bmp::{BmpConfig, MonitoredRib};
use weft_controller::api::json::DocumentError;
use weft_controller::cluster::Cluster;
use weft_controller::documents::load;
use weft_controller::plan::{HostFacts, plan};

const NODES: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/26]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
spec: {podCIDRs: [10.244.2.0/26]}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
"#;

fn read(documents: &[String]) -> Result<Cluster, Vec<DocumentError>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("x.yaml"), documents.join("\n---\n")).expect("a file");
    load(folder.path())
}

/// A BGPConfiguration with these stations.
fn configuration(name: &str, stations: &str) -> String {
    format!(
        "apiVersion: weft.network/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: {name}}}\nspec:\n  bmp: {stations}\n"
    )
}

fn planned(node: &str, documents: &[String]) -> BmpConfig {
    let all = [&[NODES.to_owned()], documents].concat();
    let plan = plan(&read(&all).expect("good documents"), node, &HostFacts::default()).expect("a plan");
    plan.speaker.bmp.clone()
}

#[test]
fn a_node_tells_the_stations_of_its_configuration_and_says_its_name() {
    let documents = [
        configuration("default", "[{address: \"203.0.113.1:11019\"}]"),
        configuration(
            "node.n2",
            "[{address: \"[2001:db8::9]:5000\", monitor: [LocRIB, AdjRIBInPostPolicy, AdjRIBOutPostPolicy], statisticsInterval: 5m}]",
        ),
    ];
    let first = planned("n1", &documents);
    assert_eq!((first.system_name.as_str(), first.stations.len()), ("n1", 1));
    assert!(first.system_description.starts_with("Weft "));
    let station = &first.stations[&"203.0.113.1:11019".parse().expect("an address")];
    assert_eq!(station.monitor, [MonitoredRib::AdjRibInPrePolicy, MonitoredRib::LocRib].into());
    assert_eq!(station.statistics_interval, Some(Duration::from_secs(60)));
    let second = planned("n2", &documents);
    assert_eq!((second.system_name.as_str(), second.stations.len()), ("n2", 1));
    let station = &second.stations[&"[2001:db8::9]:5000".parse().expect("an address")];
    let all =
        [MonitoredRib::AdjRibInPostPolicy, MonitoredRib::LocRib, MonitoredRib::AdjRibOutPostPolicy].into();
    assert_eq!((&station.monitor, station.statistics_interval), (&all, Some(Duration::from_secs(300))));
    let none =
        [configuration("default", "[{address: \"203.0.113.1:11019\"}]"), configuration("node.n2", "[]")];
    assert!(planned("n2", &none).stations.is_empty(), "a node may have none of those that all have");
    assert!(planned("n1", &[]).stations.is_empty());
}

#[test]
fn what_is_wrong_with_a_station_is_said() {
    for (stations, field, message, remedy) in [
        ("[{address: 203.0.113.1}]", "bmp[0].address", "has no port", "192.0.2.1:11019"),
        ("[{address: \"203.0.113.1:0\"}]", "bmp[0].address", "no valid port", "IP:PORT"),
        ("[{address: \"224.0.0.1:5000\"}]", "bmp[0].address", "multicast", "IP:PORT"),
        ("[{address: \"collector:5000\"}]", "bmp[0].address", "is not an address", "IP:PORT"),
        ("[{monitor: [LocRIB]}]", "bmp[0].address", "missing field \"address\"", "add it"),
        ("[{address: \"203.0.113.1:1\", monitor: []}]", "bmp[0].monitor", "no RIB is listed", "LocRIB"),
        (
            "[{address: \"203.0.113.1:1\", monitor: [AdjRIBIn]}]",
            "bmp[0].monitor[0]",
            "AdjRIBIn",
            "AdjRIBInPrePolicy",
        ),
        (
            "[{address: \"203.0.113.1:1\", statisticsInterval: 500ms}]",
            "bmp[0].statisticsInterval",
            "500ms is out of range",
            "1s to 1h",
        ),
        (
            "[{address: \"203.0.113.1:1\", statisticsInterval: 2h}]",
            "bmp[0].statisticsInterval",
            "2h is out of range",
            "1s to 1h",
        ),
        ("[{address: \"203.0.113.1:1\", port: 5000}]", "bmp[0].port", "unknown field \"port\"", "address"),
        (
            "[{address: \"203.0.113.1:1\"}, {address: \"203.0.113.1:1\"}]",
            "bmp[1].address",
            "203.0.113.1:1 is bmp[0] too",
            "once",
        ),
        (
            "[{address: \"203.0.113.1:1\"}, {address: \"203.0.113.1:2\"}, {address: \"203.0.113.1:3\"}, {address: \"203.0.113.1:4\"}, \
             {address: \"203.0.113.1:5\"}]",
            "bmp",
            "bmp has 5 monitoring stations",
            "4 at most",
        ),
    ] {
        let found = read(&[configuration("default", stations)]).err().unwrap_or_default();
        let [error] = found.as_slice() else { panic!("{stations}: {found:#?}") };
        assert_eq!(error.field.as_deref(), Some(format!("spec.{field}").as_str()), "{error}");
        assert!(error.message.contains(message), "{error}");
        assert!(error.remedy.contains(remedy), "{error}");
    }
}
