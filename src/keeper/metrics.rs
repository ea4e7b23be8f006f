//! The keeper's metrics.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use strum::{IntoStaticStr, VariantNames};

use super::trust::Cascade;
use crate::metrics::{Counters, Label};
use crate::overlap::outlook::Problem;

/// The keeper's metrics. Clones share their counts; the default is in no registry.
#[derive(Clone, Debug)]
pub struct KeeperMetrics {
    leader: Gauge,
    secrets: Family<Label, Gauge>,
    asks: Family<[(&'static str, &'static str); 2], Counter>,
    lateness: Histogram,
    problems: Family<Label, Gauge>,
    events: Counters,
    restarts: Counters,
    renewals: Counters,
    to_renew: Family<Label, Gauge>,
    remembered: Gauge,
    not_remembered: Gauge,
    watch_errors: Counter,
    stages_ended: Counter,
    over_budget: Counters,
}

/// What the keeper asks of the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum AskKind {
    /// Announce these CAs, and no others.
    Announce,
    /// Remove the carried certificates that have ended.
    Retire,
    /// Put the waiting pair into service.
    Promote,
    /// Restore what was dropped by a write that the webhook did not see.
    Repair,
    /// End what is left of a stage.
    Unstage,
    /// Nothing: the keeper removes an ask that is no longer needed.
    Withdraw,
}

/// The result of an ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum AskResult {
    /// Another writer changed the Secret first; the keeper asks again.
    Conflict,
    /// The webhook acted.
    Done,
    /// The API server rejected the write, or did not answer.
    Failed,
    /// The webhook did not see the ask.
    NotSeen,
    /// The webhook saw the ask and changed nothing.
    Refused,
    /// With `--audit`: it was not asked.
    Would,
}

/// A limit that the namespaces share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Budget {
    /// Names of Secrets that are gone, which are polled for a repair.
    Deletions,
    /// Events that wait for their publication.
    Events,
    /// The Secrets that follow sources.
    Followers,
    /// The Secrets of one group, and their certificates.
    Group,
    /// The last known states of Secrets, for repairs.
    Memory,
    /// Secrets that are to be reconciled.
    Queue,
    /// The sources, and those of other namespaces that one namespace follows.
    Sources,
    /// The times at which a `ca.crt` was first seen.
    Sightings,
    /// The watched Secrets.
    Watched,
}

/// The result of publishing an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(super) enum EventResult {
    /// The rate limit was reached, or the queue was full.
    Dropped,
    /// The API server rejected it, or did not answer.
    Failed,
    /// The API server stored it.
    Published,
}

/// The result of one step of restarting a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum RestartResult {
    /// Its rollout is complete.
    Done,
    /// The API server rejected the change.
    Failed,
    /// The workload may not be restarted, or does not exist.
    NotAllowed,
    /// Something removed our annotation.
    Reverted,
    /// Its pod template was changed.
    Started,
    /// Its rollout takes too long.
    Stuck,
    /// With `--audit`: it was not restarted.
    Would,
}

/// The result of renewing a leaf of a previous CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(super) enum RenewalResult {
    /// The leaf is of the present CA.
    Done,
    /// It was not issued, or not by the present CA.
    Failed,
    /// There was nothing to renew, or it is not ours to renew.
    Skipped,
}

