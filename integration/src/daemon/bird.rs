//! BIRD 2.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use weft_bgp::policy::Community;
use weft_bgp::role::Role;

use super::{Bfd, Family, Neighbor, Path, Router, RouterConfig, Software};
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::{Process, SHORT, foreign_program, run};
use crate::wait::wait_until;

/// A router run by BIRD 2.
#[derive(Debug)]
pub struct Bird {
    program: PathBuf,
    client: PathBuf,
    namespace: Namespace,
    directory: PathBuf,
    log: PathBuf,
    config: RouterConfig,
    process: Option<Process>,
}

impl Bird {
    /// Writes its configuration.
    ///
    /// # Errors
    /// If BIRD is not installed or the files cannot be written.
    pub fn new(lab: &Lab, namespace: &Namespace, config: RouterConfig) -> Result<Self> {
        let bird = Self {
            program: foreign_program(&["/usr/sbin/bird"], "bird2")?,
            client: foreign_program(&["/usr/sbin/birdc"], "bird2")?,
            namespace: namespace.clone(),
            directory: lab.directory(&config.name)?,
            log: lab.log(&config.name),
            config,
            process: None,
        };
        bird.write()?;
        Ok(bird)
    }

    fn write(&self) -> Result<()> {
        let path = self.directory.join("bird.conf");
        std::fs::write(&path, render(&self.config))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn configure(&self) -> Result<()> {
        self.write()?;
        let said = self.ask("configure")?;
        ensure!(said.contains("Reconfigur"), "BIRD did not reconfigure: {said}");
        Ok(())
    }

    fn ask(&self, question: &str) -> Result<String> {
        let mut client = Command::new(&self.client);
        client.arg("-s").arg(self.directory.join("bird.ctl")).args(question.split_whitespace());
        Ok(run(&mut client, SHORT)?
            .success()
            .with_context(|| format!("{}: birdc {question}", self.config.name))?
            .stdout)
    }
}

impl Router for Bird {
    fn software(&self) -> Software {
        Software::Bird
    }

