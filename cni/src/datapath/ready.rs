//! What the kernel does a moment after it has said yes.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use netlink_packet_route::route::RouteType;
use weft_routing::netlink::{self, Request, Socket};

use super::lookup::look_up;
use super::{Error, Interface, refused};

/// Looks, and the pauses between: 50 us, then 500 us, a second in all.
const TRIES: u32 = 2000;
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const PAUSE: Duration = Duration::from_micros(500);

/// Waits until the pod's end sends and the pod takes packets to its addresses; `socket` is inside.
pub(super) fn wait(socket: &mut Socket, interface: &Interface, link: u32) -> Result<(), Error> {
    let name = &interface.ifname;
    if !becomes_true(|| is_operational(socket, link).map_err(refused(format_args!("look up link {name}"))))? {
        return Err(Error::NotOperational(name.clone()));
    }
    let ipv6 = interface.addresses.iter().map(|pod| pod.address).filter(IpAddr::is_ipv6);
    for address in ipv6 {
        let look =
            || is_local(socket, address).map_err(refused(format_args!("look up the route to {address}")));
        if !becomes_true(look)? {
            return Err(Error::NotLocal(address));
        }
    }
    Ok(())
}

/// Tries again as long as something is there already: the route to a pod whose namespace is gone, before the kernel has
/// taken its link away, and now another one has its address.
pub(super) fn try_until_free(socket: &mut Socket, request: &Request) -> Result<(), netlink::Error> {
    let mut last = Ok(());
    for _ in 0..TRIES {
        thread::sleep(PAUSE);
        last = socket.execute(request);
        if !last.as_ref().is_err_and(netlink::Error::is_present) {
            break;
        }
    }
    last
}

fn becomes_true(mut look: impl FnMut() -> Result<bool, Error>) -> Result<bool, Error> {
    for attempt in 0..TRIES {
        if look()? {
            return Ok(true);
        }
        thread::sleep(if attempt == 0 { FIRST_PAUSE } else { PAUSE });
    }
    Ok(false)
}

/// The end that is set up last finds a carrier and sends at once; the other one drops every packet until the kernel's
/// link watch has seen the carrier (`dev_activate`, net/sched/sch_generic.c). Since Linux 6.8 the look itself makes it see
/// (`linkwatch_sync_dev`).
fn is_operational(socket: &mut Socket, link: u32) -> Result<bool, netlink::Error> {
    Ok(socket.link_by_index(link)?.is_some_and(|link| link.operational))
}

/// Even without duplicate address detection a worker makes the local route of an IPv6 address (`addrconf_dad_work`,
/// net/ipv6/addrconf.c). Until then packets to it would leave again by the default route, and are dropped.
fn is_local(socket: &mut Socket, address: IpAddr) -> Result<bool, netlink::Error> {
    Ok(look_up(socket, address)?.header.kind == RouteType::Local)
}
