//! Fresh network namespaces for tests.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use weft_routing::netlink::{Address, LinkName, Scope, Socket, Veth, set_up};

/// A network namespace that lives as long as the value: a thread holds it.
pub(crate) struct Namespace {
    path: PathBuf,
    release: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// A namespace with `lo` up, or `None` (and a line that says so) without the privilege to make one.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let (release, released) = mpsc::channel::<()>();
        let (ready, path) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET);
            let tid = nix::unistd::gettid();
            let path = PathBuf::from(format!("/proc/{}/task/{tid}/ns/net", std::process::id()));
            ready.send(made.map(|()| path)).unwrap();
            // Ends when the sender is dropped.
            let _ = released.recv();
        });
        match path.recv().unwrap() {
            Ok(path) => {
                let namespace = Self { path, release: Some(release), thread: Some(thread) };
                let mut socket = namespace.socket();
                let lo = index(&mut socket, "lo");
                socket.execute(&set_up(lo, true)).unwrap();
                Some(namespace)
            }
            Err(error) => {
                // Written past the test harness, which hides what a passing test prints.
                let mut stderr = std::io::stderr();
                let _ = writeln!(stderr, "skipped: {test}: cannot make a network namespace: {error}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    pub(crate) fn socket(&self) -> Socket {
        Socket::in_netns(&self.path).unwrap()
    }

    /// A veth pair with both ends in this namespace, up, with the given addresses on the first end. Returns the
    /// indices of both ends.
    #[allow(dead_code, reason = "not every test binary links")]
    pub(crate) fn veth(&self, name: &str, peer: &str, addresses: &[&str]) -> (u32, u32) {
        let mut socket = self.socket();
        let netns = std::fs::File::open(&self.path).unwrap();
        let request = Veth {
            name: &name.parse::<LinkName>().unwrap(),
            mac: [0xee; 6],
            peer_name: &peer.parse::<LinkName>().unwrap(),
            peer_mac: None,
            peer_netns: &netns,
            mtu: 1500,
        }
        .create();
        socket.execute(&request).unwrap();
        let ends = (index(&mut socket, name), index(&mut socket, peer));
        socket.execute(&set_up(ends.0, true)).unwrap();
        socket.execute(&set_up(ends.1, true)).unwrap();
        for address in addresses {
            self.add_address(ends.0, address);
        }
        ends
    }

    #[allow(dead_code, reason = "not every test binary adds addresses")]
    pub(crate) fn add_address(&self, link: u32, address: &str) -> Address {
        let address =
            Address { link, address: address.parse().unwrap(), scope: Scope::Global, tentative: false };
        self.socket().execute(&address.add()).unwrap();
        address
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.release = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn index(socket: &mut Socket, name: &str) -> u32 {
    socket.link_by_name(&name.parse().unwrap()).unwrap().unwrap_or_else(|| panic!("no link {name}")).index
}

#[allow(dead_code, reason = "not every test binary needs it")]
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
