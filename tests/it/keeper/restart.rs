//! Restarts: which workloads, in which order, and how often. The test writes the status of a
//! rollout, in place of kube-controller-manager.

use ca_overlap::names;
use serde_json::{Value, json};

use super::setup::{Keeper, Rotation, Setup, eventually};
use super::workload::Workload;
use crate::support::sum;
use devtools::secrets::MERGE;

struct Workloads {
    setup: Setup,
    rotation: Rotation,
    keeper: Keeper,
}

impl Workloads {
    async fn start(test: &str, restart: &str) -> Option<Self> {
        Some(Self::on(Setup::start(test).await?, test, restart).await)
    }

    async fn on(setup: Setup, test: &str, restart: &str) -> Self {
        let keeper = setup.leading_keeper(&[]).await;
        let secrets = setup.cluster.namespace(test).await;
        let rotation = Rotation::begin(
            &secrets,
            "envoy",
            json!({names::RESTART: restart, names::WINDOW: "1h"}),
        )
        .await;
        // Without a mode the keeper watches the Secret only from the first rotation on.
        let mode = json!({"metadata": {"labels": {names::MODE: "bundle"}}});
        secrets.patch("envoy", MERGE, "fieldManager=person", &mode).await.ok();
        Self { setup, rotation, keeper }
    }

    /// Starts with two Deployments, "app" and "next", and rotates the CA. `more` is merged into
    /// "app". Also returns the hash of the trust before the rotation.
    async fn start_two(test: &str, more: Value) -> Option<(Self, String)> {
        let mut it = Self::start(test, "deployment/app,deployment/next").await?;
        let first = it.done(None).await;
        it.create("deployment/app", true, more).await;
        it.create("deployment/next", true, json!({})).await;
        it.rotation.rotate().await;
        Some((it, first))
    }

    fn workload<'a>(&'a self, name: &'a str) -> Workload<'a> {
        let namespace = &self.rotation.secrets.namespace;
        Workload { plane: &self.setup.cluster.plane, namespace, name }
    }

    /// `mounts`: whether its pods mount the Secret.
    async fn create(&self, workload: &str, mounts: bool, more: Value) {
        self.workload(workload).create(mounts.then_some("envoy"), &more).await;
    }

    async fn mark(&self, workload: &str) -> Option<String> {
        self.workload(workload).mark().await
    }

    /// Waits for a restart, and returns the trust that the workload was restarted for.
    async fn marked(&self, workload: &str, other_than: Option<&str>) -> String {
        eventually(&format!("a restart of {workload}"), async || {
            self.mark(workload).await.filter(|mark| Some(mark.as_str()) != other_than)
        })
        .await
    }

    async fn patch(&self, workload: &str, patch: Value) {
        let (namespace, text) = (&self.rotation.secrets.namespace, patch.to_string());
        let arguments = ["patch", workload, "-n", namespace, "--type=merge", "-p", &text];
        self.setup.cluster.plane.kubectl(&arguments, &[]).await.unwrap();
    }

    /// Completes a rollout.
    async fn roll_out(&self, workload: &str) {
        let workload = self.workload(workload);
        let mut object = workload.get().await;
        object["status"] = json!({
            "observedGeneration": object["metadata"]["generation"], "replicas": 1,
            "updatedReplicas": 1, "availableReplicas": 1, "readyReplicas": 1,
            "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberAvailable": 1,
            "currentNumberScheduled": 1, "numberMisscheduled": 0, "numberReady": 1,
        });
        let path = format!("{}/status", workload.path());
        self.setup.cluster.plane.json("PUT", &path, &object).await.unwrap();
    }

    async fn noted(&self) -> Option<String> {
        let stored = self.rotation.stored().await;
        stored.annotation(names::RESTARTED).map(ToOwned::to_owned)
    }

    /// Waits until no workload is left to restart, and returns the hash of the trust.
    async fn done(&self, other_than: Option<&str>) -> String {
        eventually("the end of the restart", async || {
            self.noted().await.filter(|n| !n.contains(' ') && Some(n.as_str()) != other_than)
        })
        .await
    }

    /// Overwrites the keeper's note. The webhook is stopped for it, because it would undo the
    /// write.
    async fn note(&self, noted: &str) {
        self.setup.stop_webhook().await;
        let patch = json!({"metadata": {"annotations": {names::RESTARTED: noted}}});
        self.rotation.secrets.patch("envoy", MERGE, "fieldManager=person", &patch).await.ok();
        self.setup.start_webhook().await;
    }

    async fn generation(&self, workload: &str) -> u64 {
        self.workload(workload).generation().await
    }
}

