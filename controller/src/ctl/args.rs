//! The command line of `weftctl`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::api::Duration;

/// Asks the Weft daemon of this node; checks documents without it.
#[derive(Debug, Parser)]
#[command(
    name = "weftctl",
    version,
    after_help = "Exit codes: 0 good; 1 something is wrong with the network or the documents, or nothing was found; \
                  2 usage, path or flag; 3 the daemon cannot be reached."
)]
pub struct Args {
    /// The daemon's socket
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/weft/weft.sock")]
    pub socket: PathBuf,

    /// How to write the answer
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub output: Format,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For people with wide screens
    Wide,
    /// The daemon's own words
    Json,
    /// The same as YAML
    Yaml,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell whether this node is well, and what to do if it is not
    Status,
    /// List the BGP peers, or show one of them
    Peers {
        /// A peer's address or %interface, or the name of the object that asks for it
        peer: Option<String>,
    },
    /// List BGP routes and why each path was or was not chosen
    Routes {
        /// A prefix (exactly this one) or an address (the longest match)
        #[arg(value_name = "PREFIX|IP")]
        target: Option<Target>,
        /// Which table: all paths, what a peer told us, or what we tell a peer
        #[arg(long, value_enum, default_value_t = Rib::Loc)]
        rib: Rib,
        /// A peer's address or name; with the local table, only paths from this peer
        #[arg(long, value_name = "PEER", required_if_eq_any = [("rib", "in"), ("rib", "out")])]
        peer: Option<String>,
    },
    /// List the addresses and ranges of Services, and why peers are told of each or not
    Services,
    /// List the monitoring stations that are told by BMP what the RIBs hold
    Bmp,
    /// List the kernel routes that Weft wants or owns, and how they fare
    Fib,
    /// Show what happened lately: sessions, errors, alarms, and if asked to, best paths that changed
    Events {
        /// Go on and show events as they happen
        #[arg(long)]
        follow: bool,
        /// Only what concerns a peer, by its address or name
        #[arg(long, value_name = "PEER")]
        peer: Option<String>,
        /// Also best paths that changed
        #[arg(long)]
        prefixes: bool,
        /// Only what concerns a prefix and those inside, or the prefixes that hold an address; best paths that changed among it
        #[arg(long, value_name = "PREFIX|IP")]
        prefix: Option<Target>,
    },
    /// Show, check and free the addresses of pods
    Ipam {
        /// What to do with them
        #[command(subcommand)]
        command: IpamCommand,
    },
    /// Dump the table with every path as it was received, as an MRT file (RFC 6396)
    Mrt {
        /// The file to write, in place of standard output; one that is there is replaced once the dump is whole
        #[arg(short, long, value_name = "FILE")]
        write: Option<PathBuf>,
    },
    /// End sessions with a Cease/Administrative Reset and begin them anew; with --soft, have routes told again and leave the sessions alone
    Clear {
        /// A peer's address or %interface, the name of the object that asks for it, or all: every peer
        #[arg(value_name = "PEER|all")]
        peer: String,
        /// Only the routes: in asks the peer for its own again (ROUTE-REFRESH), out tells it ours again
        #[arg(long, value_enum, value_name = "DIRECTION")]
        soft: Option<Soft>,
    },
    /// Take this node out of the network in good order: peers are told that others are better, then nothing, then sessions end
    Drain {
        /// Wait until the node is drained
        #[arg(long)]
        wait: bool,
    },
    /// End what drain began: everything is announced again
    Undrain,
    /// Check documents and list every error; needs no daemon
    Validate {
        /// A folder of *.yaml and *.yml files, or one file
        #[arg(short, long, value_name = "DIR|FILE")]
        file: PathBuf,
    },
    /// Show the versions of this program and of the daemon
    Version,
}

/// What to do with the addresses of pods.
#[derive(Debug, Subcommand)]
pub enum IpamCommand {
    /// Tell how full each block is, and who has which address
    Show,
    /// Compare the store of addresses with the kernel, the runtime and the network namespaces, and free what leaks
    Check {
        /// How far apart the two looks must be that free an address [default: weftd's --ipam-grace]
        #[arg(long, value_name = "DURATION")]
        grace: Option<Duration>,
    },
    /// Free the addresses of the interface that has this one
    Release {
        /// The address
        address: IpAddr,
        /// Also when it is in use: its link is taken away with it
        #[arg(long)]
        force: bool,
    },
}

/// A RIB as RFC 4271 section 3.2 names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rib {
    /// Adj-RIB-In of a peer, before policy
    In,
    /// Loc-RIB: all paths, also those that lost
    Loc,
    /// Adj-RIB-Out of a peer
    Out,
}

/// Whose routes are told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Soft {
    /// The peer's
    In,
    /// Ours
    Out,
}

/// What routes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Exactly this prefix.
    Prefix(IpNet),
    /// The longest match for this address.
    Address(IpAddr),
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if let Ok(address) = s.parse() {
            return Ok(Self::Address(address));
        }
        let prefix: IpNet = s.parse().map_err(|_| {
            format!("\"{s}\" is neither a prefix nor an address; write 10.1.2.0/26 or 10.1.2.3")
        })?;
        if prefix != prefix.trunc() {
            return Err(format!("{prefix} has host bits; did you mean {}?", prefix.trunc()));
        }
        Ok(Self::Prefix(prefix))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}
