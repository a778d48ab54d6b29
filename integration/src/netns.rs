//! Named network namespaces, as `ip netns` makes them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::process::{Finished, SHORT, run, run_with_input};

/// Where `ip netns` keeps names.
const DIRECTORY: &str = "/run/netns";

/// Runs the program that the arguments name with another boot id, that in file `$0`.
const WITH_BOOT_ID: &str = r#"mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@""#;

/// The first `ip netns add` on a machine makes a mount point of the directory; two at once would stack two.
static ADDING: Mutex<()> = Mutex::new(());

/// A network namespace with a name; a handle, the last of which removes it.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    name: String,
    label: String,
    boot_id: Mutex<Option<PathBuf>>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Nothing to be done about a failure here; the janitor of the next run tries again.
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]), SHORT);
    }
}

impl Namespace {
    /// Makes a namespace `name`, which logs call `label`. All its links are down, `lo` too.
    ///
    /// # Errors
    /// If there is one of that name or the caller may not make any.
    pub fn create(name: &str, label: &str) -> Result<Self> {
        let guard = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
        let made = run(Command::new("ip").args(["netns", "add", name]), SHORT)?;
        drop(guard);
        made.success().with_context(|| format!("cannot make the network namespace {name}; is this root?"))?;
        Ok(Self(Arc::new(Owned {
            name: name.to_owned(),
            label: label.to_owned(),
            boot_id: Mutex::default(),
        })))
    }

    /// The name that `ip netns` knows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The short name within the lab.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.0.name)
    }

    /// Lets the namespace stay when the last handle is gone.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// Has what is run inside from now on take the content of this file for the kernel's boot id: another content is another
    /// boot of the machine.
    pub fn set_boot_id(&self, file: &Path) {
        *self.0.boot_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.to_owned());
    }

    /// A command that runs `program` inside. Each wrapper executes the next in its own place, so the child's id is the program's.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--");
        if let Some(boot_id) = &*self.0.boot_id.lock().unwrap_or_else(PoisonError::into_inner) {
            // A slave sees namespaces come and go, and keeps none alive that was unmounted elsewhere.
            command
                .args(["unshare", "--mount", "--propagation", "slave", "sh", "-c", WITH_BOOT_ID])
                .arg(boot_id);
        }
        command.arg(program.as_ref());
        command
    }

    /// Runs a command line (split at blanks) inside to its end, whatever its exit code.
    ///
    /// # Errors
    /// If it cannot be started or takes longer than `limit`.
    pub fn exec(&self, line: &str, limit: Duration) -> Result<Finished> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        run(self.command(program).args(words), limit).with_context(|| format!("in {}", self.label()))
    }

    /// Runs `ip` commands inside, one a line, without the leading `ip`.
    ///
    /// # Errors
    /// At the first that fails.
    pub fn ip(&self, commands: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-n", self.name(), "-batch", "-"]);
        run_with_input(&mut ip, commands.as_bytes(), SHORT)?
            .success()
            .with_context(|| format!("in {}: ip {commands}", self.label()))?;
        Ok(())
    }

    /// What `ip -j WORDS` says inside, WORDS split at blanks.
    ///
    /// # Errors
    /// If it fails, or says no JSON. Nothing at all is an empty list.
    pub fn ip_json(&self, words: &str) -> Result<Value> {
        let mut ip = Command::new("ip");
        ip.args(["-n", self.name(), "-j"]).args(words.split_whitespace());
        let said = run(&mut ip, SHORT)?
            .success()
            .with_context(|| format!("in {}: ip {words}", self.label()))?
            .stdout;
        if said.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&said).with_context(|| format!("in {}: ip -j {words} said {said}", self.label()))
    }

    /// The routes of table main to exactly `prefix`, as `ip -j route` lists them, multipath and unreachable ones included. Of one over
    /// nexthop objects, what these stand for is there as if it were the route's own.
    ///
    /// # Errors
    /// As [`Self::ip_json`].
    pub fn routes_to(&self, prefix: IpNet) -> Result<Vec<Value>> {
        let found = self.ip_json(&format!("-d {} route show exact {prefix}", family_flag(prefix.addr())))?;
        let mut routes = found.as_array().cloned().unwrap_or_default();
        if routes.iter().any(|route| route["nhid"].is_u64()) {
            let objects = self.ip_json("nexthop show")?;
            routes.iter_mut().for_each(|route| put_legs(route, &objects, prefix.addr().is_ipv4()));
        }
        Ok(routes)
    }

    /// Runs `work` on a thread that is inside. A socket that it opens stays inside, whichever thread uses it later.
    ///
    /// # Errors
    /// If the namespace cannot be entered or `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| -> Result<T> {
                let file = std::fs::File::open(self.path())?;
                setns(file, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            inside.join().map_err(|_| anyhow!("the thread in {} panicked", self.label()))?
        })
        .with_context(|| format!("cannot work in {}", self.label()))
    }

    /// Sets a sysctl, `net/ipv4/ip_forward` written with slashes. Those below `net/` are the namespace's own.
    ///
    /// # Errors
    /// If there is no such sysctl or it does not take `value`.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        ensure!(key.starts_with("net/"), "{key} is no sysctl of a network namespace");
        self.run(|| std::fs::write(Path::new("/proc/sys").join(key), value))?
            .with_context(|| format!("in {}: cannot set {key} to {value}", self.label()))
    }

    /// Reads a sysctl.
    ///
    /// # Errors
    /// If there is no such sysctl.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        let text = self.run(|| std::fs::read_to_string(Path::new("/proc/sys").join(key)))?;
        Ok(text.with_context(|| format!("in {}: cannot read {key}", self.label()))?.trim().to_owned())
    }

    /// Makes a router of it, as a network operator sets one up: both families forwarded, flows hashed by ports, asymmetric paths
    /// welcome.
    ///
    /// # Errors
    /// If a sysctl is missing.
    pub fn forward(&self) -> Result<()> {
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/fib_multipath_hash_policy", "1"),
            ("net/ipv6/fib_multipath_hash_policy", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ] {
            self.set_sysctl(key, value)?;
        }
        Ok(())
    }
}

