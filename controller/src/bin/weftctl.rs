//! `weftctl`: what a person asks of a node's daemon and of a folder of documents.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_controller::ctl::main()
}
