//! The Linux kernel's routes, links and neighbours, as values kept in step.
//!
//! Knows nothing of BGP or Kubernetes, and waits for nothing but the kernel: no asynchronous runtime.
//!
//! - [`netlink`]: a blocking rtnetlink socket and the requests this project needs; [`netns`] and [`sysctl`] beside
//!   it. What the CNI plugin uses.
//! - [`nexthop`]: the objects that routes share their next hops by.
//! - [`route`]: routes as the kernel keys them; [`delta`]: the one comparison of wanted and actual.
//! - [`fib`]: the kernel's tables as a trait, real in [`netlink::NetlinkFib`], in memory in [`memory`].
//! - [`resolve`]: how a BGP next hop is reached over the routes that are not ours; [`sync`] goes on over learned ones.
//! - [`ndisc`]: the router at the other end of a link, found by router advertisements.
//! - [`sync`]: the engine that puts these together, pure but for the `Fib` it is handed.
//! - [`Kernel`]: the engine on an OS thread. What the daemon uses.
//! - [`nft`]: Weft's tables in nftables: the guard against forged sources, and pods' way out.
//!
//! ```no_run
//! use weft_routing::{Kernel, NextHopRef, RouteChange, Settings};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kernel = Kernel::start(Settings::default(), Box::new(|event| println!("{event:?}")))?;
//! let next_hop = NextHopRef { address: "10.0.0.2".parse()?, default_route: false, link: None };
//! let prefix = "10.1.0.0/26".parse()?;
//! kernel.learned(vec![RouteChange { prefix, next_hops: [next_hop].into(), direct: None }])?;
//! println!("{:?}", kernel.inspect(|engine| engine.fib())?);
//! kernel.stop(); // the route stays
//! # Ok(())
//! # }
//! ```
//!
//! # Ownership
//!
//! Routes of protocol 176 are weftd's, of protocol 177 the CNI plugin's. A key is first written so that the kernel
//! refuses where somebody holds it; it is replaced only where it is known as ours; deletions name our protocol.
//! So a route that carries another protocol is never touched, and shows as the shadow over ours instead.

pub mod delta;
pub mod fib;
mod kernel;
pub mod memory;
pub mod ndisc;
pub mod netlink;
pub mod netns;
pub mod nexthop;
pub mod nft;
pub mod resolve;
pub mod route;
pub mod sync;
pub mod sysctl;

pub use self::kernel::{Error, Kernel, cleanup};
pub use self::resolve::{NextHopRef, Resolution};
pub use self::sync::{Counters, Engine, Event, FibEntry, NextHopRefs, PodRoute, RouteChange, Settings};
