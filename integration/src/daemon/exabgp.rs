//! ExaBGP: tells what it is written, octet by octet where that is asked for, and keeps no table. What it is told it gives to a program, as
//! lines of JSON.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use serde_json::Value;

use super::{Family, Neighbor};
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::{Process, SHORT, foreign_program, run};

/// A running ExaBGP.
#[derive(Debug)]
pub struct Exabgp {
    process: Process,
    told: PathBuf,
    /// Is there as long as it runs.
    _namespace: Namespace,
}

/// A session of an ExaBGP, from an AS of its own.
#[derive(Debug)]
pub struct Speaker {
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Whom it speaks with.
    pub neighbor: Neighbor,
    /// What it announces, in ExaBGP's words: `route PREFIX next-hop …`. With path identifiers (RFC 7911) each route needs one.
    pub routes: Vec<String>,
    /// Whether it tells several paths of a prefix.
    pub add_path: bool,
}

impl Exabgp {
    /// Starts it.
    ///
    /// # Errors
    /// If ExaBGP is not installed, or a file cannot be written.
    pub fn start(lab: &Lab, namespace: &Namespace, speakers: &[Speaker]) -> Result<Self> {
        let program = foreign_program(&["/usr/sbin/exabgp"], "exabgp")?;
        let directory = lab.directory("exabgp")?;
        let (recorder, told) = (directory.join("recorder"), directory.join("told"));
        // The shell stays, and holds the standard output open whose end ExaBGP takes for the program's.
        fs::write(&recorder, format!("#!/bin/sh\ncat >>{}\n", told.display()))?;
        fs::set_permissions(&recorder, Permissions::from_mode(0o755))?;
        let mut text = format!("process told {{\n  run {};\n  encoder json;\n}}\n", recorder.display());
        speakers.iter().for_each(|speaker| render(&mut text, speaker));
        fs::write(directory.join("exabgp.conf"), text)?;
        let mut command = namespace.command(program);
        command.arg("exabgp.conf").current_dir(directory);
        for (name, value) in [("daemon.user", "root"), ("daemon.drop", "false"), ("api.cli", "false")] {
            command.env(format!("exabgp.{name}"), value);
        }
        let process = Process::start("exabgp", &mut command, &lab.log("exabgp"))?;
        Ok(Self { process, told, _namespace: namespace.clone() })
    }

    /// How it calls its own version.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn version() -> Result<String> {
        let program = foreign_program(&["/usr/sbin/exabgp"], "exabgp")?;
        let said = run(Command::new(program).arg("--version"), SHORT)?.success()?.stdout;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }

    /// The path attributes with which a neighbor last told a prefix, as ExaBGP names them: `attribute-0xTYPE-0xFLAGS` where it knows them by
    /// no name. Of those it shows Partial whether it came or not.
    ///
    /// # Errors
    /// If it was not told, or has taken it back.
    pub fn attributes(&self, neighbor: IpAddr, prefix: IpNet) -> Result<Value> {
        let text = fs::read_to_string(&self.told).context("it was told nothing")?;
        let prefix = prefix.to_string();
        let family = if prefix.contains(':') { "ipv6 unicast" } else { "ipv4 unicast" };
        // The last line may not be whole.
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let from = messages.filter(|message| message["neighbor"]["address"]["peer"] == neighbor.to_string());
        let mut last = None;
        for message in from {
            let update = &message["neighbor"]["message"]["update"];
            let names = |routes: &Value| routes.as_array().into_iter().flatten().any(|r| r["nlri"] == prefix);
            if names(&update["withdraw"][family]) {
                last = None;
            }
            if update["announce"][family].as_object().is_some_and(|hops| hops.values().any(names)) {
                last = Some(update["attribute"].clone());
            }
        }
        last.with_context(|| format!("{neighbor} tells no {prefix}: {text}"))
    }

    /// Kills it.
    ///
    /// # Errors
    /// If it had ended before.
    pub fn kill9(self) -> Result<()> {
        self.process.kill9()
    }
}

fn render(text: &mut String, speaker: &Speaker) {
    let Speaker { asn, router_id, neighbor, routes, add_path } = speaker;
    let family = |family: &Family| match family {
        Family::V4 => "ipv4 unicast; ",
        Family::V6 => "ipv6 unicast; ",
    };
    let families: String = neighbor.families.iter().map(family).collect();
    let several = match add_path {
        true => format!("  add-path {{ {families}}}\n  capability {{ add-path send; }}\n"),
        false => String::new(),
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "neighbor {} {{\n  router-id {router_id};\n  local-address {};\n  local-as {asn};\n  peer-as {};\n  hold-time 9;\n  family {{ \
         {families}}}\n{several}  static {{\n    {}\n  }}\n  api {{ processes [told]; receive {{ parsed; update; }} }}\n}}",
        neighbor.address,
        neighbor.local,
        neighbor.asn,
        routes.iter().map(|route| format!("{route};")).collect::<Vec<_>>().join("\n    "),
    );
}
