//! What happens to a machine's routes while nobody looks.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::{Process, SHORT};
use crate::wait::wait_until;

/// Prefixes for documentation (RFC 5737), routed for a moment so that the monitor has something to hear.
const BEGIN: &str = "192.0.2.1/32";
const END: &str = "192.0.2.2/32";

/// Writes down every change of a machine's routes, as `ip monitor route` tells them.
#[derive(Debug)]
pub struct RouteMonitor {
    namespace: Namespace,
    log: PathBuf,
    /// What an earlier monitor of the machine wrote.
    skip: usize,
    process: Process,
}

impl RouteMonitor {
    /// Starts to listen; returns when it hears.
    ///
    /// # Errors
    /// If `ip monitor` does not run.
    pub fn start(lab: &Lab, namespace: &Namespace) -> Result<Self> {
        let name = format!("{}.routes", namespace.label());
        let log = lab.log(&name);
        let skip = if log.exists() { std::fs::read_to_string(&log)?.len() } else { 0 };
        let process = Process::start(name, namespace.command("ip").args(["-ts", "monitor", "route"]), &log)?;
        let mut monitor = Self { namespace: namespace.clone(), log, skip, process };
        monitor.wait_hears(BEGIN)?;
        Ok(monitor)
    }

    /// Stops, and lists the routes that went away meanwhile, be it for a moment.
    ///
    /// # Errors
    /// If it does not hear any more.
    pub fn deleted(mut self) -> Result<Vec<String>> {
        self.wait_hears(END)?;
        let marks = [BEGIN, END].map(|mark| mark.trim_end_matches("/32"));
        let text = self.heard()?;
        let deleted = text.lines().filter(|line| line.contains("Deleted"));
        Ok(deleted.filter(|line| !marks.iter().any(|mark| line.contains(mark))).map(str::to_owned).collect())
    }

    /// Changes a route itself until it hears of it: then it has heard all that was before.
    fn wait_hears(&mut self, mark: &str) -> Result<()> {
        let address = mark.trim_end_matches("/32");
        wait_until(format!("the route monitor of {}", self.namespace.label()), SHORT, || {
            self.process.ensure_running()?;
            self.namespace.ip(&format!("route replace unreachable {mark}\nroute del unreachable {mark}"))?;
            ensure!(
                self.heard()?.lines().any(|line| line.contains("Deleted") && line.contains(address)),
                "it hears nothing"
            );
            Ok(())
        })
    }

    /// What this monitor itself heard: an earlier one of the machine may have heard the same marks.
    fn heard(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?.split_off(self.skip))
    }
}
