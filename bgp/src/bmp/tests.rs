#![expect(clippy::disallowed_methods, reason = "any instant will do as the start")]

use std::net::Ipv4Addr;

use super::*;

/// RIBs in which there is nothing.
struct Nothing;

impl Ribs for Nothing {
    fn prefixes(&self, _: usize, _: usize) -> Vec<(usize, IpNet)> {
        Vec::new()
    }
    fn sources(&self, _: &IpNet) -> Vec<(PeerId, u32)> {
        Vec::new()
    }
    fn told_as(&self, _: PeerId, _: &IpNet) -> Vec<u32> {
        Vec::new()
    }
    fn adj_rib_in(&self, _: PeerId, _: &PathNlri) -> Option<Received<'_>> {
        None
    }
    fn loc_rib(&self, _: &IpNet) -> Option<&Stored> {
        None
    }
    fn adj_rib_out(&self, _: PeerId, _: &PathNlri) -> Option<&Stored> {
        None
    }
    fn statistics(&self, _: Option<PeerId>) -> Vec<Statistic> {
        Vec::new()
    }
}

fn path(address: u32, length: u8) -> PathNlri {
    PathNlri { path_id: 0, prefix: IpNet::new(Ipv4Addr::from(address).into(), length).unwrap() }
}

/// What comes out, in short: the types of messages for what is written.
fn drain(bmp: &mut Bmp, now: Instant) -> Vec<String> {
    let outputs = std::iter::from_fn(|| bmp.poll(now, &Nothing));
    let short = |output| match output {
        BmpOutput::Dial { station, .. } => format!("dial {station}"),
        BmpOutput::Write { bytes, .. } => format!("write {}", bytes[5]),
        BmpOutput::Close { .. } => "close".to_owned(),
    };
    outputs.map(short).collect()
}

/// A stage with one station that is connected and is told of the Loc-RIB.
fn connected(now: Instant) -> (Bmp, BmpConfig) {
    let station = StationConfig { monitor: [MonitoredRib::LocRib].into(), statistics_interval: None };
    let config = BmpConfig {
        stations: [("192.0.2.9:11019".parse().unwrap(), station)].into(),
        ..BmpConfig::default()
    };
    let mut bmp = Bmp::default();
    bmp.handle(now, configure(&config));
    assert_eq!(drain(&mut bmp, now), ["dial 192.0.2.9:11019"]);
    bmp.handle(now, BmpInput::Connected { connection: ConnectionId::Station(1) });
    // Initiation and the Loc-RIB's Peer Up at once, then its End-of-RIBs.
    assert_eq!(drain(&mut bmp, now), ["write 4", "write 0"]);
    (bmp, config)
}

fn configure(config: &BmpConfig) -> BmpInput {
    BmpInput::Configure { config: config.clone(), asn: Asn(65001), router_id: [10, 0, 0, 1].into() }
}

#[test]
fn a_station_for_which_too_much_waits_is_begun_anew() {
    let now = Instant::now();
    let (mut bmp, _) = connected(now);
    let prefixes = |range: std::ops::Range<usize>| -> Vec<PathNlri> {
        range.map(|n| path(u32::try_from(n).unwrap(), 32)).collect()
    };
    bmp.handle(now, BmpInput::Changed(vec![Table::Loc], prefixes(0..CHANGES_MAX)));
    bmp.handle(now, BmpInput::Changed(vec![Table::Loc], prefixes(0..100)));
    assert_eq!((bmp.status()[0].connected, bmp.status()[0].waiting), (true, CHANGES_MAX), "each once");
    bmp.handle(now, BmpInput::Changed(vec![Table::Loc], prefixes(CHANGES_MAX..CHANGES_MAX + 1)));
    assert_eq!(drain(&mut bmp, now), ["write 5", "close"]);
    let status = bmp.status().remove(0);
    assert!(!status.connected && status.waiting == 0 && status.failures == 1, "{status:?}");
    assert!(status.last_error.unwrap().1.contains("takes too little"));
    bmp.handle(now + Duration::from_secs(1), BmpInput::Tick);
    assert_eq!(drain(&mut bmp, now), ["dial 192.0.2.9:11019"]);
}

#[test]
fn packing_pauses_while_too_much_is_under_way() {
    let now = Instant::now();
    let (mut bmp, _) = connected(now);
    // Each is withdrawn: five octets, thousands of them in a message.
    for round in 0..2 {
        bmp.handle(
            now,
            BmpInput::Changed(vec![Table::Loc], (0..300_000).map(|n| path(n * 256, 24)).collect()),
        );
        let written = drain(&mut bmp, now).len();
        let waiting = bmp.status()[0].waiting;
        assert!(waiting > 0 && (written > 0) == (round == 0), "{round}: {written} written, {waiting} wait");
    }
    let octets = usize::try_from(bmp.status()[0].octets).unwrap();
    assert!(octets < CREDIT + 64 * 1024, "{octets}");
    bmp.handle(now, BmpInput::Written { connection: ConnectionId::Station(1), bytes: octets });
    assert!(!drain(&mut bmp, now).is_empty());
}

#[test]
fn only_who_is_told_something_else_is_begun_anew() {
    let now = Instant::now();
    let (mut bmp, mut config) = connected(now);
    let address = *config.stations.keys().next().unwrap();
    let station = config.stations.get_mut(&address).unwrap();
    station.statistics_interval = Some(Duration::from_secs(5));
    bmp.handle(now, configure(&config));
    assert_eq!(drain(&mut bmp, now), [""; 0]);
    assert_eq!(bmp.next_deadline().map(|(at, _)| at), Some(now + Duration::from_secs(5)));
    bmp.handle(now + Duration::from_secs(5), BmpInput::Tick);
    assert_eq!(drain(&mut bmp, now), ["write 1"]);
    config.stations.get_mut(&address).unwrap().monitor.insert(MonitoredRib::AdjRibInPrePolicy);
    bmp.handle(now, configure(&config));
    assert_eq!(drain(&mut bmp, now), ["write 5", "close", "dial 192.0.2.9:11019"]);
    assert!(bmp.monitors(MonitoredRib::AdjRibInPrePolicy));
    bmp.handle(now, configure(&BmpConfig::default()));
    assert_eq!(drain(&mut bmp, now), ["close"]);
    assert!(!bmp.monitors(MonitoredRib::LocRib) && bmp.next_deadline().is_none());
}
