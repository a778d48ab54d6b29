//! A thread that writes: while the kernel is at one batch, its owner makes the next one ready.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::Socket;
use super::error::Error;
use super::socket::{Numbering, Send};

/// A thread with a socket of its own.
#[derive(Debug)]
pub(super) struct Writer {
    numbering: Numbering,
    /// `None`: it is to end.
    batches: Option<SyncSender<Vec<Send>>>,
    results: Receiver<Vec<Result<(), Error>>>,
    /// How many requests each batch has that was begun and not finished.
    under_way: VecDeque<usize>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(mut socket: Socket) -> Result<Self, Error> {
        let numbering = socket.numbering();
        let (batches, received) = sync_channel::<Vec<Send>>(1);
        let (answers, results) = sync_channel(1);
        let write = move || {
            for batch in received {
                let mut results = Vec::new();
                batch.iter().for_each(|send| socket.exchange(send, &mut results));
                if answers.send(results).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("weft-writer".to_owned())
            .spawn(write)
            .map_err(|error: io::Error| Error::from_io("start a thread", &error))?;
        Ok(Self {
            numbering,
            batches: Some(batches),
            results,
            under_way: VecDeque::new(),
            thread: Some(thread),
        })
    }

    /// Has the thread carry out requests, which `encode` appends to a buffer with a sequence number each.
    pub(super) fn begin<'a, T: 'a>(
        &mut self,
        requests: impl IntoIterator<Item = &'a T>,
        encode: impl Fn(&T, u32, &mut Vec<u8>),
    ) {
        let mut requests = requests.into_iter().peekable();
        let mut batch = Vec::new();
        while requests.peek().is_some() {
            batch.push(self.numbering.fill(&mut requests, &encode, Vec::new()));
        }
        self.under_way.push_back(batch.iter().map(Send::count).fold(0, usize::saturating_add));
        // A thread that has ended gives no results.
        let _ = self.batches.as_ref().map(|batches| batches.send(batch));
    }

    /// Waits for the results of what was begun first.
    pub(super) fn finish(&mut self) -> Vec<Result<(), Error>> {
        let Some(under_way) = self.under_way.pop_front() else { return Vec::new() };
        self.results.recv().unwrap_or_else(|_| vec![Err(Error::NoReply); under_way])
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes routes panicked");
        }
    }
}
