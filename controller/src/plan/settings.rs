//! A node's BGPConfiguration: its own, else the default one, else what Weft takes for granted, field by field.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_bgp::config::{GracefulRestart, Timers};
use weft_bgp::types::Asn;
use weft_routing::nexthop::Resilience;

use crate::api::{
    AdvertiseNodeAddress, BGPConfigurationSpec, BGPPeerSpec, BmpStation, Cidr, GracefulRestartSpec,
    MaxPrefixesSpec, MrtSpec, NodeAddress, PrefixAdvertisement, SecretKeyRef, ServiceAggregation,
    ServiceRange, TcpAoSpec,
};
use crate::cluster::{Cluster, Signing};

/// The AS of a node that no BGPConfiguration gives one.
const DEFAULT_ASN: Asn = Asn(64512);

/// The port of BGP (RFC 4271 section 8).
pub(crate) const BGP_PORT: u16 = 179;

/// How long a node that drains announces what it has as the last choice, where no BGPConfiguration says.
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// How long a Service is answered on the node before peers are told, where no BGPConfiguration says.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// The name of the BGPConfiguration that overrides the default one for a node.
pub(crate) fn node_configuration_name(node: &str) -> String {
    format!("node.{node}")
}

/// What holds for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) asn: Asn,
    pub(crate) mesh: bool,
    pub(crate) listen_port: u16,
    pub(crate) router_id: Option<Ipv4Addr>,
    pub(crate) cluster_id: Option<Ipv4Addr>,
    pub(crate) node_mesh_password: Option<SecretKeyRef>,
    pub(crate) node_mesh_tcp_ao: Option<TcpAoSpec>,
    node_mesh_max_prefixes: Option<MaxPrefixesSpec>,
    pub(crate) node_address: Option<NodeAddress>,
    pub(crate) advertise_node_address: AdvertiseNodeAddress,
    pub(crate) hold_time: Duration,
    pub(crate) keepalive_time: Option<Duration>,
    pub(crate) send_hold_time: Option<Duration>,
    pub(crate) max_paths: u16,
    pub(crate) route_metric: u32,
    pub(crate) install_routes: bool,
    pub(crate) resilience: Option<Resilience>,
    pub(crate) graceful_restart: GracefulRestartSpec,
    pub(crate) bfd_profile: Option<String>,
    pub(crate) bmp: Vec<BmpStation>,
    pub(crate) drain_time: Duration,
    pub(crate) manage_sysctls: bool,
    pub(crate) mtu: Option<u32>,
    pub(crate) nat_outgoing_exclude: Vec<Cidr>,
    pub(crate) services: ServiceSettings,
    pub(crate) prefix_advertisements: Vec<PrefixAdvertisement>,
    pub(crate) mrt: Option<MrtSpec>,
}

/// What holds for each of many nodes: most have no BGPConfiguration of their own, and share what the default one makes.
pub(crate) struct SettingsByNode<'a> {
    cluster: &'a Cluster,
    default: Arc<Settings>,
}

impl<'a> SettingsByNode<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        let default = cluster.configurations.get("default").map(AsRef::as_ref);
        Self { cluster, default: Arc::new(Settings::merged(None, default)) }
    }

    /// The settings of the node `name`, as [`Settings::of`] says them.
    pub(crate) fn of(&self, name: &str) -> Arc<Settings> {
        match self.cluster.configurations.contains_key(&node_configuration_name(name)) {
            true => Arc::new(Settings::of(self.cluster, name)),
            false => Arc::clone(&self.default),
        }
    }
}

/// What of Services is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceSettings {
    pub(crate) cluster_ips: Vec<IpNet>,
    pub(crate) external_ips: Vec<IpNet>,
    pub(crate) load_balancer_ips: Vec<IpNet>,
    pub(crate) aggregation: ServiceAggregation,
    pub(crate) settle_time: Duration,
}

impl ServiceSettings {
    /// Every range.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = IpNet> + Clone + '_ {
        [&self.cluster_ips, &self.external_ips, &self.load_balancer_ips].into_iter().flatten().copied()
    }
}

impl Settings {
    /// The settings of the node `name`, whether or not there is such a node.
    pub(crate) fn of(cluster: &Cluster, name: &str) -> Self {
        let own = cluster.configurations.get(&node_configuration_name(name)).map(AsRef::as_ref);
        let default = cluster.configurations.get("default").map(AsRef::as_ref);
        Self::merged(own, default)
    }

