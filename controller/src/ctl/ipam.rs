//! `weftctl ipam`: the addresses of pods.

use std::fmt::Write as _;
use std::io::Write;

use jiff::Timestamp;

use super::args::{Format, IpamCommand};
use super::client::Client;
use super::{Exit, Failure, output, tables};
use crate::api::ipam::{IpamCheckJson, IpamCheckRequest, IpamFreedJson, IpamJson, IpamReleaseRequest};

/// Asks, and writes the answer.
pub(super) fn run(
    client: &mut Client,
    command: &IpamCommand,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    match command {
        IpamCommand::Show => {
            let ipam: IpamJson = client.get("/v1/ipam")?;
            output::write(out, format, &ipam, |wide| tables::ipam(&ipam, Timestamp::now(), wide))?;
            Ok(Exit::Good)
        }
        IpamCommand::Check { grace } => {
            let grace_ms = grace.map(|grace| u64::try_from(grace.0.as_millis()).unwrap_or(u64::MAX));
            let check: IpamCheckJson = client.post("/v1/ipam/check", &IpamCheckRequest { grace_ms })?;
            output::write(out, format, &check, |_| checked(&check))?;
            Ok(if check.ok { Exit::Good } else { Exit::Wrong })
        }
        IpamCommand::Release { address, force } => {
            let request = IpamReleaseRequest { address: *address, force: *force };
            let freed: IpamFreedJson = client.post("/v1/ipam/release", &request)?;
            output::write(out, format, &freed, |_| format!("released {}\n", sentence(&freed)))?;
            Ok(Exit::Good)
        }
    }
}

/// What was compared, freed and found.
fn checked(check: &IpamCheckJson) -> String {
    let compared = &check.compared;
    let runtime = match compared.runtime.interfaces {
        Some(interfaces) => format!("{interfaces} interfaces of the runtime"),
        None => format!("no runtime ({} is not there)", compared.runtime.directory),
    };
    let mut text = format!(
        "Compared {} entries, {} links, {} routes, {} neighbours, {runtime}.\n",
        compared.entries, compared.links, compared.routes, compared.neighbours
    );
    for freed in &check.freed {
        let _ = writeln!(text, "freed {}", sentence(freed));
    }
    for finding in &check.findings {
        let addresses = tables::list(&finding.addresses, ", ");
        let _ = writeln!(text, "{} {addresses}: {}", finding.kind, finding.text);
        if let Some(since) = finding.missing_since {
            let _ = writeln!(text, "    missing since {since:.0}");
        }
        let _ = writeln!(text, "    {}", finding.remedy);
    }
    if check.ok {
        text.push_str("Nothing is wrong.\n");
    }
    text
}

/// Which addresses, of whom, and what went with them.
fn sentence(freed: &IpamFreedJson) -> String {
    let mut text = tables::list(&freed.addresses, ", ");
    if let Some(holder) = &freed.holder {
        let _ = write!(text, " of {holder}");
    }
    if !freed.removed.is_empty() {
        let _ = write!(text, "; removed {}", freed.removed.join(", "));
    }
    text
}
