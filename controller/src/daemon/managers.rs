//! Other programs that take the links and routes of the host for theirs: whether they leave Weft's alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::api::json::Problem;

/// Where configuration lies, from the strongest to the weakest (systemd.unit(5), NetworkManager.conf(5)).
const PLACES: [&str; 4] = ["etc", "run", "usr/local/lib", "usr/lib"];
/// The most that is read of a file.
const FILE_MAX: u64 = 1 << 20;
/// Routes and rules that networkd did not make itself (networkd.conf(5)).
const FOREIGN: [&str; 2] = ["ManageForeignRoutes", "ManageForeignRoutingPolicyRules"];

/// Looks below the root directory of the host.
pub(super) fn look(root: &Path) -> Vec<Problem> {
    networkd(root).into_iter().chain(network_manager(root)).collect()
}

/// systemd-networkd takes away what it does not know each time that it reads its configuration or a link comes.
fn networkd(root: &Path) -> Option<Problem> {
    root.join("run/systemd/netif/state").exists().then_some(())?;
    let mut manages = FOREIGN.map(|key| (key, true));
    for (section, key, value) in settings(root, "systemd/networkd.conf", "systemd/networkd.conf.d") {
        for (_, manages) in manages.iter_mut().filter(|(name, _)| section == "Network" && *name == key) {
            // An empty value is the default again.
            *manages = !["0", "no", "n", "false", "f", "off"].contains(&value.to_ascii_lowercase().as_str());
        }
    }
    let wanted: Vec<String> =
        manages.into_iter().filter(|(_, manages)| *manages).map(|(name, _)| format!("{name}=no")).collect();
    (!wanted.is_empty()).then(|| {
        Problem::warning(
            "networkd-takes-routes",
            "systemd-networkd takes away routes and rules that it did not make, Weft's among them, when it starts or a link changes",
            format!(
                "write [Network] with {} into /etc/systemd/networkd.conf.d/weft.conf, and start systemd-networkd again",
                wanted.join(" and ")
            ),
        )
    })
}

/// NetworkManager configures every new link, pods' too.
fn network_manager(root: &Path) -> Option<Problem> {
    let runs = fs::read_dir(root.join("run/NetworkManager")).is_ok_and(|mut files| files.next().is_some());
    runs.then_some(())?;
    let settings = settings(root, "NetworkManager/NetworkManager.conf", "NetworkManager/conf.d");
    let mut unmanaged = Vec::new();
    let mut devices: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for (section, key, value) in &settings {
        match (section.as_str(), key.trim_end_matches('+')) {
            ("keyfile", "unmanaged-devices") => {
                if !key.ends_with('+') {
                    unmanaged.clear();
                }
                unmanaged.push(value.as_str());
            }
            (device, "match-device") if device.starts_with("device") => {
                devices.entry(device).or_default().0 = is_ours(value);
            }
            (device, "managed") if device.starts_with("device") => {
                devices.entry(device).or_default().1 = ["0", "false", "no", "off"].contains(&value.as_str());
            }
            _ => {}
        }
    }
    let ignores = unmanaged.iter().any(|specs| is_ours(specs))
        || devices.values().any(|device| *device == (true, true));
    (!ignores).then(|| {
        Problem::warning(
            "networkmanager-takes-links",
            "NetworkManager is not told to leave weft* alone: it may configure pods' links",
            "write [keyfile] with unmanaged-devices+=interface-name:weft* into /etc/NetworkManager/conf.d/weft.conf, and reload NetworkManager",
        )
    })
}

/// Whether a list of devices has pods' links in it (NetworkManager.conf(5), "Device List Format").
fn is_ours(specs: &str) -> bool {
    specs.split([';', ',']).map(str::trim).any(|spec| match spec.strip_prefix("interface-name:") {
        Some(pattern) => {
            pattern.trim_start_matches('=').strip_suffix('*').is_some_and(|start| "weft".starts_with(start))
        }
        None => ["*", "type:veth", "driver:veth"].contains(&spec),
    })
}

