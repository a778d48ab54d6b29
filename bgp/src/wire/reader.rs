//! A position in received bytes. The primitives are nom's; what they cannot deliver is `None`, and the caller says what that means.

use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser};

/// The bytes that are still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What is left, without taking it.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.apply(be_u8)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.apply(be_u16)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.apply(be_u32)
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        self.apply(take(length))
    }

    /// The next `N` octets, as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn apply<T>(&mut self, mut parser: impl Parser<&'a [u8], Output = T, Error = ()>) -> Option<T> {
        let parsed: IResult<&'a [u8], T, ()> = parser.parse(self.0);
        let (rest, value) = parsed.ok()?;
        self.0 = rest;
        Some(value)
    }
}