#[tokio::test]
async fn permitted_workloads_restart_once_and_in_order() {
    let test = "permitted_workloads_restart_once_and_in_order";
    let restart = "deployment/app, deployment/stranger,statefulset/marked,daemonset/agent";
    let Some(mut it) = Workloads::start(test, restart).await else { return };
    // The keeper notes the trust at the time of the annotation, and restarts nothing for it.
    let first = it.done(None).await;
    it.create("deployment/app", true, json!({})).await;
    it.create("deployment/stranger", false, json!({})).await;
    let allowed = json!({"metadata": {"annotations": {"ca-overlap.dev/allow-restart": "true"}}});
    it.create("statefulset/marked", false, allowed).await;
    it.create("daemonset/agent", true, json!({})).await;

    it.rotation.rotate().await;
    let trust = it.marked("deployment/app", None).await;
    assert_ne!(trust, first);
    // The keeper writes its progress before the next step, so nothing else has been restarted.
    let progress =
        eventually("progress", async || it.noted().await.filter(|n| n.contains(' '))).await;
    assert!(progress.starts_with(&format!("{trust} deployment/app ")), "{progress}");
    assert_eq!(it.mark("statefulset/marked").await, None);
    it.roll_out("deployment/app").await;
    assert_eq!(it.marked("statefulset/marked", None).await, trust);
    assert_eq!(it.mark("daemonset/agent").await, None);
    it.roll_out("statefulset/marked").await;
    assert_eq!(it.marked("daemonset/agent", None).await, trust);
    it.roll_out("daemonset/agent").await;
    assert_eq!(it.done(Some(&first)).await, trust);

    assert_eq!(it.mark("deployment/stranger").await, None);
    assert_eq!(it.generation("deployment/stranger").await, 1);
    for workload in ["deployment/app", "statefulset/marked", "daemonset/agent"] {
        assert_eq!(it.generation(workload).await, 2, "{workload}: once");
    }
    it.setup.event(&it.rotation, "Restarted").await;
    it.setup.event(&it.rotation, "RestartFailed").await;
    assert_eq!(it.rotation.data_managers().await, ["helm"]);
}

#[tokio::test]
async fn an_operator_that_reverts_a_restart_gets_an_event_and_no_loop() {
    let test = "an_operator_that_reverts_a_restart_gets_an_event_and_no_loop";
    let Some(mut it) = Workloads::start(test, "deployment/app").await else { return };
    let first = it.done(None).await;
    it.create("deployment/app", true, json!({})).await;
    it.rotation.rotate().await;
    let trust = it.marked("deployment/app", None).await;
    eventually("progress", async || it.noted().await.filter(|n| n.contains(' '))).await;
    let template = json!({"metadata": {"annotations": null}});
    it.patch("deployment/app", json!({"spec": {"template": template}})).await;
    assert_eq!(it.done(Some(&first)).await, trust);
    assert_eq!(it.generation("deployment/app").await, 3, "created, restarted, reverted");
    let event = it.setup.event(&it.rotation, "RestartFailed").await;
    assert!(event["note"].as_str().unwrap().contains("removed"), "{event}");
}

#[tokio::test]
async fn a_crash_during_a_restart_repeats_nothing() {
    let test = "a_crash_during_a_restart_repeats_nothing";
    let Some((mut it, first)) = Workloads::start_two(test, json!({})).await else { return };
    let trust = it.marked("deployment/app", None).await;
    it.keeper.process.signal("KILL");
    // As if the keeper had been killed before it noted the restart.
    it.note(&first).await;
    it.keeper = it.setup.keeper("keeper-1", &[]).await;
    let noted = eventually("progress", async || it.noted().await.filter(|n| n.contains(' '))).await;
    assert!(noted.starts_with(&format!("{trust} deployment/app ")), "{noted}");
    // A second crash, during the restart of the second workload.
    it.roll_out("deployment/app").await;
    it.marked("deployment/next", None).await;
    it.keeper.process.signal("KILL");
    it.keeper = it.setup.keeper("keeper-2", &[]).await;
    it.roll_out("deployment/next").await;
    assert_eq!(it.done(Some(&first)).await, trust);
    for workload in ["deployment/app", "deployment/next"] {
        assert_eq!(it.generation(workload).await, 2, "{workload}: once");
    }
}