impl KeeperMetrics {
    /// Registers the families in `registry`, whose prefix is `ca_overlap`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let keeper = registry.sub_registry_with_prefix("keeper");
        keeper.register(
            "leader",
            "1 while this replica may act: it holds the Lease and has read back its last renewal",
            metrics.leader.clone(),
        );
        keeper.register("secrets", "Watched Secrets, by phase", metrics.secrets.clone());
        keeper.register("asks", "Asks to the webhook, by kind and result", metrics.asks.clone());
        keeper.register_with_unit(
            "lateness",
            "Time from when something was due until the webhook acted on it",
            Unit::Seconds,
            metrics.lateness.clone(),
        );
        keeper.register("problems", "Secrets with a problem, by problem", metrics.problems.clone());
        metrics.events.register(keeper, "events", "Kubernetes Events of the keeper, by result");
        metrics.restarts.register(keeper, "restarts", "Steps of workload restarts, by result");
        let help = "Renewals of leaves that a previous CA issued, by result";
        metrics.renewals.register(keeper, "renewals", help);
        keeper.register(
            "leaves_to_renew",
            "Leaves that a previous CA issued, on the replica that acts, by state",
            metrics.to_renew.clone(),
        );
        keeper.register(
            "remembered",
            "Secrets in the keeper's memory, which repairs what an unseen write drops",
            metrics.remembered.clone(),
        );
        keeper.register(
            "not_remembered",
            "Secrets that are too large for the keeper's memory, alone or together",
            metrics.not_remembered.clone(),
        );
        keeper.register(
            "watch_errors",
            "Errors of the watches of Secrets; the keeper retries after each",
            metrics.watch_errors.clone(),
        );
        keeper.register(
            "stages_ended",
            "Stages that the keeper ended itself, because the webhook was not called",
            metrics.stages_ended.clone(),
        );
        metrics.over_budget.register(
            keeper,
            "over_budget",
            "What the keeper dropped of a namespace that uses more than its share, by budget",
        );
        metrics
    }

    /// Sets whether this replica may act.
    pub(super) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            self.cascades(&[]);
        }
    }

    /// Sets how many leaves of previous CAs are to be renewed.
    pub(super) fn cascades(&self, cascades: &[Cascade]) {
        let of = |cascade: &Cascade| match cascade {
            Cascade { is_settled: true, .. } => "due",
            Cascade { missing, .. } if missing.is_empty() => "settling",
            _ => "blocked",
        };
        for state in ["blocked", "due", "settling"] {
            let leaves = cascades.iter().filter(|it| of(it) == state).map(|it| it.leaves.len());
            let leaves = i64::try_from(leaves.sum::<usize>()).unwrap_or(i64::MAX);
            self.to_renew.get_or_create(&[("state", state)]).set(leaves);
        }
    }

    /// Sets how many Secrets are watched in phase overlap, in phase staged, and in no phase.
    pub(super) fn watched(&self, overlap: usize, staged: usize, none: usize) {
        for (phase, count) in [("overlap", overlap), ("staged", staged), ("none", none)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.secrets.get_or_create(&[("phase", phase)]).set(count);
        }
    }

    /// Sets how many Secrets have the problem of this name.
    pub(super) fn problem(&self, name: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.problems.get_or_create(&[("problem", name)]).set(count);
    }

    /// Counts an ask.
    pub(super) fn asked(&self, ask: AskKind, result: AskResult) {
        self.asks.get_or_create(&[("ask", ask.into()), ("result", result.into())]).inc();
    }

    /// Notes that the webhook acted this many seconds after something was due.
    pub(super) fn acted_after(&self, seconds: f64) {
        self.lateness.observe(seconds);
    }

    /// Counts an Event.
    pub(super) fn event(&self, result: EventResult) {
        self.events.inc(result);
    }

    /// Counts a step of restarting a workload.
    pub(super) fn restart(&self, result: RestartResult) {
        self.restarts.inc(result);
    }

    /// Counts a renewal of a leaf.
    pub(super) fn renewal(&self, result: RenewalResult) {
        self.renewals.inc(result);
    }

    /// Sets how many Secrets are remembered, and how many are too large for that.
    pub(super) fn remembers(&self, remembered: usize, refused: usize) {
        self.remembered.set(i64::try_from(remembered).unwrap_or(i64::MAX));
        self.not_remembered.set(i64::try_from(refused).unwrap_or(i64::MAX));
    }

    /// Counts a stage that the keeper ended itself.
    pub(super) fn stage_ended(&self) {
        self.stages_ended.inc();
    }

    /// Counts what is dropped because a namespace uses more than its share.
    pub(super) fn over_budget(&self, budget: Budget) {
        self.over_budget.inc(budget);
    }

    /// Counts an error of a watch.
    pub(super) fn watch_failed(&self) {
        self.watch_errors.inc();
    }
}

