//! The commands that ask the daemon.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;

use super::args::{Args, Command, Format, Rib, Soft, Target};
use super::client::{Client, encode};
use super::{Exit, Failure, drain, ipam, output, tables};
use crate::api::ServicePrefixJson;
use crate::api::clear::{ClearRequest, ClearedJson, SoftClear};
use crate::api::json::{EventJson, FibJson, PeerJson, RouteJson, StatusJson, VersionJson};

/// How long one question for new events waits in the daemon, in seconds.
const FOLLOW_WAIT: u64 = 30;

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
        Command::Fib => {
            let fib: Vec<FibJson> = client.get("/v1/fib")?;
            output::write(out, format, &fib, |wide| tables::fib(&fib, wide))?;
            Ok(Exit::Good)
        }
        Command::Events { follow } => events(client, *follow, format, out),
        Command::Ipam { command } => ipam::run(client, command, format, out),
        Command::Clear { peer, soft } => clear(client, peer, *soft, format, out),
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
    match target {
        Some(Target::Prefix(prefix)) => path.push_str(&format!("&prefix={}", encode(&prefix.to_string()))),
        Some(Target::Address(address)) => {
            path.push_str(&format!("&address={}", encode(&address.to_string())));
        }
        None => {}
    }
    if let Some(peer) = peer {
        path.push_str(&format!("&peer={}", encode(peer)));
    }
    path
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

/// Writes the events there are and, when following, every new one until nobody reads any more.
fn events(client: &mut Client, follow: bool, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let mut events: Vec<EventJson> = client.get("/v1/events")?;
    if !follow {
        output::write(out, format, &events, |wide| {
            if events.is_empty() { "No events.\n".to_owned() } else { tables::events(&events, wide) }
        })?;
        return Ok(Exit::Good);
    }
    let mut last = 0;
    loop {
        for event in &events {
            match format {
                Format::Table | Format::Wide => {
                    let text = tables::events(std::slice::from_ref(event), format == Format::Wide);
                    out.write_all(text.as_bytes())?;
                }
                // One document each, so that a reader need not wait for the end of a list that never ends.
                Format::Json => {
                    serde_json::to_writer(&mut *out, event).map_err(std::io::Error::from)?;
                    out.write_all(b"\n")?;
                }
                Format::Yaml => {
                    out.write_all(b"---\n")?;
                    output::write(out, format, event, |_| String::new())?;
                }
            }
        }
        out.flush()?;
        last = events.last().map_or(last, |event| event.seq);
        events = client.get(&format!("/v1/events?after={last}&wait={FOLLOW_WAIT}"))?;
    }
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