    fn version(&self) -> Result<String> {
        let said = run(Command::new(&self.program).arg("--version"), SHORT)?.success()?;
        Ok(format!("{}{}", said.stdout, said.stderr).trim().to_owned())
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn start(&mut self) -> Result<()> {
        let mut command = self.namespace.command(&self.program);
        command
            .args(["-f", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid"])
            .current_dir(&self.directory);
        if self.config.graceful_restart {
            // Recovery: routes that an earlier run left in the kernel stay until the neighbors have said all they know.
            command.arg("-R");
        }
        self.process = Some(Process::start(&self.config.name, &mut command, &self.log)?);
        wait_until("BIRD to answer", SHORT, || self.ask("show status")).map(drop)
    }

    fn daemon(&mut self) -> &mut Option<Process> {
        &mut self.process
    }

    fn originate(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<()> {
        self.config.originate.clone_from(prefixes);
        self.configure()
    }

    fn set_password(&mut self, password: Option<&str>) -> Result<()> {
        self.config.password = password.map(str::to_owned);
        self.configure()
    }

    fn set_role(&mut self, role: Role) -> Result<()> {
        self.config.role = Some(role);
        self.configure()
    }

    fn ask(&self, question: &str) -> Result<String> {
        Self::ask(self, question)
    }

    fn established(&self, neighbor: IpAddr) -> Result<bool> {
        let Some(index) = self.config.neighbors.iter().position(|known| known.address == neighbor) else {
            return Ok(false);
        };
        Ok(self.ask(&format!("show protocols {}", protocol(index)))?.contains("Established"))
    }

    fn bfd_up(&self, neighbor: IpAddr) -> Result<bool> {
        let said = self.ask("show bfd sessions")?;
        let neighbor = neighbor.to_string();
        let mut sessions = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(sessions.any(|words| words.first() == Some(&neighbor.as_str()) && words.contains(&"Up")))
    }

    fn paths(&self, prefix: IpNet) -> Result<Vec<Path>> {
        match self.ask(&format!("show route {prefix} all")) {
            // An unknown prefix is a failure to this client.
            Err(error) if format!("{error:#}").contains("Network not found") => Ok(Vec::new()),
            said => Ok(parse_paths(&said?)),
        }
    }
}

fn protocol(index: usize) -> String {
    format!("neighbor{index}")
}

fn render(config: &RouterConfig) -> String {
    let restart = if config.graceful_restart { " graceful restart on;" } else { "" };
    let mut text =
        format!("log stderr all;\nrouter id {};\nprotocol device {{ scan time 5; }}\n", config.router_id);
    for family in Family::BOTH {
        let channel = channel(family);
        let _ = writeln!(
            text,
            "protocol kernel {{ {channel} {{ import none; export where source = RTS_BGP; }}; merge paths on;{restart} }}"
        );
    }
    for family in Family::BOTH {
        let own: Vec<&IpNet> =
            config.originate.iter().filter(|prefix| Family::of(prefix.addr()) == family).collect();
        if !own.is_empty() {
            let _ = writeln!(text, "protocol static {{ {};", channel(family));
            for prefix in own {
                let _ = writeln!(text, "  route {prefix} blackhole;");
            }
            text.push_str("}\n");
        }
    }
    if let Some(Bfd { interval, multiplier, .. }) = config.bfd {
        let times =
            format!("min rx interval {interval} ms; min tx interval {interval} ms; multiplier {multiplier};");
        let _ = writeln!(text, "protocol bfd {{ interface \"*\" {{ {times} }}; multihop {{ {times} }}; }}");
    }
    for (index, neighbor) in config.neighbors.iter().enumerate() {
        render_neighbor(&mut text, config, index, neighbor);
    }
    text
}

fn render_neighbor(text: &mut String, config: &RouterConfig, index: usize, neighbor: &Neighbor) {
    let link_local = matches!(neighbor.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let scope = if link_local { format!("%'{}'", neighbor.name) } else { String::new() };
    let reach = match config.ttl_security {
        Some(hops) if hops > 1 => format!("multihop {hops}"),
        _ if config.bfd.is_some_and(|bfd| bfd.multihop) => "multihop 10".to_owned(),
        _ => "direct".to_owned(),
    };
    let bfd = match (config.bfd, config.graceful_restart) {
        (None, _) => "",
        (Some(_), false) => "  bfd on;\n",
        // Else the end of BFD in a restart would be the end of the routes.
        (Some(_), true) => "  bfd graceful;\n",
    };
    let _ = writeln!(
        text,
        "protocol bgp {} {{\n  local {} as {};\n  neighbor {}{scope} as {};\n  {reach};\n{bfd}  hold time {};",
        protocol(index),
        neighbor.local,
        config.asn,
        neighbor.address,
        neighbor.asn,
        config.hold_time
    );
    if config.dials_every_second {
        text.push_str("  connect delay time 1;\n  connect retry time 1;\n  error wait time 1, 2;\n");
    }
    if config.graceful_restart {
        let _ = match config.long_lived {
            None => writeln!(text, "  graceful restart on;\n  graceful restart time 60;"),
            Some(time) => writeln!(
                text,
                "  graceful restart on;\n  graceful restart time 2;\n  long lived graceful restart on;\n  long lived stale time {time};"
            ),
        };
    } else {
        let _ = writeln!(text, "  graceful restart off;");
    }
    if let Some(password) = &config.password {
        let _ = writeln!(text, "  password \"{password}\";");
    }
    if config.ttl_security.is_some() {
        text.push_str("  ttl security on;\n");
    }
    if let Some(role) = config.role {
        let _ = writeln!(text, "  local role {};\n  require roles on;", role_name(role));
    }
    let _ = writeln!(text, "  {}", config.extra);
    if config.reflects && neighbor.asn == config.asn {
        text.push_str("  rr client;\n");
    }
    for family in &neighbor.families {
        // It would put itself in the way of what it reflects.
        let own = if neighbor.asn == config.asn && !config.reflects { " next hop self;" } else { "" };
        let extended = (link_local || config.extended_next_hop) && *family == Family::V4;
        let extended = if extended { " extended next hop yes;" } else { "" };
        let several = if config.add_path { " add paths on;" } else { "" };
        let _ = writeln!(
            text,
            "  {} {{ import all; export filter {{ if source !~ [ RTS_BGP, RTS_STATIC ] then reject;{} accept; }};{own}{extended}{several} }};",
            channel(*family),
            attach(config)
        );
    }
    text.push_str("}\n");
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Provider => "provider",
        Role::RouteServer => "rs_server",
        Role::RouteServerClient => "rs_client",
        Role::Customer => "customer",
        Role::Peer => "peer",
    }
}

/// What is done to all that is told.
fn attach(config: &RouterConfig) -> String {
    let mut text = config.med.map(|med| format!(" bgp_med = {med};")).unwrap_or_default();
    for community in &config.communities {
        let (attribute, value) = match community {
            Community::Standard(c) => ("bgp_community", format!("{},{}", c >> 16, c & 0xffff)),
            Community::Large(_) => ("bgp_large_community", community.to_string().replace(':', ",")),
            Community::Extended(_) => ("bgp_ext_community", community.to_string().replace(':', ",")),
        };
        let _ = write!(text, " {attribute}.add(({value}));");
    }
    text
}

fn channel(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Reads `show route PREFIX all`: a heading line per path, then a line per attribute. Paths of no neighbor are its own.
fn parse_paths(said: &str) -> Vec<Path> {
    let mut paths: Vec<(bool, Path)> = Vec::new();
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), paths.last_mut()) {
            (["BGP.as_path:", asns @ ..], Some((_, path))) => {
                path.as_path = asns.iter().filter_map(|asn| asn.parse().ok()).collect();
            }
            (["BGP.next_hop:", hops @ ..], Some((_, path))) => {
                path.next_hops = hops.iter().filter_map(|hop| hop.parse().ok()).collect();
            }
            (["BGP.med:", med], Some((_, path))) => path.med = med.parse().ok(),
            (["BGP.local_pref:", pref], Some((_, path))) => path.local_pref = pref.parse().ok(),
            (["BGP.otc:", asn], Some((_, path))) => path.only_to_customer = asn.parse().ok(),
            (
                ["BGP.community:" | "BGP.large_community:" | "BGP.ext_community:", all @ ..],
                Some((_, path)),
            ) => {
                // (65000,1) (65000,2); (65000, 1, 2); (rt, 65000, 1)
                let all = all.concat().replace(',', ":");
                let all = all.split(['(', ')']).filter(|text| !text.is_empty());
                path.communities.extend(all.filter_map(|text| text.parse::<Community>().ok()));
            }
            (["BGP.originator_id:", id], Some((_, path))) => path.originator = id.parse().ok(),
            (["BGP.cluster_list:", ids @ ..], Some((_, path))) => {
                path.cluster_list = ids.iter().filter_map(|id| id.parse().ok()).collect();
            }
            (heading, _) if !line.starts_with('\t') && line.contains(" [") => {
                let learned = heading.iter().any(|word| word.starts_with("[neighbor"));
                let best = heading.contains(&"*");
                let path = Path {
                    next_hops: Vec::new(),
                    as_path: Vec::new(),
                    originator: None,
                    cluster_list: Vec::new(),
                    communities: BTreeSet::new(),
                    med: None,
                    local_pref: None,
                    only_to_customer: None,
                    best,
                };
                paths.push((learned, path));
            }
            _ => {}
        }
    }
    paths.into_iter().filter_map(|(learned, path)| learned.then_some(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
BIRD 2.0.12 ready.
Table master4:
10.244.0.0/26        unicast [neighbor0 08:00:00.000] * (100) [AS64601i]
\tvia 10.1.0.0 on to-a1
\tType: BGP univ
\tBGP.origin: IGP
\tBGP.as_path: 64601
\tBGP.next_hop: 10.1.0.0
\tBGP.local_pref: 100
\tBGP.originator_id: 10.2.0.3
\tBGP.cluster_list: 10.2.0.1 10.2.0.2
\tBGP.med: 30
\tBGP.community: (65001,7) (65535,65281)
\tBGP.ext_community: (rt, 65001, 5)
\tBGP.large_community: (65001, 1, 2) (65001, 1, 3)
\tBGP.otc: 64601
                     blackhole [static1 07:59:00.000] (200)
\tType: static univ
                     unicast [neighbor1 08:00:01.000] (100) [AS64601i]
\tvia 10.1.0.2 on to-a2
\tType: BGP univ
\tBGP.as_path: 4200000000 64601
\tBGP.next_hop: fd00::1 fe80::1
";

    #[test]
    fn paths_of_neighbors_are_read() {
        let paths = parse_paths(SAID);
        assert_eq!(paths.len(), 2);
        assert_eq!(paths[0].as_path, [64601]);
        let ids = ["10.2.0.1", "10.2.0.2", "10.2.0.3"].map(|id| id.parse().expect("an id"));
        assert_eq!((&paths[0].cluster_list[..], paths[0].originator), (&ids[..2], Some(ids[2])));
        assert_eq!((paths[1].cluster_list.len(), paths[1].originator), (0, None));
        let communities = paths[0].communities.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(communities, ["65001:7", "no-export", "rt:65001:5", "65001:1:2", "65001:1:3"]);
        assert_eq!((paths[0].med, paths[1].med), (Some(30), None));
        assert_eq!((paths[0].local_pref, paths[1].local_pref), (Some(100), None));
        assert_eq!((paths[0].only_to_customer, paths[1].only_to_customer), (Some(64601), None));
        assert!(paths[0].best && !paths[1].best);
        assert_eq!(paths[1].as_path, [4_200_000_000, 64601]);
        assert_eq!(
            paths[1].next_hops,
            ["fd00::1".parse::<IpAddr>().expect("IPv6"), "fe80::1".parse().expect("IPv6")]
        );
    }
}