#[tokio::test]
async fn the_keeper_waits_for_a_paused_rollout() {
    let test = "the_keeper_waits_for_a_paused_rollout";
    let paused = json!({"spec": {"paused": true}});
    let Some((it, first)) = Workloads::start_two(test, paused).await else { return };
    let looks = || it.keeper.log().matches("waiting for others to be ready").count();
    eventually("two looks", async || (looks() >= 2).then_some(())).await;
    assert_eq!(it.mark("deployment/app").await, None);
    assert_eq!(it.mark("deployment/next").await, None);
    it.patch("deployment/app", json!({"spec": {"paused": false}})).await;
    let trust = it.marked("deployment/app", None).await;
    it.roll_out("deployment/app").await;
    it.marked("deployment/next", None).await;
    it.roll_out("deployment/next").await;
    assert_eq!(it.done(Some(&first)).await, trust);
}

#[tokio::test]
async fn the_keeper_skips_a_rollout_that_stays_paused() {
    let test = "the_keeper_skips_a_rollout_that_stays_paused";
    let paused = json!({"spec": {"paused": true}});
    let Some((it, first)) = Workloads::start_two(test, paused).await else { return };
    let waits = |noted: &String| noted.ends_with(" waits");
    let noted = eventually("a note that it waits", async || it.noted().await.filter(waits)).await;
    let words: Vec<&str> = noted.split(' ').collect();
    assert_eq!((words.len(), words[1]), (4, "deployment/app"));
    // As if the keeper had waited for ten minutes.
    it.note(&noted.replace(words[2], "2026-01-01T00:00:00Z")).await;
    let trust = it.marked("deployment/next", None).await;
    let event = it.setup.event(&it.rotation, "RestartFailed").await;
    let note = event["note"].as_str().unwrap();
    assert!(note.starts_with("deployment/app") && note.contains("paused"), "{note}");
    it.roll_out("deployment/next").await;
    assert_eq!(it.done(Some(&first)).await, trust);
    assert_eq!(it.mark("deployment/app").await, None);
}

