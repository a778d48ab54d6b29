//! The pods of this node as the plugin's store has them, and the routes that follow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use weft_cni::datapath::HostEnd;
use weft_cni::ipam::{Error, State, Store};
use weft_routing::PodRoute;

use super::source::FolderWatch;

/// How soon a store that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What the store is read for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The indexes of its links, by name.
    pub(super) links: BTreeMap<String, u32>,
}

/// What the store says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pods {
    /// How many pods have a link on this node.
    pub(super) count: usize,
    /// The routes to their addresses.
    pub(super) routes: Vec<PodRoute>,
    /// Every address that is taken, whether its pod is there or not.
    pub(super) taken: BTreeSet<IpAddr>,
}

/// Reads the store whenever it or the node changes, on a task of its own, as the store's lock may have to be waited for.
///
/// The task ends when the node's sender or the receiver is gone.
pub(super) fn follow(
    mut store: Store,
    changes: FolderWatch,
    mut node: watch::Receiver<Option<Node>>,
) -> mpsc::Receiver<Result<Pods, Error>> {
    let (readings, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let mut failed = false;
            let wanted = node.borrow_and_update().clone();
            if let Some(wanted) = wanted {
                let read = move || (read(&mut store, &wanted), store);
                let Ok((reading, back)) = tokio::task::spawn_blocking(read).await else { return };
                store = back;
                failed = reading.is_err();
                if readings.send(reading).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = changes.changed() => {}
                changed = node.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if failed => {}
            }
        }
    });
    receiver
}

/// Reads the store. A pod whose link is not there (any more) wants no route: the node was restarted, or its DEL is under way,
/// even where a later link has the name.
fn read(store: &mut Store, node: &Node) -> Result<Pods, Error> {
    let mut pods = Pods::default();
    for entry in store.entries()? {
        pods.taken.extend(&entry.addresses);
        let State::Committed(HostEnd { index: link, .. }) = entry.state else { continue };
        if node.links.get(&entry.host_link) == Some(&link) {
            let mac = entry.mac;
            pods.count += 1;
            pods.routes.extend(entry.addresses.iter().map(|&address| PodRoute { address, link, mac }));
        }
    }
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ipnet::IpNet;
    use tokio::time::timeout;
    use weft_cni::ipam::{Block, FILE_NAME, FamilyRequest, Key, Request};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn block() -> IpNet {
        "10.244.1.0/26".parse().unwrap()
    }

    fn add(state_dir: &Path, container: &str, host_link: &str, commit: Option<u32>) {
        let mut store = Store::open(state_dir, "boot").unwrap();
        let key = Key { network: "weft".into(), container_id: container.into(), ifname: "eth0".into() };
        let mut hold = store.hold(key).unwrap();
        hold.reserve(&Request {
            families: &[FamilyRequest {
                blocks: vec![Block { cidr: block(), cooldown: Duration::ZERO }],
                address: None,
            }],
            excluded: &BTreeSet::new(),
            reserved: &[],
            host_link,
            mac: [2, 0, 0, 0, 0, 1],
            netns: "/run/netns/pod",
            pod: None,
        })
        .unwrap();
        if let Some(index) = commit {
            hold.commit(HostEnd { index, peer_namespace: None }).unwrap();
        }
    }

    #[test]
    fn committed_pods_with_a_link_want_routes() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), "a", "weft00000000001", Some(11));
        add(dir.path(), "b", "weft00000000002", Some(12));
        add(dir.path(), "c", "weft00000000003", None);
        // A later link has its name.
        add(dir.path(), "d", "weft00000000004", Some(14));
        let mut store = Store::open(dir.path(), "boot").unwrap();
        let links = [("weft00000000001", 11), ("weft00000000003", 13), ("weft00000000004", 24)];
        let links = links.map(|(name, index)| (name.to_owned(), index)).into();
        let pods = read(&mut store, &Node { links }).unwrap();
        assert_eq!(pods.count, 1);
        let links: Vec<_> = pods.routes.iter().map(|route| route.link).collect();
        assert_eq!(links, [11]);
    }

    #[tokio::test]
    async fn a_new_pod_is_seen_and_reading_does_not_set_off_another_reading() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "boot").unwrap();
        let watch = FolderWatch::start_for(dir.path(), FILE_NAME).unwrap();
        let (node, follows) = watch::channel(None);
        let mut readings = follow(store, watch, follows);
        let links = BTreeMap::from([("weft00000000001".to_owned(), 11)]);
        node.send(Some(Node { links })).unwrap();
        let mut next =
            async || timeout(DEADLINE, readings.recv()).await.expect("a reading").unwrap().unwrap();
        assert_eq!(next().await.count, 0);
        add(dir.path(), "a", "weft00000000001", Some(11));
        while next().await.count == 0 {}
        // A last reading may be due to the last change of the journal; then there is quiet.
        let quiet = Duration::from_millis(500);
        let mut more = 0;
        while timeout(quiet, readings.recv()).await.is_ok() {
            more += 1;
            assert!(more <= 2, "each reading of the store sets off another one");
        }
    }
}
