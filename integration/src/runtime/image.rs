//! The image that all containers run: Debian's static busybox with a web server that tells who asks.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::copy_program;
use crate::lab::Lab;
use crate::process::{SHORT, foreign_program, run};

/// The image's name. No registry is asked for it: runtimes are given the file.
pub const IMAGE: &str = "weft.test/busybox:1";

/// The port of its server.
pub const SERVED: u16 = 80;

/// What the server runs for `/cgi-bin/who`.
const WHO: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s' \"$REMOTE_ADDR\"\n";

/// Writes the image as an archive of the kind `docker save` makes (manifest, configuration and layer in one tar), which both
/// runtimes read; returns its path.
///
/// # Errors
/// If busybox is missing or the archive cannot be written.
pub fn write(lab: &Lab) -> Result<PathBuf> {
    let busybox = foreign_program(&["/usr/bin/busybox", "/bin/busybox"], "busybox-static")?;
    let folder = lab.directory("image")?;
    let root = lab.directory("image/root")?;
    for directory in ["bin", "etc", "tmp", "www/cgi-bin"] {
        lab.directory(&format!("image/root/{directory}"))?;
    }
    copy_program(&busybox, &root.join("bin"))?;
    for applet in ["cat", "httpd", "ip", "ping", "sh"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    let who = root.join("www/cgi-bin/who");
    fs::write(&who, WHO)?;
    fs::set_permissions(&who, fs::Permissions::from_mode(0o755))?;
    run(Command::new("chroot").arg(&root).args(["/bin/busybox", "true"]), SHORT)?
        .success()
        .context("busybox is not static: install the Debian package busybox-static in place of busybox")?;
    tar(&root, &folder.join("layer.tar"), &["."])?;

    let sum = run(Command::new("sha256sum").arg(folder.join("layer.tar")), SHORT)?.success()?.stdout;
    let sum = sum.split_whitespace().next().context("sha256sum printed nothing")?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Cmd": ["/bin/httpd", "-f", "-p", SERVED.to_string(), "-h", "/www"],
            // As the first process of its namespace, a server without a handler is deaf to SIGTERM.
            "StopSignal": "SIGKILL",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(folder.join("config.json"), config.to_string())?;
    fs::write(folder.join("manifest.json"), manifest.to_string())?;
    let archive = folder.join("image.tar");
    tar(&folder, &archive, &["manifest.json", "config.json", "layer.tar"])?;
    Ok(archive)
}

fn tar(directory: &Path, archive: &Path, members: &[&str]) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--file"]).arg(archive);
    run(command.arg("--directory").arg(directory).args(members), SHORT)?
        .success()
        .with_context(|| format!("cannot write {}", archive.display()))?;
    Ok(())
}
