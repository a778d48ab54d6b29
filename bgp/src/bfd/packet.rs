//! The BFD control packet (RFC 5880 section 4).

use std::fmt;

use super::State;

/// The version that is spoken.
pub const VERSION: u8 = 1;
/// The octets of a packet without authentication.
pub const LENGTH: usize = 24;
/// The least octets of a packet with authentication (RFC 5880 section 6.8.6).
const LENGTH_AUTHENTICATED: usize = 26;

const POLL: u8 = 1 << 5;
const FINAL: u8 = 1 << 4;
const CONTROL_PLANE_INDEPENDENT: u8 = 1 << 3;
const AUTHENTICATION_PRESENT: u8 = 1 << 2;
const DEMAND: u8 = 1 << 1;
const MULTIPOINT: u8 = 1;

/// A diagnostic code (RFC 5880 section 4.1): why a session left Up, or never was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// Nothing to tell.
    pub const NONE: Self = Self(0);
    /// Nothing was heard for the detection time.
    pub const CONTROL_DETECTION_TIME_EXPIRED: Self = Self(1);
    /// The other end says that it is down.
    pub const NEIGHBOR_SIGNALED_SESSION_DOWN: Self = Self(3);
    /// It was taken down by will.
    pub const ADMINISTRATIVELY_DOWN: Self = Self(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "No Diagnostic",
            1 => "Control Detection Time Expired",
            2 => "Echo Function Failed",
            3 => "Neighbor Signaled Session Down",
            4 => "Forwarding Plane Reset",
            5 => "Path Down",
            6 => "Concatenated Path Down",
            7 => "Administratively Down",
            8 => "Reverse Concatenated Path Down",
            code => return write!(f, "diagnostic code {code}"),
        })
    }
}

/// A control packet. Intervals are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's state changed last.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// The sender wants an answer with F.
    pub poll: bool,
    /// This is that answer.
    pub final_: bool,
    /// The sender's BFD outlives its control plane.
    pub control_plane_independent: bool,
    /// The sender's Authentication Section, if it has one.
    pub authentication: Option<Authentication>,
    /// The sender wishes us to fall silent while the session is Up.
    pub demand: bool,
    /// How many packets in a row may be missing.
    pub detect_mult: u8,
    /// The sender's name for the session.
    pub my_discriminator: u32,
    /// What it knows of our name for the session; 0: nothing.
    pub your_discriminator: u32,
    /// The least interval at which it wishes to send.
    pub desired_min_tx_interval: u32,
    /// The least interval at which it can receive; 0: it wants nothing.
    pub required_min_rx_interval: u32,
    /// The least interval at which it can receive echo packets; 0: none.
    pub required_min_echo_rx_interval: u32,
}

/// An Authentication Section (RFC 5880 section 4.1), of which no type is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// The type: 1 Simple Password to 5 Meticulous Keyed SHA1.
    pub kind: u8,
    /// Its octets, type and length included.
    pub length: u8,
}

/// Why a packet is discarded before any session is asked, in the order of RFC 5880 section 6.8.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer octets than a packet has.
    #[error("it has fewer than 24 octets")]
    Short,
    /// Not version 1.
    #[error("it is of version {0}, not 1")]
    Version(u8),
    /// The length field is less than the fields take, or more than there is.
    #[error("its length field says {0}, which is less than its fields take or more than there is")]
    Length(u8),
    /// Detect Mult is 0.
    #[error("its Detect Mult is 0")]
    DetectMult,
    /// M is set.
    #[error("it is of a multipoint session")]
    Multipoint,
    /// My Discriminator is 0.
    #[error("its My Discriminator is 0")]
    MyDiscriminator,
    /// Your Discriminator is 0 in a state in which the sender must know it.
    #[error("its Your Discriminator is 0 in state {0}")]
    YourDiscriminator(State),
    /// The Authentication Section does not fit.
    #[error("its Authentication Section does not fit")]
    Authentication,
}

impl Packet {
    /// Reads a packet. What follows the length that it tells is ignored.
    ///
    /// # Errors
    /// What is wrong with it: RFC 5880 section 6.8.6 wants it discarded.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let Some(&[first, flags, detect_mult, length, ref words @ ..]) = bytes.first_chunk::<LENGTH>() else {
            return Err(Malformed::Short);
        };
        let least = if flags & AUTHENTICATION_PRESENT == 0 { LENGTH } else { LENGTH_AUTHENTICATED };
        if first >> 5 != VERSION {
            return Err(Malformed::Version(first >> 5));
        }
        let Some(whole) = bytes.get(..length.into()).filter(|whole| whole.len() >= least) else {
            return Err(Malformed::Length(length));
        };
        if detect_mult == 0 {
            return Err(Malformed::DetectMult);
        }
        if flags & MULTIPOINT != 0 {
            return Err(Malformed::Multipoint);
        }
        let mut words = words.chunks_exact(4).map(|word| word.iter().fold(0, |n, o| n << 8 | u32::from(*o)));
        let mut word = || words.next().unwrap_or_default();
        let packet = Self {
            diagnostic: Diagnostic(first & 0x1f),
            state: match flags >> 6 {
                0 => State::AdminDown,
                1 => State::Down,
                2 => State::Init,
                _ => State::Up,
            },
            poll: flags & POLL != 0,
            final_: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            authentication: None,
            demand: flags & DEMAND != 0,
            detect_mult,
            my_discriminator: word(),
            your_discriminator: word(),
            desired_min_tx_interval: word(),
            required_min_rx_interval: word(),
            required_min_echo_rx_interval: word(),
        };
        if packet.my_discriminator == 0 {
            return Err(Malformed::MyDiscriminator);
        }
        if packet.your_discriminator == 0 && matches!(packet.state, State::Init | State::Up) {
            return Err(Malformed::YourDiscriminator(packet.state));
        }
        let section = whole.get(LENGTH..).unwrap_or_default();
        let authentication = match (flags & AUTHENTICATION_PRESENT != 0, section) {
            (false, _) => None,
            (true, &[kind, length, ..]) if (2..=section.len()).contains(&length.into()) => {
                Some(Authentication { kind, length })
            }
            (true, _) => return Err(Malformed::Authentication),
        };
        Ok(Self { authentication, ..packet })
    }

    /// Writes the packet; an Authentication Section is never written, as there is none to write.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let state = match self.state {
            State::AdminDown => 0,
            State::Down => 1,
            State::Init => 2,
            State::Up => 3,
        };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = state << 6
            | flag(self.poll, POLL)
            | flag(self.final_, FINAL)
            | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.demand, DEMAND);
        let head = [VERSION << 5 | self.diagnostic.0 & 0x1f, flags, self.detect_mult, 24];
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx_interval,
            self.required_min_rx_interval,
            self.required_min_echo_rx_interval,
        ];
        let mut bytes = [0; LENGTH];
        let octets = head.into_iter().chain(words.into_iter().flat_map(u32::to_be_bytes));
        bytes.iter_mut().zip(octets).for_each(|(byte, octet)| *byte = octet);
        bytes
    }
}
