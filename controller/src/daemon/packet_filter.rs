//! Weft's tables in nftables, kept as the plan wants them on a task of its own, as `nft` may take its time.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use weft_routing::netlink;
use weft_routing::nft::{self, Error, Installed, Packets, Ruleset, Watch};

use crate::api::json::Problem;

/// How often the tables are compared with what is wanted, and the counters read.
const AUDIT: Duration = Duration::from_secs(30);
/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often tables are put there that are gone when they are looked at.
const TRIES: usize = 3;
/// The shortest time between two looks that changes of the tables cause.
const SETTLE: Duration = Duration::from_millis(100);

/// How the tables stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PacketFilter {
    /// The guard against forged sources is there.
    pub(super) guarded: bool,
    /// What the guard has dropped; none: not read yet.
    pub(super) spoofed: Option<Packets>,
    /// What was rejected on its way to Services; none: not read yet, or there are no service ranges.
    pub(super) rejected: Option<Packets>,
    /// How often the tables were put right after another program changed them.
    pub(super) repairs: u64,
    /// What could not be done.
    pub(super) problem: Option<Problem>,
}

/// Where the tables are: the kernel, or a test's own.
pub(super) trait Tables: Send + 'static {
    /// See [`nft::apply_guard`].
    fn apply_guard(&mut self) -> Result<(), Error>;
    /// See [`Ruleset::apply`].
    fn apply(&mut self, ruleset: &Ruleset) -> Result<(), Error>;
    /// See [`nft::list`].
    fn list(&self) -> Result<Installed, Error>;
}

/// The kernel's, of this process's network namespace.
#[derive(Clone, Copy, Debug)]
struct Kernel;

impl Tables for Kernel {
    fn apply_guard(&mut self) -> Result<(), Error> {
        nft::apply_guard()
    }

    fn apply(&mut self, ruleset: &Ruleset) -> Result<(), Error> {
        ruleset.apply()
    }

    fn list(&self) -> Result<Installed, Error> {
        nft::list()
    }
}

/// Starts keeping the tables; nothing is touched while none are wanted. The task ends when `wanted` has no sender any more.
pub(super) fn keep(wanted: watch::Receiver<Option<Ruleset>>) -> watch::Receiver<PacketFilter> {
    let (told, state) = watch::channel(PacketFilter::default());
    let disturbed = Arc::new(Notify::new());
    listen(disturbed.clone());
    tokio::spawn(follow(Keeper::new(Kernel), wanted, disturbed, told));
    state
}

async fn follow<T: Tables>(
    mut keeper: Keeper<T>,
    mut wanted: watch::Receiver<Option<Ruleset>>,
    disturbed: Arc<Notify>,
    told: watch::Sender<PacketFilter>,
) {
    loop {
        let pause = if keeper.state.problem.is_some() { RETRY } else { AUDIT };
        let news = async {
            tokio::select! {
                new = wanted.changed() => new.is_ok(),
                () = disturbed.notified() => true,
            }
        };
        if let Ok(false) = timeout(pause, news).await {
            return;
        }
        let Some(ruleset) = wanted.borrow_and_update().clone() else { continue };
        let step = spawn_blocking(move || {
            keeper.step(&ruleset);
            keeper
        });
        let Ok(kept) = step.await else { return };
        keeper = kept;
        told.send_if_modified(|state| {
            let changed = *state != keeper.state;
            *state = keeper.state.clone();
            changed
        });
    }
}

/// Hears of changes of our tables, on a thread that lasts as long as the process. Where that is not possible only the
/// audit finds them.
fn listen(disturbed: Arc<Notify>) {
    let hear = move || -> Result<(), netlink::Error> {
        let mut watch = Watch::open()?;
        loop {
            watch.wait()?;
            disturbed.notify_one();
            thread::sleep(SETTLE);
        }
    };
    let told = move || {
        if let Err(error) = hear() {
            tracing::warn!(%error, "changes of nftables are found by the audit only");
        }
    };
    if let Err(error) = thread::Builder::new().name("nft-watch".to_owned()).spawn(told) {
        tracing::warn!(%error, "changes of nftables are found by the audit only");
    }
}

