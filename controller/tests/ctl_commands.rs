//! `weftctl` as a program: its command line, its exit codes, and what it makes of a daemon's answers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that finds something else than it expects fails"
)]

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use weft_controller::ctl::{Exit, run};

/// Runs a command line; gives the exit code and what was written to both streams.
fn weftctl(line: &[&str]) -> (Exit, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let arguments = std::iter::once("weftctl").chain(line.iter().copied()).map(OsString::from);
    let exit = run(arguments, &mut out, &mut err);
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// A daemon that gives one answer to each question, and then tells what it was asked.
struct FakeDaemon {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    asked: JoinHandle<Vec<String>>,
}

impl FakeDaemon {
    fn answering(status: u16, body: &str) -> Self {
        Self::answering_each(&[(status, body)])
    }

    fn answering_each(answers: &[(u16, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("weft.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = |(status, body): &(u16, &str)| {
            let length = body.len();
            format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
        };
        let answers: Vec<String> = answers.iter().map(answer).collect();
        let asked = std::thread::spawn(move || {
            let one = |answer: String| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                request.split_whitespace().nth(1).unwrap().to_owned()
            };
            answers.into_iter().map(one).collect()
        });
        Self { _dir: dir, socket, asked }
    }

    /// Asks with a command line; gives also the path that the daemon was asked for.
    fn ask(self, line: &[&str]) -> (Exit, String, String, String) {
        let (exit, out, err, mut asked) = self.ask_all(line);
        assert_eq!(asked.len(), 1, "{asked:?}");
        (exit, out, err, asked.remove(0))
    }

    /// The same with every path.
    fn ask_all(self, line: &[&str]) -> (Exit, String, String, Vec<String>) {
        let socket = self.socket.to_str().unwrap();
        let (exit, out, err) = weftctl(&[&["--socket", socket], line].concat());
        (exit, out, err, self.asked.join().unwrap())
    }
}

const GOOD: &str = r#"{"node": "n1", "ok": true, "problems": [], "peers": {"up": 1, "wanted": 1},
    "config": {"ok": true, "errors": []}, "fib": {"wanted": 1, "installed": 1, "refused": 0, "shadowed": 0, "repaired": 0, "blackholes": 0, "resilientGroups": 0, "learnedKeptOut": false},
    "ipam": {"blocks": []}, "addresses": [], "spoofed": {"ipv4": 1, "ipv6": 0}, "services": null, "drain": null, "mrt": null, "listenRanges": []}"#;

#[test]
fn usage_errors_are_2() {
    for line in [
        &["--bogus"][..],
        &[],
        &["routes", "10.0.0.1/8"],
        &["routes", "everything"],
        &["routes", "--rib", "in"],
        &["routes", "--rib", "out", "10.0.0.0/8"],
        &["peers", "a", "b"],
        &["-o", "xml", "status"],
        &["validate"],
    ] {
        let (exit, out, err) = weftctl(line);
        assert_eq!(exit, Exit::Usage, "{line:?}: {err}");
        assert!(out.is_empty() && !err.is_empty(), "{line:?}: {out}");
    }
}

#[test]
fn host_bits_are_named_with_the_prefix_meant() {
    let (_, _, err) = weftctl(&["routes", "10.0.0.1/8"]);
    assert!(err.contains("did you mean 10.0.0.0/8?"), "{err}");
}

#[test]
fn help_and_version_are_answers() {
    for line in ["--help", "--version", "help"] {
        let (exit, out, err) = weftctl(&[line]);
        assert_eq!(exit, Exit::Good);
        assert!(!out.is_empty() && err.is_empty(), "{line}: {err}");
    }
}

#[test]
fn a_daemon_that_is_not_there_is_3() {
    let (exit, out, err) = weftctl(&["--socket", "/nonexistent/weft.sock", "status"]);
    assert_eq!(exit, Exit::Unreachable);
    assert!(
        out.is_empty() && err.contains("/nonexistent/weft.sock") && err.contains("Is weftd running"),
        "{err}"
    );
}

#[test]
fn version_needs_no_daemon() {
    let (exit, out, _) = weftctl(&["--socket", "/nonexistent/weft.sock", "-o", "json", "version"]);
    assert_eq!(exit, Exit::Good);
    let versions: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(versions["client"], env!("CARGO_PKG_VERSION"));
    assert!(versions["daemon"].is_null());
}

#[test]
fn an_answer_that_is_no_answer_is_3() {
    let (exit, _, err, _) = FakeDaemon::answering(200, "[]").ask(&["status"]);
    assert_eq!(exit, Exit::Unreachable, "{err}");
    let (exit, _, err, _) =
        FakeDaemon::answering(503, r#"{"error": "the daemon is stopping"}"#).ask(&["fib"]);
    assert_eq!(exit, Exit::Unreachable);
    assert!(err.contains("the daemon is stopping"), "{err}");
}

#[test]
fn status_is_0_when_well_and_1_with_any_problem() {
    let (exit, out, _, asked) = FakeDaemon::answering(200, GOOD).ask(&["status"]);
    assert_eq!((exit, asked.as_str()), (Exit::Good, "/v1/status"));
    assert!(out.contains("n1: ok"), "{out}");
    let problem = r#"[{"severity": "warning", "code": "c", "text": "t", "remedy": "r"}]"#;
    let bad =
        GOOD.replace(r#""ok": true, "problems": []"#, &format!(r#""ok": false, "problems": {problem}"#));
    let (exit, out, _, _) = FakeDaemon::answering(200, &bad).ask(&["status"]);
    assert_eq!(exit, Exit::Wrong);
    assert!(out.contains("remedy: r"), "{out}");
}

#[test]
fn a_route_that_is_not_there_is_1_and_an_empty_table_is_0() {
    let (exit, _, _, asked) = FakeDaemon::answering(200, "[]").ask(&["routes", "10.1.0.0/26"]);
    assert_eq!((exit, asked.as_str()), (Exit::Wrong, "/v1/routes?rib=loc&prefix=10.1.0.0%2F26"));
    let (exit, _, _, asked) = FakeDaemon::answering(200, "[]").ask(&["routes", "fd00::1"]);
    assert_eq!((exit, asked.as_str()), (Exit::Wrong, "/v1/routes?rib=loc&address=fd00%3A%3A1"));
    let (exit, out, _, asked) =
        FakeDaemon::answering(200, "[]").ask(&["routes", "--rib", "in", "--peer", "tor a"]);
    assert_eq!((exit, asked.as_str()), (Exit::Good, "/v1/routes?rib=in&peer=tor%20a"));
    assert_eq!(out, "No routes.\n");
}

#[test]
fn a_peer_that_is_not_there_is_1_in_the_daemons_words() {
    let unknown = r#"{"error": "no peer has the address or name \"x\""}"#;
    let (exit, _, err, asked) = FakeDaemon::answering(404, unknown).ask(&["peers", "x"]);
    assert_eq!((exit, asked.as_str()), (Exit::Wrong, "/v1/peers?peer=x"));
    assert!(err.contains("no peer has"), "{err}");
}

#[test]
fn clear_says_what_was_done_about_whom() {
    let cleared = r#"[{"name": "tor-a", "peer": "10.0.0.1", "done": true, "text": "the session is ended and begins anew"}]"#;
    let (exit, out, _, asked) = FakeDaemon::answering(200, cleared).ask(&["clear", "tor-a", "--soft", "in"]);
    assert_eq!((exit, asked.as_str()), (Exit::Good, "/v1/clear"));
    assert_eq!(out, "tor-a (10.0.0.1): the session is ended and begins anew\n");
    let down = r#"{"error": "10.0.0.1 is in Active, not Established"}"#;
    let (exit, _, err, _) = FakeDaemon::answering(409, down).ask(&["clear", "10.0.0.1"]);
    assert_eq!(exit, Exit::Wrong);
    assert!(err.contains("not Established"), "{err}");
    for line in [&["clear"][..], &["clear", "x", "--soft"], &["clear", "x", "--soft", "up"]] {
        assert_eq!(weftctl(line).0, Exit::Usage, "{line:?}");
    }
}

#[test]
fn events_of_prefixes_are_sorted_in_by_time() {
    let event = |seq: u64, second: u64, kind: &str| {
        format!(
            r#"{{"seq": {seq}, "time": "2026-01-01T00:00:0{second}Z", "peer": null, "kind": "{kind}", "text": "x", "bytes": null}}"#
        )
    };
    let sessions = format!("[{}, {}]", event(1, 1, "session"), event(2, 5, "session"));
    let changes = format!("[{}]", event(900, 3, "best-path"));
    let daemon = FakeDaemon::answering_each(&[(200, &sessions), (200, &changes)]);
    let (exit, out, err, asked) = daemon.ask_all(&["events", "--prefix", "10.1.0.0/26", "--peer", "tor a"]);
    assert_eq!(exit, Exit::Good, "{err}");
    let narrowed = "prefix=10.1.0.0%2F26&peer=tor%20a";
    let paths =
        [format!("/v1/events?after=0&wait=0&{narrowed}"), format!("/v1/prefix-events?after=0&{narrowed}")];
    assert_eq!(asked, paths);
    let kinds: Vec<&str> = out.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(kinds, ["session:", "best-path:", "session:"]);
    let (exit, out, _, asked) = FakeDaemon::answering(200, "[]").ask(&["events"]);
    assert_eq!(
        (exit, out.as_str(), asked.as_str()),
        (Exit::Good, "No events.\n", "/v1/events?after=0&wait=0")
    );
}

#[test]
fn json_and_yaml_are_the_daemons_document() {
    let (_, out, _, _) = FakeDaemon::answering(200, GOOD).ask(&["status", "-o", "json"]);
    let (told, given): (serde_json::Value, serde_json::Value) =
        (serde_json::from_str(&out).unwrap(), serde_json::from_str(GOOD).unwrap());
    assert_eq!(told, given);
    let (_, out, _, _) = FakeDaemon::answering(200, GOOD).ask(&["status", "-o", "yaml"]);
    assert_eq!(serde_yaml::from_str::<serde_json::Value>(&out).unwrap(), given);
}

fn documents(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("network.yaml"), text).unwrap();
    dir
}

fn validate(path: &Path) -> (Exit, String, String) {
    weftctl(&["validate", "-f", path.to_str().unwrap()])
}

#[test]
fn validate_is_0_for_good_documents_1_for_bad_ones_and_2_for_no_path() {
    let good = documents(
        "apiVersion: weft.network/v1alpha1\nkind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.244.0.0/16}\n",
    );
    let (exit, out, err) = validate(good.path());
    assert_eq!(exit, Exit::Good, "{out}{err}");
    let bad = documents(
        "apiVersion: weft.network/v1alpha1\nkind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.244.0.1/16}\n",
    );
    let (exit, out, _) = validate(bad.path());
    assert_eq!(exit, Exit::Wrong);
    assert!(out.contains("network.yaml:4: IPPool/pods: spec.cidr:"), "{out}");
    let (exit, _, err) = validate(Path::new("/nonexistent/folder"));
    assert_eq!(exit, Exit::Usage);
    assert!(err.contains("/nonexistent/folder"), "{err}");
}

#[test]
fn validate_lists_every_error_in_json() {
    let bad = documents(
        "apiVersion: weft.network/v1alpha1\nkind: BGPPeer\nmetadata: {name: a}\nspec: {peerIP: 10.0.0.1, asNumber: 0}\n---\n\
         apiVersion: weft.network/v1alpha1\nkind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.244.0.1/16}\n",
    );
    let path = bad.path().to_str().unwrap();
    let (exit, out, _) = weftctl(&["validate", "-f", path, "-o", "json"]);
    assert_eq!(exit, Exit::Wrong);
    let result: serde_json::Value = serde_json::from_str(&out).unwrap();
    let objects: Vec<_> = result["errors"].as_array().unwrap().iter().map(|e| e["object"].clone()).collect();
    assert_eq!(objects, ["BGPPeer/a", "IPPool/pods"]);
}

/// A reader that has gone away.
struct ClosedPipe;

impl Write for ClosedPipe {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let good = documents(
        "apiVersion: weft.network/v1alpha1\nkind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.244.0.0/16}\n",
    );
    for format in ["table", "json", "yaml"] {
        let line = ["weftctl", "validate", "-o", format, "-f", good.path().to_str().unwrap()];
        let mut err = Vec::new();
        let exit = run(line.map(OsString::from), &mut ClosedPipe, &mut err);
        assert_eq!((exit, err.as_slice()), (Exit::Good, &[][..]), "{format}");
    }
}

const NOTHING_WRONG: &str = r#"{"ok": true, "findings": [], "freed": [], "graceSeconds": 900, "compared":
    {"entries": 1, "links": 1, "routes": 2, "neighbours": 2, "runtime": {"directory": "/var/lib/cni/results", "interfaces": null}}}"#;

const LEAK: &str = r#"{"ok": false, "freed": [], "graceSeconds": 900, "compared":
    {"entries": 1, "links": 0, "routes": 0, "neighbours": 0, "runtime": {"directory": "/d", "interfaces": 3}},
    "findings": [{"kind": "address-without-link", "addresses": ["10.0.0.1", "fd00::1"], "text": "eth0 of c1: gone",
      "remedy": "wait", "missingSince": "2026-01-02T03:04:05Z"}]}"#;