/// Every setting of a file and of what is dropped in beside it, in the order in which they count: the last of a key wins.
fn settings(root: &Path, file: &str, directory: &str) -> Vec<(String, String, String)> {
    let main = PLACES.iter().map(|place| root.join(place).join(file)).find(|path| path.exists());
    let mut dropped: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for place in PLACES {
        let files = fs::read_dir(root.join(place).join(directory)).into_iter().flatten().flatten();
        for path in files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "conf"))
        {
            if let Some(name) = path.file_name() {
                // One of the same name in a stronger place stands in its stead.
                dropped.entry(name.to_owned()).or_insert_with(|| path.clone());
            }
        }
    }
    main.into_iter().chain(dropped.into_values()).flat_map(|path| parse(&read(&path))).collect()
}

fn read(path: &Path) -> String {
    let small = fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= FILE_MAX);
    if small { fs::read_to_string(path).unwrap_or_default() } else { String::new() }
}

/// Sections, keys and values.
fn parse(text: &str) -> Vec<(String, String, String)> {
    let mut section = "";
    let mut settings = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=') {
            settings.push((section.to_owned(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn codes(root: &Path) -> Vec<String> {
        look(root).into_iter().map(|problem| problem.code.to_string()).collect()
    }

    #[test]
    fn networkd_that_leaves_neither_routes_nor_rules_is_named() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "etc/systemd/networkd.conf", "[Network]\n#ManageForeignRoutes=yes\n");
        assert_eq!(look(root), [], "it does not run");
        write(root, "run/systemd/netif/state", "");
        let problem = &look(root)[0];
        let both = "ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no";
        assert!(problem.code == "networkd-takes-routes" && problem.remedy.contains(both), "{problem:?}");
        let dropped = "etc/systemd/networkd.conf.d/weft.conf";
        write(
            root,
            dropped,
            "[DHCPv4]\nManageForeignRoutes=no\n[Network]\nManageForeignRoutingPolicyRules = false\n",
        );
        assert!(look(root)[0].remedy.contains("with ManageForeignRoutes=no into"), "of another section");
        write(root, dropped, "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n");
        assert_eq!(look(root), []);
        // A weaker file of the same name does not count, and a later one does.
        write(root, "usr/lib/systemd/networkd.conf.d/weft.conf", "[Network]\nManageForeignRoutes=yes\n");
        assert_eq!(look(root), []);
        write(root, "usr/lib/systemd/networkd.conf.d/z.conf", "[Network]\nManageForeignRoutes=yes\n");
        assert_eq!(codes(root), ["networkd-takes-routes"]);
    }

    #[test]
    fn a_network_manager_that_takes_pods_links_is_named() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(look(root), [], "there is none");
        write(root, "run/NetworkManager/resolv.conf", "");
        let own = "etc/NetworkManager/conf.d/weft.conf";
        for (text, ignores) in [
            ("", false),
            ("[keyfile]\nunmanaged-devices=interface-name:weft*\n", true),
            ("[keyfile]\nunmanaged-devices+=interface-name:cali*;interface-name:we*\n", true),
            ("[keyfile]\nunmanaged-devices=interface-name:eth*\n", false),
            ("[main]\nunmanaged-devices=interface-name:weft*\n", false),
            ("[keyfile]\nunmanaged-devices=except:interface-name:weft*\n", false),
            ("[device-weft]\nmatch-device=interface-name:weft*\nmanaged=0\n", true),
            ("[device-weft]\nmatch-device=interface-name:weft*\nmanaged=1\n", false),
            ("[device]\nmatch-device=type:veth\nmanaged=false\n", true),
        ] {
            write(root, own, text);
            assert_eq!(look(root).is_empty(), ignores, "{text}");
        }
        write(root, own, "[keyfile]\nunmanaged-devices=*\n");
        write(
            root,
            "etc/NetworkManager/conf.d/z.conf",
            "[keyfile]\nunmanaged-devices=mac:00:11:22:33:44:55\n",
        );
        assert_eq!(codes(root), ["networkmanager-takes-links"], "the later one replaces it");
    }
}
