//! `weft-controller`: gives blocks to nodes and addresses to Services and takes them back, and sums up for each object what became of it.
//!
//! ```text
//! watches ──▶ Cluster ─┐
//! BGPNodeStatuses ─────┼─▶ blocks::Keeper ────────▶ IPBlocks made, closed, deleted
//!                      └─▶ status::of ────────────▶ status of the objects
//! IPPools, Namespaces ─┐                                ▲ addresses in use
//! LoadBalancerIPs ─────┼─▶ load_balancer::Keeper ─┬─▶ LoadBalancerIPs made, changed, deleted
//! Services ────────────┘                          └─▶ status of Services
//! ```
//!
//! Several may run; the one that holds the Lease works. It keeps nothing: what it knows it reads anew when it gets the Lease, and each write is a
//! compare-and-set, so that one that believes wrongly to hold the Lease does no harm either.

mod addresses;
mod args;
mod execute;
mod lease;
mod metrics;
mod objects;
mod reports;
mod status;
mod work;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use self::addresses::Ours;
use self::args::Args;
use self::lease::Lease;
use self::metrics::Metrics;
use crate::kubernetes::{self, Access};
use crate::log;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    match serve(Args::from_command_line()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(io::stderr().lock(), "weft-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Args) -> Result<()> {
    log::to_stderr(args.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("weft-controller")
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let metrics = Arc::new(Metrics::default());
    let monitoring = TcpListener::bind(args.metrics).await.with_context(|| {
        format!("cannot serve metrics on {}; choose another address with --metrics", args.metrics)
    })?;
    tokio::spawn(axum::serve(monitoring, metrics::router(Arc::clone(&metrics))).into_future());
    let access = Access { kubeconfig: args.kubeconfig, api_server: args.api_server };
    let client = kubernetes::connect(&access).await?;
    let lease = Lease::new(client.clone(), &args.namespace);
    tracing::info!(
        identity = lease.identity(),
        version = env!("CARGO_PKG_VERSION"),
        "weft-controller starts"
    );
    let ours = Ours { class: args.load_balancer_class, default: args.default_load_balancer };
    let settings = work::Settings { grace: args.garbage_grace.0, ours };
    let lead = || work::lead(client.clone(), settings.clone(), Arc::clone(&metrics));
    tokio::select! {
        never = lease.lead_whenever_held(&metrics, lead) => match never {},
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // The work has ended with its future: another may begin at once.
    lease.give_up().await;
    tracing::info!("weft-controller stops");
    Ok(())
}
