//! `weft-cni`: the CNI plugin a container runtime runs once per command.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_cni::plugin::main()
}
