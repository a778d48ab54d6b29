//! A byte stream → messages.

use bytes::{Buf, Bytes, BytesMut};

use crate::session::Malformed;
use crate::wire::header::{HEADER_LENGTH, Header, MESSAGE_MAX, MessageType};

/// One message, header included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: MessageType,
    pub(super) message: Bytes,
}

impl Frame {
    /// What follows the header.
    pub(super) fn body(&self) -> Bytes {
        let mut body = self.message.clone();
        body.advance(HEADER_LENGTH.min(body.len()));
        body
    }
}

/// Cuts what a peer sends into messages, however it is chopped. Messages that come whole are not copied; of one that does not, no
/// more than its own length is kept.
#[derive(Debug)]
pub(super) struct Framer {
    /// What has not been looked at.
    input: Bytes,
    /// The beginning of a message whose end has not come.
    partial: BytesMut,
    message_max: u16,
}

impl Default for Framer {
    fn default() -> Self {
        Self { input: Bytes::new(), partial: BytesMut::new(), message_max: MESSAGE_MAX }
    }
}

impl Framer {
    /// Lets messages grow to this length from now on.
    pub(super) fn set_message_max(&mut self, message_max: u16) {
        self.message_max = message_max;
    }

    /// Takes in bytes. The caller asks for messages until there is none before it comes with more.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.input = bytes;
    }

    /// The next message; `None`: it is not complete.
    ///
    /// # Errors
    /// See [`Header::decode`]. There is nothing sensible to read after one.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        if self.partial.is_empty() {
            return self.next_whole();
        }
        self.complete(HEADER_LENGTH);
        let Some(header) = self.header(&self.partial)? else {
            return Ok(None);
        };
        let length = usize::from(header.length);
        self.complete(length);
        if self.partial.len() < length {
            return Ok(None);
        }
        let message = std::mem::take(&mut self.partial).freeze();
        Ok(Some(Frame { kind: header.kind, message }))
    }

    /// What there is of a message whose end has not come.
    pub(super) fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// All that no message was made of.
    pub(super) fn rest(&mut self) -> Bytes {
        let mut rest = std::mem::take(&mut self.partial);
        rest.extend_from_slice(&std::mem::take(&mut self.input));
        rest.freeze()
    }

    /// The next message if all of it is in the input; else what there is of it is put aside.
    fn next_whole(&mut self) -> Result<Option<Frame>, Malformed> {
        match self.header(&self.input)? {
            Some(header) if self.input.len() >= usize::from(header.length) => {
                let message = self.input.split_to(header.length.into());
                Ok(Some(Frame { kind: header.kind, message }))
            }
            _ => {
                self.partial.extend_from_slice(&std::mem::take(&mut self.input));
                Ok(None)
            }
        }
    }

    /// Moves input until the partial message has `length` octets or the input is used up.
    fn complete(&mut self, length: usize) {
        let wanted = length.saturating_sub(self.partial.len()).min(self.input.len());
        self.partial.extend_from_slice(&self.input.split_to(wanted));
    }

    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, Malformed> {
        let Some(header) = bytes.first_chunk::<HEADER_LENGTH>() else {
            return Ok(None);
        };
        match Header::decode(header, self.message_max) {
            Ok(header) => Ok(Some(header)),
            Err(error) => Err(Malformed { error, message: Bytes::copy_from_slice(header) }),
        }
    }
}
