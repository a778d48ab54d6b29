//! `weftd --cleanup`: takes everything of Weft off this host's network namespace, and tells what it was.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use weft_routing::netlink::{Socket, delete_link};
use weft_routing::nft;
use weft_routing::route::Route;

use super::conflist;
use super::lock::RunDir;

/// How many requests go to the kernel in one batch.
const BATCH: usize = 1024;

/// Removes the runtime's configuration in `cni_conf_dir`, routes of both of Weft's protocols, pods' links, the nftables tables, and the files of the
/// run directory, and writes a line for each to `out`. What is gone already is no error; what cannot be removed does not keep the rest from being removed.
///
/// The pods' addresses in the state directory stay: the plugin frees them with each pod.
///
/// # Errors
/// Something could not be removed; the text says what and why.
pub(super) fn run(run_dir: &RunDir, cni_conf_dir: Option<&Path>, out: &mut dyn Write) -> Result<()> {
    let mut socket = Socket::new().context("cannot speak to the kernel")?;
    let mut failures = Vec::new();
    // First, so that the runtime brings no more pods.
    if let Some(file) = cni_conf_dir.map(|directory| directory.join(conflist::FILE_NAME)) {
        report(&file, fs::remove_file(&file), out, &mut failures)?;
    }
    remove_routes(&mut socket, out, &mut failures)?;
    remove_nexthops(&mut socket, out, &mut failures)?;
    remove_links(&mut socket, out, &mut failures)?;
    remove_tables(out, &mut failures)?;
    remove_files(run_dir, out, &mut failures)?;
    writeln!(out, "kernel settings (sysctls) are left as they are")?;
    if failures.is_empty() {
        return Ok(());
    }
    bail!("not everything could be removed:\n  {}", failures.join("\n  "))
}

fn remove_routes(socket: &mut Socket, out: &mut dyn Write, failures: &mut Vec<String>) -> Result<()> {
    let mut routes = socket.routes().context("cannot list the kernel's routes")?;
    routes.retain(|route| route.protocol.is_weft());
    for batch in routes.chunks(BATCH) {
        let requests: Vec<_> = batch.iter().map(|route| Route::delete(route.key, route.protocol)).collect();
        for (route, result) in batch.iter().zip(socket.batch(&requests)) {
            let name = format!("route {} proto {}", route.key, route.protocol);
            match result {
                Ok(()) => writeln!(out, "removed {name}")?,
                Err(error) if error.is_absent() => {}
                Err(error) => failures.push(format!("{name}: {error}")),
            }
        }
    }
    Ok(())
}

/// Those that the routes went over.
fn remove_nexthops(socket: &mut Socket, out: &mut dyn Write, failures: &mut Vec<String>) -> Result<()> {
    let Some(objects) = socket.nexthops().context("cannot list the nexthop objects")? else { return Ok(()) };
    let mut ours: Vec<_> = objects.iter().filter(|object| object.is_weft()).collect();
    // A group goes before its legs, which would take it along.
    ours.sort_by_key(|object| !object.is_weft_group());
    let requests: Vec<_> = ours.iter().map(|object| object.delete()).collect();
    for (object, result) in ours.iter().zip(socket.batch(&requests)) {
        let name = format!("nexthop object {}", object.id);
        match result {
            Ok(()) => writeln!(out, "removed {name}")?,
            Err(error) if error.is_absent() => {}
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    Ok(())
}

fn remove_links(socket: &mut Socket, out: &mut dyn Write, failures: &mut Vec<String>) -> Result<()> {
    for link in socket.links().context("cannot list the links")? {
        if link.kind.as_deref() != Some("veth") || !is_pod_link(&link.name) {
            continue;
        }
        match socket.execute(&delete_link(link.index)) {
            Ok(()) => writeln!(out, "removed link {}", link.name)?,
            Err(error) if error.is_absent() => {}
            Err(error) => failures.push(format!("link {}: {error}", link.name)),
        }
    }
    Ok(())
}

fn remove_tables(out: &mut dyn Write, failures: &mut Vec<String>) -> Result<()> {
    match nft::delete() {
        Ok(names) => {
            for name in names {
                writeln!(out, "removed nftables table inet {name}")?;
            }
        }
        Err(error) => failures.push(format!("nftables tables: {error}")),
    }
    Ok(())
}

/// `weft` and 11 hexadecimal digits: the host end of a pod's veth.
pub(super) fn is_pod_link(name: &str) -> bool {
    name.strip_prefix("weft").is_some_and(|digits| {
        digits.len() == 11 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The directory itself goes too if nothing else is in it.
fn remove_files(run_dir: &RunDir, out: &mut dyn Write, failures: &mut Vec<String>) -> Result<()> {
    let path = run_dir.path();
    let names = ["weft.sock", "weft.sock.new", "node.json", super::drain::FILE_NAME, super::bfd::FILE_NAME];
    let files = names.iter().map(|name| path.join(name)).chain([run_dir.lock_file()]);
    for file in files {
        report(&file, fs::remove_file(&file), out, failures)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            writeln!(out, "left {}: other files are in it", path.display())?;
        }
        // In a container the directory is the host's, mounted, on a root file system that cannot be written.
        Err(error)
            if [io::ErrorKind::ResourceBusy, io::ErrorKind::ReadOnlyFilesystem].contains(&error.kind()) =>
        {
            writeln!(out, "left {}: it is mounted", path.display())?;
        }
        removed => report(path, removed, out, failures)?,
    }
    Ok(())
}

fn report(
    path: &Path,
    removed: io::Result<()>,
    out: &mut dyn Write,
    failures: &mut Vec<String>,
) -> io::Result<()> {
    match removed {
        Ok(()) => writeln!(out, "removed {}", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            failures.push(format!("{}: {error}", PathBuf::from(path).display()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plugins_links_are_pods_links() {
        assert!(is_pod_link("weft0123456789a"));
        assert!(!is_pod_link("weft0"));
        assert!(!is_pod_link("weft0123456789A"));
        assert!(!is_pod_link("eth0"));
    }

    #[test]
    fn the_run_directory_goes_with_its_files() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let run_dir = RunDir::acquire(&path).unwrap();
        fs::write(path.join("node.json"), "{}").unwrap();
        let (mut out, mut failures) = (Vec::new(), Vec::new());
        remove_files(&run_dir, &mut out, &mut failures).unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        assert!(!path.exists());
        assert!(String::from_utf8(out).unwrap().contains("node.json"));
    }
}
