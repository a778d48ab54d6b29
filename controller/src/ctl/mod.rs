//! `weftctl`: asks a node's daemon over its unix socket, or checks documents without one.
//!
//! Exit codes are part of the interface, see [`Exit`].

pub mod args;
mod client;
mod drain;
mod events;
mod ipam;
mod mrt;
mod output;
mod peer_detail;
mod query;
pub mod tables;
mod validate;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use self::args::{Args, Command};

/// How `weftctl` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: all is well.
    Good,
    /// 1: something is wrong with the network or the documents, or what was asked for is not there.
    Wrong,
    /// 2: the command line, a path or a flag is wrong.
    Usage,
    /// 3: the daemon cannot be reached, or does not answer as it should.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Good => 0,
            Exit::Wrong => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
        })
    }
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An argument that clap cannot judge is wrong: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The daemon says that what was asked for does not exist: exit code 1.
    #[error("{0}")]
    NotFound(String),
    /// The daemon says that it cannot be done as things are: exit code 1.
    #[error("{0}")]
    Refused(String),
    /// No usable answer came from the daemon: exit code 3.
    #[error("{0}")]
    Unreachable(String),
    /// Standard output cannot be written to.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Output(_) => Exit::Usage,
            Self::NotFound(_) | Self::Refused(_) => Exit::Wrong,
            Self::Unreachable(_) => Exit::Unreachable,
        }
    }
}

/// The whole program: the process's arguments and standard streams.
#[must_use]
pub fn main() -> ExitCode {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    run(std::env::args_os(), &mut stdout.lock(), &mut stderr.lock()).into()
}

/// Runs one command line, program name first.
///
/// Output goes to `out`, complaints to `err`. A reader that has gone away (a closed pipe) is no failure.
pub fn run(arguments: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(stop) => return explain(&stop, out, err),
    };
    let ended = execute(&args, out).and_then(|exit| out.flush().map(|()| exit).map_err(Failure::Output));
    match ended {
        Ok(exit) => exit,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Good,
        Err(failure) => {
            // Nobody is left to tell when standard error is gone too.
            let _ = writeln!(err, "weftctl: {failure}");
            failure.exit()
        }
    }
}

/// `--help` and `--version` are answers, everything else that clap stops at is a usage error.
fn explain(stop: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    if stop.use_stderr() {
        let _ = write!(err, "{}", stop.render());
        Exit::Usage
    } else {
        let _ = write!(out, "{}", stop.render());
        Exit::Good
    }
}

fn execute(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    match &args.command {
        Command::Validate { file } => validate::run(file, args.output, out),
        command => client::Client::connect(&args.socket)
            .and_then(|mut client| query::run(&mut client, command, args, out)),
    }
}
