//! `weft-controller`: gives blocks to nodes.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_controller::manager::main()
}
