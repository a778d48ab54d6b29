//! Prints `docs/rfcs.md`, what of which RFC Weft does and the tests that prove it: `make rfcs`.
//!
//! A test says so in its documentation: `Proves RFC 4724 4.2, RFC 8538; BIRD, FRR.` names the RFCs with their sections, and behind the
//! semicolon the other programs that take part.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// How much of an RFC there is.
enum State {
    /// All that a speaker of unicast routes does.
    Full,
    /// Not all: what is, or what is left out.
    Partly(&'static str),
}

use State::{Full, Partly};

/// Every RFC that Weft goes by on the wire, with its title.
const RFCS: &[(u16, &str, State)] = &[
    (1997, "BGP Communities Attribute", Full),
    (2385, "Protection of BGP Sessions via the TCP MD5 Signature Option", Full),
    (
        2545,
        "Use of BGP-4 Multiprotocol Extensions for IPv6 Inter-Domain Routing",
        Partly("a session between global addresses is told no link-local next hop beside the global one"),
    ),
    (2918, "Route Refresh Capability for BGP-4", Full),
    (
        4271,
        "A Border Gateway Protocol 4 (BGP-4)",
        Partly(
            "but for MinRouteAdvertisementIntervalTimer (section 9.2.1.1), on purpose: changes are told at once, and a peer that is slow \
             gets the last state of each prefix alone",
        ),
    ),
    (
        4360,
        "BGP Extended Communities Attribute",
        Partly("rt and ro are matched and set; others are kept, passed on and shown"),
    ),
    (4456, "BGP Route Reflection", Full),
    (4486, "Subcodes for BGP Cease Notification Message", Full),
    (4724, "Graceful Restart Mechanism for BGP", Full),
    (4760, "Multiprotocol Extensions for BGP-4", Partly("IPv4 and IPv6 unicast")),
    (
        4861,
        "Neighbor Discovery for IP version 6",
        Partly("router advertisements, by which unnumbered peers are found"),
    ),
    (
        5065,
        "Autonomous System Confederations for BGP",
        Partly("parsed, counted and passed on; no confederation is configured"),
    ),
    (5082, "The Generalized TTL Security Mechanism (GTSM)", Full),
    (5396, "Textual Representation of Autonomous System (AS) Numbers", Full),
    (5492, "Capabilities Advertisement with BGP-4", Full),
    (
        5880,
        "Bidirectional Forwarding Detection (BFD)",
        Partly("asynchronous mode; a peer's demand mode is respected; no echo and no authentication"),
    ),
    (5881, "Bidirectional Forwarding Detection (BFD) for IPv4 and IPv6 (Single Hop)", Partly("no echo")),
    (5882, "Generic Application of Bidirectional Forwarding Detection (BFD)", Partly("for BGP")),
    (5883, "Bidirectional Forwarding Detection (BFD) for Multihop Paths", Full),
    (
        5925,
        "The TCP Authentication Option",
        Partly(
            "the kernel's, Linux 6.7 and later with CONFIG_TCP_AO; other options are always signed too. On a kernel without it the tests show \
             the refusal, and say that they skip the rest; all of them passed on Linux 6.12. None of the daemons has it",
        ),
    ),
    (
        5926,
        "Cryptographic Algorithms for the TCP Authentication Option (TCP-AO)",
        Partly("the kernel's: HMAC-SHA-1-96 and AES-128-CMAC-96"),
    ),
    (6286, "Autonomous-System-Wide Unique BGP Identifier for BGP-4", Full),
    (
        6396,
        "Multi-Threaded Routing Toolkit (MRT) Routing Information Export Format",
        Partly("written, not read: TABLE_DUMP_V2 and BGP4MP_ET, IPv4 and IPv6 unicast"),
    ),
    (6608, "Subcodes for BGP Finite State Machine Error", Full),
    (
        6666,
        "A Discard Prefix for IPv6",
        Partly("the next hop within the node of what is dropped by BLACKHOLE; believed of no peer"),
    ),
    (6793, "BGP Support for Four-Octet Autonomous System (AS) Number Space", Full),
    (6996, "Autonomous System (AS) Reservation for Private Use", Full),
    (7313, "Enhanced Route Refresh Capability for BGP-4", Full),
    (7606, "Revised Error Handling for BGP UPDATE Messages", Full),
    (7607, "Codification of AS 0 Processing", Full),
    (
        7705,
        "Autonomous System Migration Mechanisms and Their Effects on the BGP AS_PATH Attribute",
        Partly(
            "localASNumber: the peer sees that AS alone, and nothing is put in front of what it tells; an iBGP session has one AS (no section 4)",
        ),
    ),
    (7854, "BGP Monitoring Protocol (BMP)", Partly("no Route Mirroring; when a route came is not told")),
    (7911, "Advertisement of Multiple Paths in BGP", Full),
    (
        7999,
        "BLACKHOLE Community",
        Partly(
            "taken from peers whose BGPPeer has blackholeCIDRs, and dropped by the kernel; set by filters and prefixAdvertisements",
        ),
    ),
    (
        8050,
        "Multi-Threaded Routing Toolkit (MRT) Routing Information Export Format with BGP Additional Path Extensions",
        Partly("written, not read: IPv4 and IPv6 unicast"),
    ),
    (8092, "BGP Large Communities Attribute", Full),
    (
        8212,
        "Default External BGP (EBGP) Route Propagation Behavior without Policies",
        Partly(
            "without filters only pods' prefixes and node addresses are believed, and only what the node originates is announced; \
             a BGPFilter opens the rest",
        ),
    ),
    (8326, "Graceful BGP Session Shutdown", Full),
    (8538, "Notification Message Support for BGP Graceful Restart", Full),
    (8654, "Extended Message Support for BGP", Full),
    (8671, "Support for Adj-RIB-Out in the BGP Monitoring Protocol (BMP)", Partly("after policy")),
    (8950, "Advertising IPv4 NLRI with an IPv6 Next Hop", Partly("IPv4 unicast, on sessions of IPv6")),
    (9003, "Extended BGP Administrative Shutdown Communication", Full),
    (9072, "Extended Optional Parameters Length for BGP OPEN Message", Full),
    (9069, "Support for Local RIB in the BGP Monitoring Protocol (BMP)", Full),
    (9234, "Route Leak Prevention and Detection Using Roles in UPDATE and OPEN Messages", Full),
    (9384, "A BGP Cease NOTIFICATION Subcode for Bidirectional Forwarding Detection (BFD)", Full),
    (9494, "Long-Lived Graceful Restart for BGP", Partly("without the partial deployment of section 4.6")),
    (9687, "BGP Send Hold Timer", Full),
    (9774, "Deprecation of AS_SET and AS_CONFED_SET in BGP", Full),
];

/// A test, and what of one RFC it proves with whom.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Proof {
    file: String,
    test: String,
    sections: String,
    with: String,
}