/// The flag that tells `ip` the family.
#[must_use]
pub fn family_flag(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "-4" } else { "-6" }
}

/// The names of all namespaces that `ip netns` knows and whose name `keep` accepts, in order.
///
/// # Errors
/// If the directory of names cannot be read. None at all is no error.
pub fn list(keep: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {DIRECTORY}")),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string()
            && keep(&name)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
/// Puts into a route what its nexthop object, or the members of its group, have: as `ip` shows routes that have it themselves.
fn put_legs(route: &mut Value, objects: &Value, ipv4: bool) {
    let object = |id: &Value| objects.as_array().into_iter().flatten().find(|object| object["id"] == *id);
    let leg = |id: &Value| {
        let mut leg = json!({});
        let Some(object) = object(id) else { return leg };
        leg["dev"] = object["dev"].clone();
        match object["gateway"].as_str() {
            Some(gateway) if ipv4 && gateway.contains(':') => {
                leg["via"] = json!({"family": "inet6", "host": gateway});
            }
            Some(gateway) => leg["gateway"] = gateway.into(),
            None => {}
        }
        leg
    };
    let id = route["nhid"].clone();
    match object(&id).and_then(|object| object["group"].as_array()).map(Vec::as_slice) {
        Some([]) => {}
        Some([member]) => merge(route, leg(&member["id"])),
        Some(members) => route["nexthops"] = members.iter().map(|member| leg(&member["id"])).collect(),
        None if id.is_u64() => merge(route, leg(&id)),
        None => {}
    }
}

fn merge(route: &mut Value, leg: Value) {
    if let (Some(route), Value::Object(leg)) = (route.as_object_mut(), leg) {
        route.extend(leg);
    }
}
