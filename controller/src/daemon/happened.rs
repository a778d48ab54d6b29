//! What the speaker reports, in words.

use tracing::Level;
use weft_bgp::bfd::{Change, Diagnostic, State as BfdState};
use weft_bgp::ingress::IncidentKind;
use weft_bgp::session::State;
use weft_bgp::speaker::{Event, EventKind};

use super::events::NewEvent;

/// An event of the speaker's as people are told of it.
#[derive(Debug)]
pub(super) struct Happened {
    /// How loud.
    pub(super) level: Level,
    /// What makes it like others of its peer's: of those, one in a while is logged.
    pub(super) cause: String,
    /// The event.
    pub(super) event: NewEvent,
}

/// Puts an event of the speaker's in words.
pub(super) fn describe(event: &Event) -> Happened {
    let happened =
        |kind, text| NewEvent { peer: Some(event.peer.to_string()), kind, text, bytes: bytes::Bytes::new() };
    match &event.kind {
        EventKind::State { from, to } => {
            // Between Idle and OpenConfirm a session that cannot come up goes in circles.
            let notable = *from == State::Established || *to == State::Established;
            let level = if notable { Level::INFO } else { Level::DEBUG };
            let text = format!("{from} to {to}");
            Happened { level, cause: text.clone(), event: happened("session", text) }
        }
        EventKind::Incident(incident) => {
            let kind = match incident.kind {
                IncidentKind::NotificationSent { .. } => "notification-sent",
                IncidentKind::NotificationReceived { .. } => "notification-received",
                IncidentKind::TreatedAsWithdraw => "treated-as-withdraw",
                IncidentKind::AttributeDiscarded => "attribute-discarded",
                IncidentKind::Connection => "connection",
            };
            let event =
                NewEvent { bytes: incident.bytes.clone(), ..happened(kind, incident.reason.to_string()) };
            Happened { level: Level::WARN, cause: format!("{kind} {}", incident.reason.code), event }
        }
        EventKind::Bfd(change) => {
            let Change { state, diagnostic, failed, silence: _ } = change;
            // A failure may be over before it is told.
            let text = match failed {
                true if *state == BfdState::Up => {
                    "the path failed for a moment; the session is Up again".into()
                }
                true => format!("the path failed ({diagnostic}); the session is {state}"),
                false if *diagnostic == Diagnostic::NONE => format!("the session is {state}"),
                false => format!("the session is {state} ({diagnostic})"),
            };
            let level = match (failed, state) {
                (true, _) => Level::WARN,
                (false, BfdState::Init) => Level::DEBUG,
                (false, BfdState::AdminDown | BfdState::Down | BfdState::Up) => Level::INFO,
            };
            Happened { level, cause: format!("bfd {state} {failed}"), event: happened("bfd", text) }
        }
        EventKind::Alarm { prefix, reason } => {
            let event = happened("alarm", format!("{prefix}, and maybe more: {reason}"));
            Happened { level: Level::WARN, cause: format!("alarm {}", reason.code), event }
        }
        EventKind::Leak { prefix, reason } => {
            let event = happened("route-leak", format!("{prefix}, and maybe more: {}", reason.text));
            Happened { level: Level::WARN, cause: "route-leak".into(), event }
        }
        EventKind::Limit { family, received, limit, exceeded } => {
            let cause = format!("max-prefixes {family} {exceeded}");
            let text = format!("{received} prefixes of {family} were told, of {limit} that may be");
            Happened { level: Level::WARN, cause, event: happened("max-prefixes", text) }
        }
        EventKind::RangeRefused { range, connections, why } => {
            let text =
                format!("{connections} connections from within {range} closed at once; the last one: {why}");
            let cause = format!("refused {range}");
            Happened { level: Level::WARN, cause, event: happened("refused", text) }
        }
        EventKind::Refused { connections } => {
            let text =
                format!("{connections} connections closed at once: from no peer's address, or too many");
            Happened { level: Level::WARN, cause: "refused".into(), event: happened("refused", text) }
        }
    }
}

/// Logs an event. `more` like it were not logged since the last one was.
pub(super) fn log(level: Level, event: &NewEvent, more: u64) {
    let NewEvent { peer, kind, text, .. } = event;
    let peer = peer.as_deref().unwrap_or_default();
    match level {
        Level::ERROR | Level::WARN => tracing::warn!(peer, kind, more, "{text}"),
        Level::INFO => tracing::info!(peer, kind, more, "{text}"),
        Level::DEBUG | Level::TRACE => tracing::debug!(peer, kind, more, "{text}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_bgp::ingress::Incident;
    use weft_bgp::types::Reason;

    use super::*;

    fn told(kind: EventKind) -> Happened {
        describe(&Event { peer: [10, 0, 0, 1].into(), kind })
    }

    #[test]
    fn a_session_that_comes_or_goes_is_loud_and_the_way_there_is_not() {
        let up = told(EventKind::State { from: State::OpenConfirm, to: State::Established });
        let down = told(EventKind::State { from: State::Established, to: State::Idle });
        let between = told(EventKind::State { from: State::Idle, to: State::Connect });
        assert_eq!((up.level, down.level, between.level), (Level::INFO, Level::INFO, Level::DEBUG));
        assert_ne!(up.cause, down.cause, "coming up must not keep going down out of the log");
    }

    #[test]
    fn a_path_that_fails_is_loud_and_says_how_it_was_noticed() {
        let failed = Change {
            state: BfdState::Down,
            diagnostic: Diagnostic::CONTROL_DETECTION_TIME_EXPIRED,
            failed: true,
            silence: Duration::from_millis(900),
        };
        let down = told(EventKind::Bfd(failed));
        assert_eq!((down.level, down.event.kind), (Level::WARN, "bfd"));
        assert_eq!(down.event.text, "the path failed (Control Detection Time Expired); the session is Down");
        let over = Change { state: BfdState::Up, diagnostic: Diagnostic::NONE, ..failed };
        assert!(told(EventKind::Bfd(over)).event.text.contains("for a moment"));
        let up = Change { failed: false, ..over };
        assert_eq!(told(EventKind::Bfd(up)).event.text, "the session is Up");
    }

    #[test]
    fn incidents_keep_their_bytes_and_group_by_code() {
        let incident = |text: &str| Incident {
            kind: IncidentKind::TreatedAsWithdraw,
            reason: Reason::new("malformed-as-path", text),
            bytes: vec![1, 2, 3].into(),
        };
        let (first, second) =
            (told(EventKind::Incident(incident("one"))), told(EventKind::Incident(incident("two"))));
        assert_eq!(first.cause, second.cause);
        assert_eq!((first.event.kind, first.event.bytes.as_ref()), ("treated-as-withdraw", &[1, 2, 3][..]));
        assert!(first.event.text.contains("malformed-as-path"), "{}", first.event.text);
    }
}