impl AskKind {
    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Default for KeeperMetrics {
    fn default() -> Self {
        let asks = Family::<[(&'static str, &'static str); 2], Counter>::default();
        for ask in AskKind::VARIANTS {
            for result in AskResult::VARIANTS {
                drop(asks.get_or_create(&[("ask", ask), ("result", result)]));
            }
        }
        let problems = Family::<Label, Gauge>::default();
        for problem in Problem::VARIANTS {
            drop(problems.get_or_create(&[("problem", problem)]));
        }
        let metrics = Self {
            leader: Gauge::default(),
            secrets: Family::default(),
            asks,
            lateness: Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0]),
            problems,
            events: Counters::new("result", EventResult::VARIANTS),
            restarts: Counters::new("result", RestartResult::VARIANTS),
            renewals: Counters::new("result", RenewalResult::VARIANTS),
            to_renew: Family::default(),
            remembered: Gauge::default(),
            not_remembered: Gauge::default(),
            watch_errors: Counter::default(),
            stages_ended: Counter::default(),
            over_budget: Counters::new("budget", Budget::VARIANTS),
        };
        metrics.watched(0, 0, 0);
        metrics.cascades(&[]);
        metrics
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::kubernetes::key::Key;

    #[test]
    fn each_metric_has_its_name_and_labels() {
        let mut registry = crate::metrics::registry();
        let metrics = KeeperMetrics::register(&mut registry);
        metrics.leads(true);
        metrics.watched(2, 1, 3);
        metrics.asked(AskKind::Retire, AskResult::NotSeen);
        metrics.acted_after(0.2);
        metrics.event(EventResult::Dropped);
        metrics.restart(RestartResult::Stuck);
        metrics.renewal(RenewalResult::Done);
        metrics.remembers(4, 2);
        metrics.watch_failed();
        metrics.stage_ended();
        metrics.over_budget(Budget::Deletions);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "ca_overlap_keeper_leader 1",
            "ca_overlap_keeper_secrets{phase=\"overlap\"} 2",
            "ca_overlap_keeper_secrets{phase=\"none\"} 3",
            "ca_overlap_keeper_asks_total{ask=\"retire\",result=\"not_seen\"} 1",
            "ca_overlap_keeper_asks_total{ask=\"repair\",result=\"done\"} 0",
            "ca_overlap_keeper_lateness_seconds_bucket{le=\"0.25\"} 1",
            "ca_overlap_keeper_problems{problem=\"retire_blocked\"} 0",
            "ca_overlap_keeper_events_total{result=\"dropped\"} 1",
            "ca_overlap_keeper_restarts_total{result=\"stuck\"} 1",
            "ca_overlap_keeper_renewals_total{result=\"done\"} 1",
            "ca_overlap_keeper_leaves_to_renew{state=\"blocked\"} 0",
            "ca_overlap_keeper_remembered 4",
            "ca_overlap_keeper_not_remembered 2",
            "ca_overlap_keeper_watch_errors_total 1",
            "ca_overlap_keeper_stages_ended_total 1",
            "ca_overlap_keeper_over_budget_total{budget=\"deletions\"} 1",
            "ca_overlap_keeper_over_budget_total{budget=\"events\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
    #[test]
    fn leaves_to_renew_are_counted_by_what_they_wait_for_while_this_replica_acts() {
        let key = |name: &str| Key::new("ns".to_owned(), name.to_owned());
        let cascade = |leaves: &[&str], missing: &[&str], is_settled| Cascade {
            source: key("issuer"),
            held: Vec::new(),
            leaves: leaves.iter().map(|name| key(name)).collect(),
            missing: missing.iter().map(|name| key(name)).collect(),
            is_settled,
        };
        let metrics = KeeperMetrics::default();
        let counts = || {
            ["blocked", "settling", "due"]
                .map(|state| metrics.to_renew.get_or_create(&[("state", state)]).get())
        };
        metrics.cascades(&[
            cascade(&["a", "b", "c"], &["x"], false),
            cascade(&["d"], &[], false),
            cascade(&["e"], &[], true),
            cascade(&["f"], &[], true),
        ]);
        metrics.leads(true);
        assert_eq!(counts(), [3, 1, 2]);
        metrics.leads(false);
        assert_eq!(counts(), [0, 0, 0]);
    }
}
