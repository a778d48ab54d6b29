//! `weftd`: the daemon that makes a node a router.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_controller::daemon::main()
}