#[test]
fn a_check_that_finds_nothing_is_0_and_says_whom_it_did_not_ask() {
    let (exit, out, _, asked) = FakeDaemon::answering(200, NOTHING_WRONG).ask(&["ipam", "check"]);
    assert_eq!((exit, asked.as_str()), (Exit::Good, "/v1/ipam/check"));
    assert!(out.contains("no runtime (/var/lib/cni/results is not there)"), "{out}");
    assert!(out.ends_with("Nothing is wrong.\n"), "{out}");
}

#[test]
fn a_check_that_finds_a_leak_is_1_and_names_it() {
    let line = ["ipam", "check", "--grace", "5s"];
    let (exit, out, _, _) = FakeDaemon::answering(200, LEAK).ask(&line);
    assert_eq!(exit, Exit::Wrong);
    for part in [
        "address-without-link 10.0.0.1, fd00::1: eth0 of c1",
        "missing since 2026-01-02T03:04:05",
        "3 interfaces",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (exit, ..) = weftctl(&["ipam", "check", "--grace", "5"]);
    assert_eq!(exit, Exit::Usage, "a number without a unit");
}

#[test]
fn a_release_that_is_refused_is_1_with_the_reason() {
    let refused = r#"{"error": "10.0.0.1 is in use: its link weft0 is there"}"#;
    let (exit, out, err, asked) = FakeDaemon::answering(409, refused).ask(&["ipam", "release", "10.0.0.1"]);
    assert_eq!((exit, asked.as_str()), (Exit::Wrong, "/v1/ipam/release"));
    assert!(out.is_empty() && err.contains("in use"), "{err}");
    let freed = r#"{"addresses": ["10.0.0.1"], "holder": null, "removed": ["route 10.0.0.1/32"]}"#;
    let (exit, out, ..) = FakeDaemon::answering(200, freed).ask(&["ipam", "release", "10.0.0.1", "--force"]);
    assert_eq!((exit, out.as_str()), (Exit::Good, "released 10.0.0.1; removed route 10.0.0.1/32\n"));
}

const DRAINING: &str = r#"{"phase": "low-preference", "since": "2126-01-01T00:00:00Z", "until": "2126-01-01T00:00:30Z",
    "reason": "weftctl drain"}"#;