    /// What the sessions of the mesh are signed with.
    pub(crate) fn mesh_signing(&self) -> Option<Signing<'_>> {
        Signing::of(self.node_mesh_password.as_ref(), self.node_mesh_tcp_ao.as_ref())
    }

    fn merged(own: Option<&BGPConfigurationSpec>, default: Option<&BGPConfigurationSpec>) -> Self {
        fn first<T>(
            specs: [Option<&BGPConfigurationSpec>; 2],
            field: impl Fn(&BGPConfigurationSpec) -> Option<T>,
        ) -> Option<T> {
            specs.into_iter().flatten().find_map(field)
        }
        let specs = [own, default];
        let resilient: Vec<_> = specs.into_iter().flatten().filter_map(|s| s.resilient_next_hops).collect();
        let ranges = |field: fn(&BGPConfigurationSpec) -> Option<&Vec<ServiceRange>>| {
            let ranges = specs.into_iter().flatten().find_map(field);
            ranges.into_iter().flatten().map(|range| range.cidr.net()).collect()
        };
        Self {
            asn: first(specs, |s| s.as_number).map_or(DEFAULT_ASN, |number| number.get()),
            mesh: first(specs, |s| s.node_to_node_mesh_enabled).unwrap_or(true),
            listen_port: first(specs, |s| s.listen_port).map_or(BGP_PORT, u16::from),
            router_id: first(specs, |s| s.router_id).map(|id| id.get()),
            cluster_id: first(specs, |s| s.route_reflector_cluster_id).map(|id| id.get()),
            node_mesh_password: first(specs, |s| s.node_mesh_password.clone()).map(|p| p.secret_key_ref),
            node_mesh_tcp_ao: first(specs, |s| s.node_mesh_tcp_ao.clone()),
            node_mesh_max_prefixes: first(specs, |s| s.node_mesh_max_prefixes),
            node_address: first(specs, |s| s.node_address.clone()),
            advertise_node_address: first(specs, |s| s.advertise_node_address).unwrap_or_default(),
            hold_time: first(specs, |s| s.hold_time).map_or(Timers::default().hold_time, |d| d.0),
            keepalive_time: first(specs, |s| s.keepalive_time).map(|d| d.0),
            send_hold_time: first(specs, |s| s.send_hold_time).map(|d| d.0),
            max_paths: first(specs, |s| s.max_paths).map_or(16, u16::from),
            route_metric: first(specs, |s| s.route_metric).unwrap_or(64),
            install_routes: first(specs, |s| s.install_routes).unwrap_or(true),
            resilience: super::resilient::of(&resilient),
            graceful_restart: GracefulRestartSpec {
                enabled: first(specs, |s| s.graceful_restart.and_then(|g| g.enabled)),
                restart_time: first(specs, |s| s.graceful_restart.and_then(|g| g.restart_time)),
                on_hold_timer_expiry: first(specs, |s| {
                    s.graceful_restart.and_then(|g| g.on_hold_timer_expiry)
                }),
                long_lived_time: first(specs, |s| s.graceful_restart.and_then(|g| g.long_lived_time)),
            },
            bfd_profile: first(specs, |s| s.bfd_profile.clone()),
            bmp: first(specs, |s| s.bmp.clone()).unwrap_or_default(),
            drain_time: first(specs, |s| s.drain_time).map_or(DRAIN_TIME, |d| d.0),
            manage_sysctls: first(specs, |s| s.manage_sysctls).unwrap_or(true),
            mtu: first(specs, |s| s.mtu),
            nat_outgoing_exclude: first(specs, |s| s.nat_outgoing_exclude.clone()).unwrap_or_default(),
            services: ServiceSettings {
                cluster_ips: ranges(|s| s.service_cluster_ips.as_ref()),
                external_ips: ranges(|s| s.service_external_ips.as_ref()),
                load_balancer_ips: ranges(|s| s.service_load_balancer_ips.as_ref()),
                aggregation: first(specs, |s| s.service_aggregation).unwrap_or_default(),
                settle_time: first(specs, |s| s.service_settle_time).map_or(SETTLE_TIME, |d| d.0),
            },
            prefix_advertisements: first(specs, |s| s.prefix_advertisements.clone()).unwrap_or_default(),
            mrt: first(specs, |s| s.mrt),
        }
    }

    /// How many prefixes may be told on a session of `peer`, or else of the mesh.
    pub(crate) fn max_prefixes(&self, peer: Option<&BGPPeerSpec>) -> Option<MaxPrefixesSpec> {
        peer.map_or(self.node_mesh_max_prefixes, |peer| peer.max_prefixes)
    }

    /// The timers of a session; `peer` overrides.
    pub(crate) fn timers(&self, peer: Option<&BGPPeerSpec>) -> Timers {
        let hold_time = peer.and_then(|p| p.hold_time).map_or(self.hold_time, |d| d.0);
        let keepalive_time = peer.and_then(|p| p.keepalive_time).map(|d| d.0).or(self.keepalive_time);
        let send_hold_time = peer.and_then(|p| p.send_hold_time).map(|d| d.0).or(self.send_hold_time);
        let default = Timers::default();
        let connect_retry = peer.and_then(|p| p.connect_retry_time).map_or(default.connect_retry, |d| d.0);
        Timers { hold_time, keepalive_time, send_hold_time, connect_retry, ..default }
    }

    /// Graceful restart as a session offers it; `peer` overrides field by field.
    pub(crate) fn graceful_restart(&self, peer: Option<&BGPPeerSpec>) -> Option<GracefulRestart> {
        let peer = peer.and_then(|p| p.graceful_restart).unwrap_or_default();
        let enabled = peer.enabled.or(self.graceful_restart.enabled).unwrap_or(true);
        let restart_time = peer.restart_time.or(self.graceful_restart.restart_time);
        let on_hold_timer_expiry = peer.on_hold_timer_expiry.or(self.graceful_restart.on_hold_timer_expiry);
        let long_lived_time = peer.long_lived_time.or(self.graceful_restart.long_lived_time);
        enabled.then(|| GracefulRestart {
            restart_time: restart_time.map_or(Duration::from_secs(120), |d| d.0),
            on_hold_timer_expiry: on_hold_timer_expiry.unwrap_or(false),
            long_lived_time: long_lived_time.map(|d| d.0).filter(|time| !time.is_zero()),
        })
    }
}