/// The tables, and what was last put there.
#[derive(Debug)]
struct Keeper<T> {
    tables: T,
    /// What was applied, and how it read right afterwards.
    applied: Option<(Ruleset, Installed)>,
    state: PacketFilter,
}

impl<T: Tables> Keeper<T> {
    fn new(tables: T) -> Self {
        Self { tables, applied: None, state: PacketFilter::default() }
    }

    /// Compares, puts right what differs, and reads the counters.
    fn step(&mut self, wanted: &Ruleset) {
        self.state.problem = self.try_step(wanted).err().map(|error| problem(&error, self.state.guarded));
    }

    fn try_step(&mut self, wanted: &Ruleset) -> Result<(), Error> {
        if let Some((_, as_applied)) = self.applied.as_ref().filter(|(ruleset, _)| ruleset == wanted) {
            let found = self.tables.list()?;
            if found.same_rules(as_applied) {
                self.count(&found);
                return Ok(());
            }
            self.state.guarded = found.guard.is_some() && found.guard == as_applied.guard;
            self.state.repairs = self.state.repairs.saturating_add(1);
        }
        self.applied = None;
        for _ in 0..TRIES {
            self.tables.apply_guard()?;
            self.state.guarded = true;
            self.tables.apply(wanted)?;
            let installed = self.tables.list()?;
            self.count(&installed);
            // What somebody takes away in between must not pass for what was wanted.
            self.state.guarded = installed.guard.is_some();
            let complete = installed.nat.is_some() == wanted.translates()
                && installed.services.is_some() != wanted.services.is_empty();
            if self.state.guarded && complete {
                self.applied = Some((wanted.clone(), installed));
                return Ok(());
            }
        }
        Err(Error::Undone)
    }

    fn count(&mut self, installed: &Installed) {
        self.state.spoofed = Some(installed.spoofed);
        self.state.rejected = installed.services.as_ref().map(|_| installed.rejected);
    }
}

