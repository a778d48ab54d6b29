//! Monitoring stations: they take a speaker's connection, and keep what it says.

use std::net::SocketAddr;

use super::{SpeakerId, World};
use crate::speaker::Input;
use crate::types::ConnectionId;

/// How many bytes the kernels between a speaker and a station that does not read hold.
const WINDOW: usize = 64 * 1024;

/// A monitoring station, for one speaker.
#[derive(Debug)]
pub(super) struct Station {
    up: bool,
    reading: bool,
    link: Option<(SpeakerId, ConnectionId)>,
    /// What the speaker has written on this connection.
    written: Vec<u8>,
    /// How much of it the kernel has taken.
    taken: usize,
    /// How much of it the station has read.
    read: usize,
}

impl World {
    /// Adds a station that listens there.
    pub fn add_station(&mut self, address: SocketAddr) {
        let station = Station { up: true, reading: true, link: None, written: Vec::new(), taken: 0, read: 0 };
        self.stations.insert(address, station);
    }

    /// What a station has read of its last connection.
    #[must_use]
    pub fn station(&self, address: SocketAddr) -> &[u8] {
        let station = self.stations.get(&address);
        station.and_then(|station| station.written.get(..station.read)).unwrap_or_default()
    }

    /// Whether a station takes connections. One that does not ends the one it has.
    pub fn set_station_up(&mut self, address: SocketAddr, up: bool) {
        let Some(station) = self.stations.get_mut(&address) else { return };
        station.up = up;
        if !up && let Some((id, connection)) = station.link.take() {
            self.drive(id, Input::Closed { connection, error: Some("connection reset by peer".into()) });
        }
    }

    /// Whether a station reads what it is sent.
    pub fn set_station_reading(&mut self, address: SocketAddr, reading: bool) {
        if let Some(station) = self.stations.get_mut(&address) {
            station.reading = reading;
            self.pump_station(address);
        }
    }

    pub(super) fn connect_station(&mut self, from: SpeakerId, connection: ConnectionId, address: SocketAddr) {
        let Some(station) = self.stations.get_mut(&address) else { return };
        if !station.up {
            let input = Input::ConnectFailed { connection, error: "connection refused".into() };
            return self.tell_later(from, input);
        }
        station.link = Some((from, connection));
        (station.written, station.taken, station.read) = (Vec::new(), 0, 0);
        self.drive(from, Input::Connected { connection, local: SocketAddr::from(([0; 4], 0)) });
    }

    pub(super) fn write_to_station(&mut self, from: SpeakerId, connection: ConnectionId, bytes: &[u8]) {
        let is_it = |station: &Station| station.link == Some((from, connection));
        let Some((address, station)) = self.stations.iter_mut().find(|(_, station)| is_it(station)) else {
            return;
        };
        station.written.extend_from_slice(bytes);
        let address = *address;
        self.pump_station(address);
    }

    /// Lets the kernel take what it has room for.
    fn pump_station(&mut self, address: SocketAddr) {
        let Some(station) = self.stations.get_mut(&address) else { return };
        if station.reading {
            station.read = station.written.len();
        }
        let taken = station.written.len().min(station.read + WINDOW);
        let bytes = taken - std::mem::replace(&mut station.taken, taken);
        if let Some((id, connection)) = station.link.filter(|_| bytes > 0) {
            self.tell_later(id, Input::Written { connection, bytes });
        }
    }
}
