//! The sysctls of the plan: set, audited and shown.

use std::io;
use std::path::PathBuf;

use weft_routing::sysctl as kernel;

use crate::api::json::Problem;
use crate::plan::Sysctl;

/// Where sysctls are read and written: the kernel, or a test's own.
pub(super) trait Parameters {
    /// The value at this path under `/proc/sys`.
    fn read(&self, path: &str) -> Result<String, kernel::Error>;
    /// Sets it.
    fn write(&mut self, path: &str, value: &str) -> Result<(), kernel::Error>;
}

/// The kernel's, of this process's network namespace, where they can be written.
#[derive(Clone, Debug)]
pub(super) struct Kernel(pub(super) PathBuf);

impl Parameters for Kernel {
    fn read(&self, path: &str) -> Result<String, kernel::Error> {
        kernel::read_below(&self.0, path)
    }

    fn write(&mut self, path: &str, value: &str) -> Result<(), kernel::Error> {
        kernel::write_below(&self.0, path, value)
    }
}

/// One sysctl as it was found, and as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What it should be.
    pub(super) wanted: Sysctl,
    /// How it stands.
    pub(super) outcome: Outcome,
}

/// How a sysctl stands after an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As it should be.
    Right,
    /// It was wrong and has been set.
    Set {
        /// The value before.
        from: String,
    },
    /// It is wrong and was left alone, as `manageSysctls` is false.
    Differs {
        /// The value now.
        actual: String,
    },
    /// This kernel does not have it.
    Missing,
    /// It could not be read or written.
    Failed {
        /// The kernel's words.
        error: String,
    },
}

/// Compares every sysctl with what it should be, in order, and sets those that differ if `manage`.
pub(super) fn audit(parameters: &mut impl Parameters, wanted: &[Sysctl], manage: bool) -> Vec<Finding> {
    wanted
        .iter()
        .map(|wanted| Finding { wanted: wanted.clone(), outcome: audit_one(parameters, wanted, manage) })
        .collect()
}

fn audit_one(parameters: &mut impl Parameters, wanted: &Sysctl, manage: bool) -> Outcome {
    match parameters.read(&wanted.path) {
        Err(kernel::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Outcome::Missing
        }
        Err(error) => Outcome::Failed { error: error.to_string() },
        Ok(actual) if actual == wanted.value => Outcome::Right,
        Ok(actual) if !manage => Outcome::Differs { actual },
        Ok(actual) => match parameters.write(&wanted.path, wanted.value) {
            Ok(()) => Outcome::Set { from: actual },
            Err(error) => Outcome::Failed { error: format!("it is {actual}, and {error}") },
        },
    }
}

/// What is not as it should be, for people.
pub(super) fn problems(findings: &[Finding]) -> Vec<Problem> {
    findings.iter().filter_map(problem).collect()
}

fn problem(finding: &Finding) -> Option<Problem> {
    let Sysctl { path, value } = &finding.wanted;
    let by_hand = format!("echo {value} > /proc/sys/{path}");
    match &finding.outcome {
        Outcome::Right | Outcome::Set { .. } => None,
        Outcome::Differs { actual } => Some(Problem::error(
            "sysctl-differs",
            format!("{path} is {actual}, not {value}, and manageSysctls is false"),
            format!("run: {by_hand}"),
        )),
        Outcome::Missing => Some(Problem::error(
            "sysctl-missing",
            format!("this kernel has no {path}"),
            "use Linux 5.8 or later, built with CONFIG_IP_ROUTE_MULTIPATH=y",
        )),
        Outcome::Failed { error } => Some(Problem::error(
            "sysctl-not-settable",
            format!("{path} cannot be made {value}: {error}"),
            format!(
                "run on the host: {by_hand}; in a container, mount the host's /proc/sys and name it with --proc-sys"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Parameters by path; those of `read_only` cannot be written.
    struct Fake {
        values: BTreeMap<String, String>,
        read_only: bool,
    }

    impl Parameters for Fake {
        fn read(&self, path: &str) -> Result<String, kernel::Error> {
            self.values.get(path).cloned().ok_or_else(|| kernel::Error::Read {
                key: path.to_owned(),
                source: io::ErrorKind::NotFound.into(),
            })
        }

        fn write(&mut self, path: &str, value: &str) -> Result<(), kernel::Error> {
            if self.read_only {
                let (key, value) = (path.to_owned(), value.to_owned());
                return Err(kernel::Error::Write {
                    key,
                    value,
                    source: io::ErrorKind::ReadOnlyFilesystem.into(),
                });
            }
            self.values.insert(path.to_owned(), value.to_owned());
            Ok(())
        }
    }

    fn fake(read_only: bool) -> Fake {
        let values = [("net/ipv4/ip_forward", "0"), ("net/ipv4/nexthop_compat_mode", "0")];
        Fake { values: values.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), read_only }
    }

    fn wanted() -> Vec<Sysctl> {
        [("net/ipv4/ip_forward", "1"), ("net/ipv4/nexthop_compat_mode", "0"), ("net/ipv4/absent", "1")]
            .map(|(path, value)| Sysctl { path: path.to_owned(), value })
            .into()
    }

    fn outcomes(findings: &[Finding]) -> Vec<&Outcome> {
        findings.iter().map(|f| &f.outcome).collect()
    }

    #[test]
    fn what_differs_is_set_and_then_right() {
        let mut fake = fake(false);
        let first = audit(&mut fake, &wanted(), true);
        let set = Outcome::Set { from: "0".into() };
        assert_eq!(outcomes(&first), [&set, &Outcome::Right, &Outcome::Missing]);
        let second = audit(&mut fake, &wanted(), true);
        assert_eq!(outcomes(&second), [&Outcome::Right, &Outcome::Right, &Outcome::Missing]);
    }

    #[test]
    fn nothing_is_set_when_not_managing() {
        let mut fake = fake(false);
        let findings = audit(&mut fake, &wanted(), false);
        assert_eq!(findings[0].outcome, Outcome::Differs { actual: "0".into() });
        assert_eq!(fake.values["net/ipv4/ip_forward"], "0");
    }

    #[test]
    fn what_is_not_right_becomes_a_problem_with_a_remedy() {
        let codes = |findings: &[Finding]| problems(findings).into_iter().map(|p| p.code).collect::<Vec<_>>();
        let findings = audit(&mut fake(true), &wanted(), true);
        assert_eq!(codes(&findings), ["sysctl-not-settable", "sysctl-missing"]);
        let findings = audit(&mut fake(false), &wanted(), false);
        assert_eq!(codes(&findings), ["sysctl-differs", "sysctl-missing"]);
        let remedy = &problems(&findings)[0].remedy;
        assert_eq!(remedy, "run: echo 1 > /proc/sys/net/ipv4/ip_forward");
    }
}