type Proofs = BTreeMap<u16, Vec<Proof>>;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut proofs = Proofs::new();
    for room in ["bgp", "routing", "controller", "integration"] {
        for part in ["src", "tests"] {
            for file in sources(&root.join(room).join(part))? {
                let name = file.strip_prefix(&root)?.display().to_string();
                collect(&name, &fs::read_to_string(&file)?, &mut proofs).with_context(|| name.clone())?;
            }
        }
    }
    let listed: Vec<u16> = RFCS.iter().map(|(number, ..)| *number).collect();
    let unproven: Vec<&u16> = listed.iter().filter(|number| !proofs.contains_key(number)).collect();
    ensure!(unproven.is_empty(), "no test says that it proves RFC {unproven:?}");
    let unlisted: Vec<&u16> = proofs.keys().filter(|number| !listed.contains(number)).collect();
    ensure!(unlisted.is_empty(), "not in the list of integration/examples/rfcs.rs: RFC {unlisted:?}");
    Ok(std::io::stdout().write_all(page(&mut proofs).as_bytes())?)
}

/// The source files in a folder and in those below it, in order.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            files.extend(sources(&entry)?);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
    Ok(files)
}

/// What the tests of a file say that they prove.
fn collect(file: &str, text: &str, proofs: &mut Proofs) -> Result<()> {
    let mut said: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(claim) = line.strip_prefix("/// Proves RFC ") {
            said.push(claim.trim_end_matches('.'));
        } else if !line.starts_with("///") && !line.starts_with("#[") {
            let name = line.trim_start_matches("async ").trim_start_matches("fn ");
            let test =
                name.split(|c: char| c != '_' && !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            for claim in said.drain(..) {
                ensure!(!test.is_empty(), "before no test: Proves RFC {claim}");
                add(file, test, claim, proofs).with_context(|| format!("{test}: Proves RFC {claim}"))?;
            }
        }
    }
    ensure!(said.is_empty(), "before no test: Proves RFC {said:?}");
    Ok(())
}

fn add(file: &str, test: &str, claim: &str, proofs: &mut Proofs) -> Result<()> {
    let (rfcs, with) = claim.split_once(';').unwrap_or((claim, ""));
    for rfc in rfcs.split(", RFC ") {
        let (number, sections) = rfc.split_once(' ').unwrap_or((rfc, ""));
        let proof = Proof {
            file: file.to_owned(),
            test: test.to_owned(),
            sections: sections.trim().to_owned(),
            with: with.trim().to_owned(),
        };
        proofs.entry(number.parse().context("this is no number")?).or_default().push(proof);
    }
    Ok(())
}

fn page(proofs: &mut Proofs) -> String {
    let mut lines = vec![
        "# RFCs and the tests that prove them".to_owned(),
        String::new(),
        "Made from the tests by `make rfcs`; `make test` runs them all. *With* names the other programs that take part; where it is empty, \
         both ends are Weft's or the octets are compared."
            .to_owned(),
        String::new(),
        "| RFC | title | state |".to_owned(),
        "|---|---|---|".to_owned(),
    ];
    lines.extend(RFCS.iter().map(|(number, title, state)| {
        let state = match state {
            Full => "yes",
            Partly(what) => what,
        };
        format!("| [{number}](#rfc-{number}) | {title} | {state} |")
    }));
    for (number, title, _) in RFCS {
        let head = [format!("## RFC {number}"), format!("{title}."), "| test | section | with |".to_owned()];
        lines.extend(head.into_iter().flat_map(|line| [String::new(), line]));
        lines.push("|---|---|---|".to_owned());
        let of_rfc = proofs.entry(*number).or_default();
        of_rfc.sort();
        lines.extend(of_rfc.iter().map(|Proof { file, test, sections, with }| {
            format!("| `{test}` in [{file}](../{file}) | {sections} | {with} |")
        }));
    }
    lines.push(String::new());
    lines.join("\n")
}
