//! Nothing happens: neither does weftd.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::super::peers::{Peer, Peers, Terms};
use super::super::routes::{internet_prefixes, plain};
use super::super::{LIMIT, Watch, peer_address};
use super::{Check, Figures, Told, beside_weftd, connect, external};
use crate::wait::now;

/// Those of most speakers.
const TERMS: Terms =
    Terms { hold_time: 90, keepalive_interval: Some(Duration::from_secs(30)), receive_buffer: None };
/// How long it takes until all that routes bring with them is over.
const AFTERMATH: Duration = Duration::from_secs(10);
/// Of the processor's time, at most.
const SHARE: f64 = 0.001;

pub(super) fn check(fraction: usize) -> Result<Vec<Figures>> {
    let prefixes = internet_prefixes(5000, 51);
    let specs =
        [1, 2].map(|number| external(number, plain(&prefixes, 65_100 + number, peer_address(number))));
    let part = |whole: Duration, least| (whole / u32::try_from(fraction).unwrap_or(1)).max(least);
    let lasts = part(Duration::from_secs(60), Duration::from_secs(2));
    beside_weftd(&specs, true, |mut running| {
        let mut peers = connect(&specs, TERMS)?;
        (0..specs.len()).for_each(|number| peers.tell(number));
        // The one is told what the other tells.
        let told = |peers: &Peers| peers.all().iter().map(Peer::has).sum::<usize>();
        ensure!(peers.run(LIMIT, |peers| told(peers) >= prefixes.len())?, "no routes after {LIMIT:?}");
        peers.run(part(AFTERMATH, Duration::from_secs(1)), |_| false)?;

        let pid = running.weftd()?;
        let (before, start) = (threads(pid)?, now());
        let watch = Watch::begin(&mut running)?;
        peers.run(lasts, |_| false)?;
        let took = start.elapsed();
        let outcome = watch.end(Some(took))?;
        let used = since(&threads(pid)?, &before);
        let time: Duration = used.values().map(|thread| thread.ran).sum();
        let share = time.as_secs_f64() / took.as_secs_f64();
        let a_second = |woken: u64| woken as f64 / took.as_secs_f64();
        let woken: u64 = used.values().map(|thread| thread.woken).sum();
        let busiest = used.iter().filter(|(_, thread)| thread.woken > 0).map(|((_, name), thread)| {
            let milliseconds = thread.ran.as_secs_f64() * 1000.0;
            format!("{name} {:.1}/s {milliseconds:.1} ms", a_second(thread.woken))
        });
        let busiest: Vec<String> = busiest.collect();
        let note = format!(
            "{:.3} % of a processor, {:.1} wake-ups a second: {}",
            100.0 * share,
            a_second(woken),
            busiest.join(", ")
        );
        // A build for tests is several times slower.
        let limit = if cfg!(debug_assertions) { 20.0 * SHARE } else { SHARE };
        ensure!(share < limit, "at most {:.1} % is wanted: {note}", 100.0 * limit);
        let figures = Figures::new(Check::Idle, "nothing happens", &outcome, Told::default());
        Ok(vec![Figures { cpu_seconds: time.as_secs_f64(), ..figures }.note(note)])
    })
}

/// What a thread has done.
#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    /// How long it ran.
    ran: Duration,
    /// How often it was given a processor.
    woken: u64,
}

/// What the threads of a process have done, by number and name (proc_pid_task(5), Documentation/scheduler/sched-stats.rst).
fn threads(pid: u32) -> Result<BTreeMap<(u32, String), Thread>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let (Ok(stat), Ok(name)) = (
            fs::read_to_string(entry.path().join("schedstat")),
            fs::read_to_string(entry.path().join("comm")),
        ) else {
            // It has ended.
            continue;
        };
        let mut fields = stat.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(ran)), Some(Ok(woken))) = (fields.next(), fields.nth(1)) else {
            anyhow::bail!("no schedstat: {stat:?}");
        };
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).context("no number")?;
        let thread = Thread { ran: Duration::from_nanos(ran), woken };
        threads.insert((number, name.trim().to_owned()), thread);
    }
    Ok(threads)
}

fn since(
    after: &BTreeMap<(u32, String), Thread>,
    before: &BTreeMap<(u32, String), Thread>,
) -> BTreeMap<(u32, String), Thread> {
    let since = |(key, thread): (&(u32, String), &Thread)| {
        let before = before.get(key).copied().unwrap_or_default();
        let ran = thread.ran.saturating_sub(before.ran);
        (key.clone(), Thread { ran, woken: thread.woken.saturating_sub(before.woken) })
    };
    after.iter().map(since).collect()
}