const DRAINED: &str =
    r#"{"phase": "drained", "since": "2126-01-01T00:00:30Z", "until": null, "reason": "the taint a/b"}"#;

fn status(drain: &str) -> String {
    GOOD.replace(r#""drain": null"#, &format!(r#""drain": {drain}"#))
}

#[test]
fn a_drained_node_is_well_and_says_so_first() {
    let (exit, out, ..) = FakeDaemon::answering(200, &status(DRAINED)).ask(&["status"]);
    assert_eq!(exit, Exit::Good);
    assert!(
        out.lines().nth(1).is_some_and(|line| line.contains("DRAINED because of the taint a/b")),
        "{out}"
    );
}

#[test]
fn drain_begins_and_undrain_ends() {
    let (exit, out, _, asked) = FakeDaemon::answering(200, DRAINING).ask(&["drain"]);
    assert_eq!((exit, asked.as_str()), (Exit::Good, "/v1/drain"));
    assert!(out.contains("until 2126-01-01T00:00:30Z"), "{out}");
    let (exit, out, _, asked) = FakeDaemon::answering(200, "null").ask(&["undrain"]);
    assert_eq!((exit, asked.as_str()), (Exit::Good, "/v1/undrain"));
    assert!(out.contains("announced again"), "{out}");
    for command in ["drain", "undrain"] {
        let refused = FakeDaemon::answering(409, r#"{"error": "because of a taint"}"#);
        let (exit, _, err, _) = refused.ask(&[command]);
        assert_eq!((exit, err.as_str()), (Exit::Wrong, "weftctl: because of a taint\n"));
    }
}

#[test]
fn drain_waits_from_event_to_event() {
    let event = r#"[{"seq": 7, "time": "2126-01-01T00:00:00Z", "peer": null, "kind": "drain", "text": "x", "bytes": null}]"#;
    let (draining, drained) = (status(DRAINING), status(DRAINED));
    let answers =
        [(200, DRAINING), (200, &draining), (200, event), (200, &draining), (200, "[]"), (200, &drained)];
    let (exit, out, _, asked) = FakeDaemon::answering_each(&answers).ask_all(&["drain", "--wait"]);
    assert_eq!(exit, Exit::Good);
    assert!(out.starts_with("DRAINED"), "{out}");
    let events = ["/v1/events?after=0&wait=5", "/v1/events?after=7&wait=5"];
    assert_eq!(asked, ["/v1/drain", "/v1/status", events[0], "/v1/status", events[1], "/v1/status"]);
}

#[test]
fn drain_waits_for_what_another_began_and_not_for_what_was_ended_or_is_overdue() {
    let refused = (409, r#"{"error": "already"}"#);
    let drained = status(DRAINED);
    let (exit, ..) = FakeDaemon::answering_each(&[refused, (200, &drained)]).ask_all(&["drain", "--wait"]);
    assert_eq!(exit, Exit::Good);
    let late = status(&DRAINING.replace("2126", "2026"));
    for (first, status, words) in [
        (refused, GOOD, "already"),
        ((200, DRAINING), GOOD, "ended before"),
        ((200, DRAINING), late.as_str(), "should be drained by now"),
    ] {
        let daemon = FakeDaemon::answering_each(&[first, (200, status)]);
        let (exit, _, err, _) = daemon.ask_all(&["drain", "--wait"]);
        assert!(exit == Exit::Wrong && err.contains(words), "{err}");
    }
}

#[test]
fn a_dump_has_its_name_once_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("table.mrt");
    std::fs::write(&file, "of before").unwrap();
    let line = ["mrt", "-w", file.to_str().unwrap()];
    let names = || std::fs::read_dir(dir.path()).unwrap().count();

    let refused = FakeDaemon::answering(409, r#"{"error": "2 dumps are under way"}"#);
    let (exit, _, err, asked) = refused.ask(&line);
    assert_eq!((exit, asked.as_str()), (Exit::Wrong, "/v1/mrt"));
    assert!(err.contains("2 dumps are under way"), "{err}");
    // A daemon that dies meanwhile: less comes than was announced.
    let dir_of_socket = tempfile::tempdir().unwrap();
    let socket = dir_of_socket.path().join("weft.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let dying = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
        stream.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\nhalf of it").unwrap();
    });
    let (exit, _, err) = weftctl(&[&["--socket", socket.to_str().unwrap()], &line[..]].concat());
    dying.join().unwrap();
    assert!(exit == Exit::Unreachable && err.contains("broke off"), "{err}");
    // Another that writes to the same file.
    let partial = dir.path().join("table.mrt.partial");
    std::fs::write(&partial, "another's").unwrap();
    let (exit, _, err) = weftctl(&line);
    assert!(exit == Exit::Usage && err.contains("remove it"), "{err}");
    std::fs::remove_file(partial).unwrap();
    assert_eq!((std::fs::read_to_string(&file).unwrap().as_str(), names()), ("of before", 1));

    let (exit, out, err, _) = FakeDaemon::answering(200, "a table").ask(&line);
    assert_eq!((exit, out.as_str()), (Exit::Good, ""), "{err}");
    assert_eq!((std::fs::read_to_string(&file).unwrap().as_str(), names()), ("a table", 1));
}