fn problem(error: &Error, guarded: bool) -> Problem {
    let consequence = if guarded {
        "the guard against forged sources stands as it was applied last"
    } else {
        "pods may send under any address, so node.json is not written before the guard stands"
    };
    match error {
        Error::NotInstalled => Problem::error(
            "nft-missing",
            format!("{error}; {consequence}"),
            "install nftables (Debian: apt install nftables); weftd tries again every few seconds",
        ),
        Error::Run(_) | Error::TimedOut | Error::Refused { .. } | Error::Json(_) | Error::Undone => {
            Problem::error(
                "nft-failed",
                format!(
                    "the tables inet weft, inet weft-nat and inet weft-services cannot be kept: {error}; {consequence}"
                ),
                "run nft list tables inet by hand; the kernel needs nf_tables with CONFIG_NFT_FIB_INET, CONFIG_NFT_NAT and CONFIG_NFT_REJECT_INET",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables whose listing is told, and that remember how often they were written.
    #[derive(Default)]
    struct Fake {
        absent: bool,
        /// The kernel has no NAT.
        no_nat: bool,
        /// Somebody took the tables away.
        flushed: bool,
        /// How many times somebody takes them away at once.
        undone: usize,
        real: Installed,
        applied: usize,
    }

    impl Tables for Fake {
        fn apply_guard(&mut self) -> Result<(), Error> {
            if self.absent {
                return Err(Error::NotInstalled);
            }
            Ok(())
        }

        fn apply(&mut self, _: &Ruleset) -> Result<(), Error> {
            if self.no_nat {
                return Err(Error::TimedOut);
            }
            self.applied += 1;
            self.flushed = self.undone > 0;
            self.undone = self.undone.saturating_sub(1);
            Ok(())
        }

        fn list(&self) -> Result<Installed, Error> {
            if self.flushed { Ok(Installed::default()) } else { Ok(self.real.clone()) }
        }
    }

    /// Tables as a real kernel lists them, read in a namespace of their own.
    fn listed() -> Installed {
        let inside = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("tests run as root");
            nft::apply_guard().unwrap();
            nft::list().unwrap()
        });
        inside.join().unwrap()
    }

    #[test]
    fn what_is_in_place_is_not_written_again_and_what_is_gone_is_put_back() {
        let mut keeper = Keeper::new(Fake { real: listed(), ..Fake::default() });
        let wanted = Ruleset::default();
        keeper.step(&wanted);
        keeper.step(&wanted);
        assert_eq!((keeper.tables.applied, keeper.state.repairs, keeper.state.guarded), (1, 0, true));
        keeper.tables.flushed = true;
        keeper.step(&wanted);
        assert_eq!((keeper.tables.applied, keeper.state.repairs, keeper.state.guarded), (2, 1, true));
    }

    #[test]
    fn what_is_taken_away_at_once_is_put_back_and_never_taken_for_what_was_wanted() {
        let mut keeper = Keeper::new(Fake { real: listed(), undone: 1, ..Fake::default() });
        keeper.step(&Ruleset::default());
        assert_eq!((keeper.tables.applied, keeper.state.guarded), (2, true));
        keeper.tables.flushed = true;
        keeper.tables.undone = usize::MAX;
        keeper.step(&Ruleset::default());
        assert!(!keeper.state.guarded);
        assert_eq!(keeper.state.problem.as_ref().map(|p| p.code.as_str()), Some("nft-failed"));
        keeper.tables.undone = 0;
        keeper.step(&Ruleset::default());
        assert!(keeper.state.guarded && keeper.state.problem.is_none());
    }

    #[test]
    fn counts_are_read_with_every_look() {
        let mut keeper = Keeper::new(Fake { real: listed(), ..Fake::default() });
        keeper.step(&Ruleset::default());
        keeper.tables.real.spoofed.ipv6 = 7;
        keeper.step(&Ruleset::default());
        assert_eq!(keeper.state.spoofed, Some(Packets { ipv4: 0, ipv6: 7 }));
        assert_eq!(keeper.tables.applied, 1);
    }

    #[test]
    fn without_the_program_there_is_no_guard_until_it_is_there() {
        let mut keeper = Keeper::new(Fake { absent: true, real: listed(), ..Fake::default() });
        keeper.step(&Ruleset::default());
        assert!(!keeper.state.guarded);
        assert_eq!(keeper.state.problem.as_ref().map(|p| p.code.as_str()), Some("nft-missing"));
        keeper.tables.absent = false;
        keeper.step(&Ruleset::default());
        assert!(keeper.state.guarded && keeper.state.problem.is_none());
    }

    #[test]
    fn the_guard_stands_where_the_translation_cannot() {
        let mut keeper = Keeper::new(Fake { no_nat: true, ..Fake::default() });
        keeper.step(&Ruleset::default());
        assert!(keeper.state.guarded);
        assert_eq!(keeper.state.problem.as_ref().map(|p| p.code.as_str()), Some("nft-failed"));
    }

    #[tokio::test]
    async fn a_new_ruleset_is_applied_at_once_and_the_state_told() {
        let (wanted, told_wanted) = watch::channel(None);
        let (told, mut state) = watch::channel(PacketFilter::default());
        let task = tokio::spawn(follow(
            Keeper::new(Fake { real: listed(), ..Fake::default() }),
            told_wanted,
            Arc::default(),
            told,
        ));
        wanted.send_replace(Some(Ruleset::default()));
        state.changed().await.unwrap();
        assert!(state.borrow().guarded);
        drop(wanted);
        task.await.unwrap();
    }
}
