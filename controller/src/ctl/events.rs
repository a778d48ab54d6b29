//! `weftctl events`.

use std::io::Write;

use super::args::{Format, Target};
use super::client::Client;
use super::query::narrowed;
use super::{Exit, Failure, output, tables};
use crate::api::json::EventJson;

/// How long one question for new events waits in the daemon, in seconds.
const FOLLOW_WAIT: u64 = 30;

/// The same where the daemon is asked for changes of best paths too, which it does not wait for.
const FOLLOW_WAIT_PREFIXES: u64 = 1;

/// Which events are wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The rest of the query.
    narrowed: String,
    /// Changes of best paths too.
    prefixes: bool,
}

impl Wanted {
    /// Of these peers and prefixes.
    pub(super) fn new(peer: Option<&str>, prefixes: bool, prefix: Option<Target>) -> Self {
        Self { narrowed: narrowed(prefix, peer), prefixes: prefixes || prefix.is_some() }
    }
}

/// How far a reader is: events and changes of best paths are numbered each by themselves.
#[derive(Debug, Default)]
struct Read {
    events: u64,
    prefixes: u64,
}

impl Read {
    /// What is new, in the order of time.
    fn next(&mut self, client: &mut Client, wanted: &Wanted, wait: u64) -> Result<Vec<EventJson>, Failure> {
        let (after, narrowed) = (self.events, &wanted.narrowed);
        let mut events: Vec<EventJson> =
            client.get(&format!("/v1/events?after={after}&wait={wait}{narrowed}"))?;
        self.events = events.last().map_or(after, |event| event.seq);
        if wanted.prefixes {
            let after = self.prefixes;
            let changes: Vec<EventJson> =
                client.get(&format!("/v1/prefix-events?after={after}{narrowed}"))?;
            self.prefixes = changes.last().map_or(after, |change| change.seq);
            events.extend(changes);
            events.sort_by_key(|event| event.time);
        }
        Ok(events)
    }
}

/// Writes the events there are and, when following, every new one until nobody reads any more.
pub(super) fn run(
    client: &mut Client,
    wanted: &Wanted,
    follow: bool,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let mut read = Read::default();
    let mut events = read.next(client, wanted, 0)?;
    if !follow {
        output::write(out, format, &events, |wide| {
            if events.is_empty() { "No events.\n".to_owned() } else { tables::events(&events, wide) }
        })?;
        return Ok(Exit::Good);
    }
    let wait = if wanted.prefixes { FOLLOW_WAIT_PREFIXES } else { FOLLOW_WAIT };
    loop {
        for event in &events {
            write_one(event, format, out)?;
        }
        out.flush()?;
        events = read.next(client, wanted, wait)?;
    }
}

/// One document each, so that a reader need not wait for the end of a list that never ends.
fn write_one(event: &EventJson, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    match format {
        Format::Table | Format::Wide => {
            let text = tables::events(std::slice::from_ref(event), format == Format::Wide);
            out.write_all(text.as_bytes())?;
        }
        Format::Json => {
            serde_json::to_writer(&mut *out, event).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
        }
        Format::Yaml => {
            out.write_all(b"---\n")?;
            output::write(out, format, event, |_| String::new())?;
        }
    }
    Ok(())
}
