//! `weftctl drain` and `undrain`.

use std::io::Write;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::args::Format;
use super::client::Client;
use super::{Exit, Failure, output, tables};
use crate::api::json::{DrainJson, DrainPhase, EventJson, StatusJson};

/// How much longer than announced a phase may last.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// How long one question for new events waits in the daemon, in seconds.
const EVENT_WAIT: u64 = 5;

/// Begins, and with `wait` waits until the node is drained, whoever began it.
pub(super) fn drain(
    client: &mut Client,
    wait: bool,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let begun: Result<DrainJson, Failure> = client.post("/v1/drain", &json!({}));
    let drain = match begun {
        Err(Failure::Refused(text)) if wait => wait_drained(client, Some(text))?,
        Ok(_) if wait => wait_drained(client, None)?,
        begun => begun?,
    };
    output::write(out, format, &drain, |_| format!("{}\n", tables::drained(&drain)))?;
    Ok(Exit::Good)
}

/// Waits from event to event. `refusal`: why no drain was begun, which is no failure where there is one.
fn wait_drained(client: &mut Client, refusal: Option<String>) -> Result<DrainJson, Failure> {
    let mut last = 0;
    loop {
        let status: StatusJson = client.get("/v1/status")?;
        let Some(drain) = status.drain else {
            let ended = || "the drain was ended before the node was drained".to_owned();
            return Err(Failure::Refused(refusal.unwrap_or_else(ended)));
        };
        if drain.phase == DrainPhase::Drained {
            return Ok(drain);
        }
        let overdue = drain.until.is_some_and(|until| Timestamp::now().duration_since(until) > PATIENCE);
        if overdue {
            let text = format!("the node should be drained by now: {}", tables::drained(&drain));
            return Err(Failure::Refused(text));
        }
        let events: Vec<EventJson> = client.get(&format!("/v1/events?after={last}&wait={EVENT_WAIT}"))?;
        last = events.last().map_or(last, |event| event.seq);
    }
}

/// Ends it.
pub(super) fn undrain(client: &mut Client, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let (): () = client.post("/v1/undrain", &json!({}))?;
    output::write(out, format, &(), |_| "the node is drained no more: all is announced again\n".to_owned())?;
    Ok(Exit::Good)
}
