//! `weftd --install-cni DIR`: puts the plugin where the container runtime finds it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The plugin's name, beside this program and in the runtime's directory.
const NAME: &str = "weft-cni";
/// Not a name that a runtime runs.
const TEMPORARY_NAME: &str = ".weft-cni.new";

/// Copies the plugin that lies beside this program into `directory`, and says what it did to `out`. A plugin that is the same already is left alone. It
/// is replaced in one step: whoever runs it just then runs the old one or the new one.
///
/// # Errors
/// There is no plugin beside this program, or it cannot be written.
pub(super) fn run(directory: &Path, out: &mut dyn io::Write) -> Result<()> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    install(&own.with_file_name(NAME), directory, out)
}

fn install(source: &Path, directory: &Path, out: &mut dyn io::Write) -> Result<()> {
    let target = directory.join(NAME);
    let plugin = fs::read(source).with_context(|| format!("cannot read the plugin {}", source.display()))?;
    if fs::read(&target).is_ok_and(|there| there == plugin) {
        writeln!(out, "{} is as it should be", target.display())?;
        return Ok(());
    }
    replace(&target, &directory.join(TEMPORARY_NAME), &plugin)
        .with_context(|| format!("cannot write {}", target.display()))?;
    writeln!(out, "wrote {}", target.display())?;
    Ok(())
}

/// The new file is on disk before it has the name: a power cut leaves the old one or the new one too.
fn replace(target: &Path, temporary: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(temporary)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()?;
    fs::rename(temporary, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_is_replaced_in_one_step_and_only_if_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let (source, bin) = (dir.path().join("source"), dir.path().join("bin"));
        fs::write(&source, "new").unwrap();
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join(NAME), "old").unwrap();
        // One that a killed run left.
        fs::write(bin.join(TEMPORARY_NAME), "half").unwrap();
        // Who has it open, as who runs it, keeps the old one.
        let running = File::open(bin.join(NAME)).unwrap();
        let mut said = Vec::new();
        install(&source, &bin, &mut said).unwrap();
        install(&source, &bin, &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("wrote ") && said.ends_with("is as it should be\n"), "{said}");
        assert_eq!(fs::read_to_string(bin.join(NAME)).unwrap(), "new");
        assert_eq!(fs::metadata(bin.join(NAME)).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(io::read_to_string(running).unwrap(), "old");
        assert!(!bin.join(TEMPORARY_NAME).exists());
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let error = install(&missing, dir.path(), &mut Vec::new()).unwrap_err();
        assert!(format!("{error:#}").contains("missing"), "{error:#}");
        let source = dir.path().join("source");
        fs::write(&source, "x").unwrap();
        let error = install(&source, &missing, &mut Vec::new()).unwrap_err();
        assert!(format!("{error:#}").contains("missing/weft-cni"), "{error:#}");
    }
}
