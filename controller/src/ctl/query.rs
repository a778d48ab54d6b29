//! The commands that ask the daemon.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;

use super::args::{Args, Command, Format, Rib, Soft, Target};
use super::client::{Client, encode};
use super::{Exit, Failure, drain, events, ipam, mrt, output, tables};
use crate::api::clear::{ClearRequest, ClearedJson, SoftClear};
use crate::api::json::{FibJson, PeerJson, RouteJson, StatusJson, VersionJson};
use crate::api::{ServicePrefixJson, StationJson};

/// Asks, and writes the answer.
pub(super) fn run(
    client: &mut Client,
    command: &Command,
    args: &Args,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let format = args.output;
    match command {
        Command::Status => {
            let status: StatusJson = client.get("/v1/status")?;
            output::write(out, format, &status, |wide| tables::status(&status, wide))?;
            Ok(if status.ok && status.problems.is_empty() { Exit::Good } else { Exit::Wrong })
        }
        Command::Peers { peer } => peers(client, peer.as_deref(), format, out),
        Command::Routes { target, rib, peer } => {
            routes(client, *target, &routes_query(*target, *rib, peer.as_deref()), format, out)
        }
        Command::Services => {
            let services: Vec<ServicePrefixJson> = client.get("/v1/services")?;
            output::write(out, format, &services, |wide| tables::services(&services, wide))?;
            Ok(Exit::Good)
        }
        Command::Bmp => {
            let stations: Vec<StationJson> = client.get("/v1/bmp")?;
            output::write(out, format, &stations, |wide| tables::bmp(&stations, Timestamp::now(), wide))?;
            Ok(if stations.iter().all(|station| station.connected) { Exit::Good } else { Exit::Wrong })
        }
        Command::Fib => {
            let fib: Vec<FibJson> = client.get("/v1/fib")?;
            output::write(out, format, &fib, |wide| tables::fib(&fib, wide))?;
            Ok(Exit::Good)
        }
        Command::Events { follow, peer, prefixes, prefix } => {
            let wanted = events::Wanted::new(peer.as_deref(), *prefixes, *prefix);
            events::run(client, &wanted, *follow, format, out)
        }
        Command::Ipam { command } => ipam::run(client, command, format, out),
        Command::Clear { peer, soft } => clear(client, peer, *soft, format, out),
        Command::Mrt { write } => mrt::run(client, write.as_deref(), out),
        Command::Drain { wait } => drain::drain(client, *wait, format, out),
        Command::Undrain => drain::undrain(client, format, out),
        Command::Version => version(client, format, out),
        Command::Validate { .. } => Err(Failure::Usage("validate asks no daemon".into())),
    }
}

fn peers(
    client: &mut Client,
    wanted: Option<&str>,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let query = wanted.map_or_else(String::new, |wanted| format!("?peer={}", encode(wanted)));
    let peers: Vec<PeerJson> = client.get(&format!("/v1/peers{query}"))?;
    output::write(out, format, &peers, |wide| match (wanted, peers.as_slice()) {
        (Some(_), [one]) => tables::peer(one, Timestamp::now()),
        _ => tables::peers(&peers, Timestamp::now(), wide),
    })?;
    Ok(Exit::Good)
}

fn clear(
    client: &mut Client,
    peer: &str,
    soft: Option<Soft>,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let soft = soft.map(|soft| match soft {
        Soft::In => SoftClear::In,
        Soft::Out => SoftClear::Out,
    });
    let request = ClearRequest { peer: peer.to_owned(), soft };
    let cleared: Vec<ClearedJson> = client.post("/v1/clear", &request)?;
    output::write(out, format, &cleared, |_| {
        let line = |one: &ClearedJson| format!("{} ({}): {}\n", one.name, one.peer, one.text);
        cleared.iter().map(line).collect()
    })?;
    Ok(Exit::Good)
}

fn routes_query(target: Option<Target>, rib: Rib, peer: Option<&str>) -> String {
    let rib = match rib {
        Rib::In => "in",
        Rib::Loc => "loc",
        Rib::Out => "out",
    };
    let mut path = format!("/v1/routes?rib={rib}");
    path.push_str(&narrowed(target, peer));
    path
}

/// The part of a query that says of which prefixes and which peer.
pub(super) fn narrowed(target: Option<Target>, peer: Option<&str>) -> String {
    let target = match target {
        Some(Target::Prefix(prefix)) => format!("&prefix={}", encode(&prefix.to_string())),
        Some(Target::Address(address)) => format!("&address={}", encode(&address.to_string())),
        None => String::new(),
    };
    let peer = peer.map_or_else(String::new, |peer| format!("&peer={}", encode(peer)));
    target + &peer
}

fn routes(
    client: &mut Client,
    target: Option<Target>,
    query: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let routes: Vec<RouteJson> = client.get(query)?;
    output::write(out, format, &routes, |wide| tables::routes(&routes, target.is_some(), wide))?;
    Ok(if target.is_some() && routes.is_empty() { Exit::Wrong } else { Exit::Good })
}

/// The versions of both programs. A daemon that is not there has none; that is no failure here.
#[derive(Serialize)]
struct Versions {
    client: &'static str,
    daemon: Option<String>,
}

fn version(client: &mut Client, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let daemon = client.get::<VersionJson>("/v1/version").ok().map(|answer| answer.version);
    let versions = Versions { client: env!("CARGO_PKG_VERSION"), daemon };
    output::write(out, format, &versions, |_| {
        let daemon = versions.daemon.as_deref().unwrap_or("not reachable");
        format!("weftctl {}\nweftd   {daemon}\n", versions.client)
    })?;
    Ok(Exit::Good)
}
