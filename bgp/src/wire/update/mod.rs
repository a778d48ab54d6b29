//! UPDATE (RFC 4271 section 4.3, RFC 4760).
//!
//! Encoding, for whoever has prefixes to tell: [`AttributeBlock::new`] once per attribute set, then [`pack`] for one message after the
//! other. The attributes are encoded once, however many messages carry them.
//!
//! ```
//! use bytes::BytesMut;
//! use weft_bgp::types::Family;
//! use weft_bgp::wire::header::MESSAGE_MAX;
//! use weft_bgp::wire::update::{AttributeBlock, pack};
//! # use weft_bgp::wire::attributes::PathAttributes;
//! # fn tell(attributes: &PathAttributes, mut prefixes: &[ipnet::IpNet]) -> Result<BytesMut, ipnet::IpNet> {
//! let block = AttributeBlock::new(attributes, Family::Ipv4Unicast, true);
//! let mut out = BytesMut::new();
//! while let Some(first) = prefixes.first() {
//!     match pack(&block, prefixes, MESSAGE_MAX, &mut out) {
//!         0 => return Err(*first), // not even one prefix fits beside these attributes
//!         packed => prefixes = &prefixes[packed..],
//!     }
//! }
//! # Ok(out)
//! # }
//! ```
//!
//! Decoding, for whoever has a session: one [`Decoder`] per Established session, which puts what it finds straight into a
//! [`RouteBatch`](crate::ingress::RouteBatch). It keeps the attribute sets that it saw last, by their bytes, so that a set that comes
//! again is neither decoded nor allocated again.

pub use self::decode::{Agreed, Decoded, Decoder};
pub use self::encode::{AttributeBlock, end_of_rib, fits, pack, pack_withdrawn, table_dump_attributes};
pub(crate) use self::multiprotocol::family_of;
pub use self::stored::Stored;

mod attribute_set;
mod cache;
mod decode;
mod encode;
mod errors;
mod multiprotocol;
mod stored;