#[tokio::test]
async fn a_generator_that_repeats_the_restart_setting_causes_no_write() {
    let test = "a_generator_that_repeats_the_restart_setting_causes_no_write";
    let Some(mut it) = Workloads::start(test, "deployment/app").await else { return };
    let mut noted = it.done(None).await;
    it.create("deployment/app", true, json!({})).await;
    let secrets = it.rotation.secrets.clone();
    for is_rotated in [false, true] {
        if is_rotated {
            it.rotation.rotate().await;
            let before = noted.clone();
            it.marked("deployment/app", None).await;
            it.roll_out("deployment/app").await;
            noted = it.done(Some(&before)).await;
        }
        let stored = it.rotation.stored().await.body;
        let settings = json!({names::RESTART: "deployment/app", names::WINDOW: "1h"});
        // A fresh object, a stored object with replaced annotations, and an exported object.
        let mut fresh = stored.clone();
        fresh["metadata"] = json!({"name": "envoy", "annotations": settings});
        let mut read = stored.clone();
        read["metadata"]["annotations"] = settings.clone();
        read["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let mut exported = fresh.clone();
        exported["metadata"]["annotations"][names::RESTARTED] = json!("0123456789abcdef");
        for object in [fresh, read, exported] {
            // The first write makes the generator a manager of its fields.
            let mut version = None;
            for _ in 0..10 {
                let written = secrets.put("envoy", &object).await.ok();
                assert_eq!(written.annotation(names::RESTARTED), Some(&*noted));
                let now = written.resource_version().to_owned();
                if let Some(before) = version.replace(now.clone()) {
                    assert_eq!(now, before, "the generator or the keeper has written");
                }
            }
        }
    }
    assert_eq!(it.generation("deployment/app").await, 2, "created, and restarted once");
}

#[tokio::test]
async fn a_secret_that_joins_a_group_restarts_nothing_without_consent() {
    let test = "a_secret_that_joins_a_group_restarts_nothing_without_consent";
    let Some(mut it) = Workloads::start(test, "").await else { return };
    let secrets = it.rotation.secrets.clone();
    let group = json!({"metadata": {"annotations": {names::GROUP: "g"}}});
    secrets.patch("envoy", MERGE, "fieldManager=person", &group).await.ok();
    it.create("deployment/payments", true, json!({})).await;
    // A user who may create Secrets names the group of a Secret that the pods mount.
    let annotations = json!({names::RESTART: "deployment/payments", names::GROUP: "g"});
    let mut stranger = Rotation::begin(&secrets, "stranger", annotations).await;
    stranger.rotate().await;
    let event = it.setup.event(&stranger, "RestartFailed").await;
    let note = event["note"].as_str().unwrap();
    assert!(note.starts_with("deployment/payments: not restarted"), "{note}");
    // Nor does a rotation of the Secret that the pods mount: it names no workload.
    it.rotation.rotate().await;
    let version = stranger.stored().await.resource_version().to_owned();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(stranger.stored().await.resource_version(), version, "no loop");
    let refused = async || {
        let result = ["result=\"not_allowed\""];
        sum(&it.keeper.metrics().await, "ca_overlap_keeper_restarts_total", &result)
    };
    assert!((refused().await - 1.0).abs() < 0.1, "once for each change of trust");
    assert_eq!(it.generation("deployment/payments").await, 1);

    // With the consent of who may write the workload it is restarted.
    let allowed = json!({"metadata": {"annotations": {names::ALLOW_RESTART: "true"}}});
    it.patch("deployment/payments", allowed).await;
    let before = it.generation("deployment/payments").await;
    stranger.rotate().await;
    it.marked("deployment/payments", None).await;
    it.roll_out("deployment/payments").await;
    it.setup.event(&stranger, "Restarted").await;
    assert_eq!(it.generation("deployment/payments").await, before + 1);
}

#[tokio::test]
async fn two_secrets_of_a_group_restart_a_shared_workload_once() {
    let test = "two_secrets_of_a_group_restart_a_shared_workload_once";
    let Some(mut it) = Workloads::start(test, "deployment/app").await else { return };
    let secrets = it.rotation.secrets.clone();
    let settings = json!({names::RESTART: "deployment/app", names::GROUP: "g"});
    let mut other = Rotation::begin(&secrets, "other", settings.clone()).await;
    let patch = json!({"metadata": {
        "annotations": settings, "labels": {names::MODE: "bundle"},
    }});
    for name in ["envoy", "other"] {
        secrets.patch(name, MERGE, "fieldManager=person", &patch).await.ok();
    }
    let noted = async |name: &str, before: Option<&str>| {
        eventually(&format!("the end of the restart for {name}"), async || {
            let stored = secrets.get(name).await.ok();
            let noted = stored.annotation(names::RESTARTED)?.to_owned();
            (!noted.contains(' ') && Some(noted.as_str()) != before).then_some(noted)
        })
        .await
    };
    let [first, first_of_other] = [noted("envoy", None).await, noted("other", None).await];
    // The workload mounts one of the two Secrets, which names it, too. That is enough for the other.
    it.create("deployment/app", true, json!({})).await;
    it.rotation.rotate().await;
    other.rotate().await;
    it.marked("deployment/app", None).await;
    it.roll_out("deployment/app").await;
    let [one, two] =
        [noted("envoy", Some(&first)).await, noted("other", Some(&first_of_other)).await];
    assert_ne!(one, two);
    assert_eq!(it.generation("deployment/app").await, 2, "once for both");
    let annotations =
        it.workload("deployment/app").get().await["spec"]["template"]["metadata"]["annotations"]
            .clone();
    let marks = annotations.as_object().unwrap().iter();
    let mut marks: Vec<&str> = marks
        .filter(|(key, _)| key.starts_with(names::RESTARTED_FOR))
        .map(|(_, trust)| trust.as_str().unwrap())
        .collect();
    marks.sort_unstable();
    let mut both = [one.as_str(), two.as_str()];
    both.sort_unstable();
    assert_eq!(marks, both);
}

#[tokio::test]
async fn a_keeper_of_another_user_restarts_once_and_says_why_it_pauses() {
    let test = "a_keeper_of_another_user_restarts_once_and_says_why_it_pauses";
    let arguments = ["--keeper-user", "system:serviceaccount:other:keeper"];
    let Some(setup) = Setup::with(test, "keeper", &arguments).await else { return };
    let mut it = Workloads::on(setup, test, "deployment/app").await;
    let first = it.done(None).await;
    it.create("deployment/app", true, json!({})).await;
    it.rotation.rotate().await;
    let event = it.setup.event(&it.rotation, "AskFailed").await;
    assert!(event["note"].as_str().unwrap().contains("another --keeper-user"), "{event}");

    // Meanwhile the keeper looks at another Secret.
    let admissions =
        async || sum(&it.setup.cluster.metrics().await, "ca_overlap_admissions_total", &[]);
    let before = admissions().await;
    let mut other = Rotation::begin(&it.rotation.secrets, "other", json!({})).await;
    for rotations in 1..=3 {
        other.rotate().await;
        eventually("an Event about each rotation", async || {
            (it.setup.events(&other, "Overlapping").await.len() >= rotations).then_some(())
        })
        .await;
    }
    let more = admissions().await - before;
    assert!(more < 5.5, "{more} calls: a creation, a patch and three rotations are expected");
    assert_eq!(it.noted().await, Some(first), "the webhook lets nobody else write it");
    assert_eq!(it.generation("deployment/app").await, 2, "created, and restarted once");
    assert_eq!(it.setup.events(&it.rotation, "AskFailed").await.len(), 1);
}
