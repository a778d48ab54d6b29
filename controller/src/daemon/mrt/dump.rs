//! A table as an MRT file has it, from the speaker to whoever wants it.

use std::io;
use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use weft_bgp::speaker::Dump;
use weft_bgp::transport::Handle;

/// How many pieces may wait for whoever takes them. The speaker is asked for no more meanwhile.
pub(in crate::daemon) const PIECES_MAX: usize = 4;

/// Where pieces go; an error is the end of a dump that is not whole.
pub(in crate::daemon) type Pieces = mpsc::Sender<io::Result<Bytes>>;

/// Gives the speaker's table, a piece at a time, and between two of them the speaker goes on with its work. Ends early when nobody takes
/// them any more.
pub(in crate::daemon) async fn dump(handle: Handle, now: Instant, pieces: Pieces) {
    let mut dump = Dump::new(now, SystemTime::now().into());
    loop {
        let Ok(room) = pieces.reserve().await else { return };
        let look = move |speaker: &weft_bgp::speaker::Speaker| {
            let mut octets = BytesMut::new();
            let more = speaker.dump(&mut dump, &mut octets);
            (dump, octets.freeze(), more)
        };
        match handle.inspect(look).await {
            Ok((so_far, octets, more)) => {
                room.send(Ok(octets));
                if !more {
                    let omitted = so_far.omitted();
                    if omitted > 0 {
                        tracing::warn!(
                            omitted,
                            "paths whose attributes no MRT record can hold are not in the dump"
                        );
                    }
                    return;
                }
                dump = so_far;
            }
            Err(stopped) => return room.send(Err(io::Error::other(stopped))),
        }
    }
}
