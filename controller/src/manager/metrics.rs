//! What weft-controller counts, and whether it lives.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::blocks::Change;
use crate::load_balancer;

/// Counters, since the start.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    leads: AtomicBool,
    given: AtomicU64,
    closed: AtomicU64,
    returned: AtomicU64,
    statuses: AtomicU64,
    failed: AtomicU64,
    blocks: AtomicU64,
    shortages: AtomicU64,
    addresses: AtomicU64,
    addresses_given: AtomicU64,
    addresses_returned: AtomicU64,
    refused: AtomicU64,
}

impl Metrics {
    pub(super) fn leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }

    pub(super) fn made(&self, change: &Change) {
        let counter = match change {
            Change::Give { .. } => &self.given,
            Change::Close { .. } => &self.closed,
            Change::Return { .. } => &self.returned,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn status_written(&self) {
        self.statuses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn address_change(&self, change: &load_balancer::Change) {
        let counter = match change {
            load_balancer::Change::Claim { .. } => &self.addresses_given,
            load_balancer::Change::Release { .. } => &self.addresses_returned,
            load_balancer::Change::Assign { .. } | load_balancer::Change::Tell { .. } => &self.statuses,
            load_balancer::Change::Renew { .. } | load_balancer::Change::Delete { .. } => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn addresses_counted(&self, addresses: u64, refused: usize) {
        self.addresses.store(addresses, Ordering::Relaxed);
        self.refused.store(u64::try_from(refused).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn counted(&self, blocks: usize, shortages: usize) {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.blocks.store(number(blocks), Ordering::Relaxed);
        self.shortages.store(number(shortages), Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Scrape(Arc<Metrics>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &self.0;
        let gauges = [
            (
                "controller_leads",
                "1 for the holder of the Lease",
                u64::from(metrics.leads.load(Ordering::Relaxed)),
            ),
            ("controller_blocks", "IPBlocks that there are", metrics.blocks.load(Ordering::Relaxed)),
            (
                "controller_shortages",
                "Nodes that a pool has no block for",
                metrics.shortages.load(Ordering::Relaxed),
            ),
            (
                "controller_load_balancer_addresses",
                "LoadBalancer addresses that Services have",
                metrics.addresses.load(Ordering::Relaxed),
            ),
            (
                "controller_load_balancer_shortages",
                "Services that do not have the addresses that they ask for",
                metrics.refused.load(Ordering::Relaxed),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let counters = [
            ("controller_blocks_given", "IPBlocks made", &metrics.given),
            ("controller_blocks_closed", "IPBlocks closed", &metrics.closed),
            ("controller_blocks_returned", "IPBlocks deleted", &metrics.returned),
            (
                "controller_load_balancer_addresses_given",
                "LoadBalancer addresses claimed for Services",
                &metrics.addresses_given,
            ),
            (
                "controller_load_balancer_addresses_returned",
                "LoadBalancer addresses taken back from Services",
                &metrics.addresses_returned,
            ),
            ("controller_status_writes", "Statuses written", &metrics.statuses),
            ("controller_write_failures", "Writes to the Kubernetes API that failed", &metrics.failed),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value.load(Ordering::Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

/// `/metrics`, `/healthz` and `/readyz`. Who waits for the Lease is well, and ready.
pub(super) fn router(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .with_state(metrics)
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    let mut registry = Registry::with_prefix("weft");
    registry.register_collector(Box::new(Scrape(metrics)));
    let mut text = String::new();
    // Writing to a String cannot fail, and nothing in here does otherwise.
    let _ = encode(&mut text, &registry);
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
