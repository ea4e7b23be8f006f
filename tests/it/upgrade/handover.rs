//! What one edition has written on Secrets, the other one continues. In between no program runs.

use ca_overlap::names;
use devtools::certs::bundle;
use devtools::secrets::{Answer, MERGE, Secrets, without_uids};
use serde_json::{Value, json};

use super::setup::{
    Edition, Generator, How, Installation, assert_at_rest, is_staged, record, unstaged,
};
use crate::keeper::promote::wait_for_lease;
use crate::keeper::setup::{Keeper, eventually};
use crate::keeper::workload::Workload;

const STAGED: &str = "staged";
/// The settle time of a keeper that must not promote in a test.
const NEVER: &str = "1h";
const WEBHOOK: [&str; 3] = ["--staged", "--settle", NEVER];

#[tokio::test]
#[ignore = "needs an earlier build: make upgrade-test"]
async fn an_upgrade_continues_what_the_earlier_edition_began() {
    let test = "an_upgrade_continues_what_the_earlier_edition_began";
    hand_over(Edition::Earlier, Edition::Current, test).await;
}

#[tokio::test]
#[ignore = "needs an earlier build: make upgrade-test"]
async fn a_rollback_continues_what_this_edition_began() {
    let test = "a_rollback_continues_what_this_edition_began";
    hand_over(Edition::Current, Edition::Earlier, test).await;
}

/// One Secret for each state that an edition can leave behind.
struct States {
    /// It carries its previous CA.
    bundled: Generator,
    /// It does so for an hour.
    window: Generator,
    /// Its previous CA is distrusted.
    distrusted: Generator,
    /// It has settings, and was never rotated.
    settings: Generator,
    /// Its leaf has waited, and serves.
    promoted: Generator,
    /// A leaf waits.
    waiting: Generator,
    /// A leaf waits that took the place of another one.
    moved: Generator,
    /// Its workload has restarted.
    restarted: Generator,
    /// The rollout of its workload is not complete.
    rolling: Generator,
}

impl States {
    fn all(&self) -> [&Generator; 9] {
        [
            &self.bundled,
            &self.window,
            &self.distrusted,
            &self.settings,
            &self.promoted,
            &self.waiting,
            &self.moved,
            &self.restarted,
            &self.rolling,
        ]
    }
}

async fn hand_over(from: Edition, to: Edition, test: &str) {
    let Some(mut it) = Installation::of(from, test).await else { return };
    let listen = it.cluster.port_443();
    let mut webhook = it.webhook(from, listen, &WEBHOOK).await;
    webhook.ready().await.unwrap();
    it.cluster.plane.registration_in_force().await.unwrap();
    let secrets = it.cluster.namespace(test).await;
    let (states, keeper) = begin(&mut it, from, &secrets).await;
    let mut before = Vec::new();
    for generator in states.all() {
        before.push(generator.stored().await);
    }
    drop(keeper);
    drop(webhook);

    it.apply(to).await;
    let mut webhook = it.webhook(to, listen, &WEBHOOK).await;
    webhook.ready().await.unwrap();
    it.cluster.plane.registration_in_force().await.unwrap();
    let keeper = it.keeper(to, NEVER).await;
    wait_for_lease(&it.cluster.namespace("trial").await).await;
    // Each generator repeats its write. The first time, an entry may be completed.
    for (generator, before) in states.all().into_iter().zip(&before) {
        let once = generator.write().await.ok();
        assert_unchanged(&once, before, &generator.name);
        // The earlier edition does not know this one's marks on pod templates: to it a restart that
        // is under way was reverted, and it waits for it no longer.
        let is_forgotten = to == Edition::Earlier && generator.name == "rolling";
        if !is_forgotten {
            let noted = |answer: &Answer| answer.annotation(names::RESTARTED).map(str::to_owned);
            assert_eq!(noted(&once), noted(before), "{}", generator.name);
        }
        let again = generator.write().await.ok();
        let versions = [&once, &again].map(Answer::resource_version);
        assert_eq!(versions[0], versions[1], "{}: a re-apply writes nothing", generator.name);
    }
    continue_all(&mut it, states, keeper, to).await;
}

/// Asserts that data, settings and dates are as before.
fn assert_unchanged(after: &Answer, before: &Answer, name: &str) {
    assert_eq!(after.body["data"], before.body["data"], "{name}");
    assert_eq!(after.body["metadata"]["labels"], before.body["metadata"]["labels"], "{name}");
    let without_uid = |key: &str, answer: &Answer| {
        // This edition begins an empty record where a setting is brought.
        without_uids(serde_json::from_str(answer.annotation(key).unwrap_or("[]")).unwrap())
    };
    for key in [names::CARRIED, names::STAGED] {
        assert_eq!(without_uid(key, after), without_uid(key, before), "{name}: {key}");
    }
    for key in names::SETTINGS.into_iter().filter(|key| *key != names::RESTARTED) {
        assert_eq!(after.annotation(key), before.annotation(key), "{name}: {key}");
    }
}

/// Brings a Secret into each state. The keeper that is returned promotes nothing.
async fn begin(it: &mut Installation, from: Edition, secrets: &Secrets) -> (States, Keeper) {
    let keeper = it.keeper(from, "1s").await;
    wait_for_lease(&it.cluster.namespace("trial").await).await;
    let plain = async |name: &str, how: How, annotations: Value| {
        Generator::begin(secrets, name, how, json!({}), annotations).await
    };
    let staged = async |name: &str, how: How| {
        Generator::begin(secrets, name, how, json!({names::MODE: STAGED}), json!({})).await
    };
    let mut promoted = staged("promoted", How::Put).await;
    assert!(is_staged(&promoted.rotate().await));
    unstaged(&promoted).await;
    let restart = |name: &str| json!({names::RESTART: format!("deployment/{name}")});
    let mut restarted = plain("restarted", How::Apply, restart("restarted")).await;
    let mut rolling = plain("rolling", How::Apply, restart("rolling")).await;
    for generator in [&mut restarted, &mut rolling] {
        let name = format!("deployment/{}", generator.name);
        let workload = workload(it, generator, &name);
        workload.create(Some(&generator.name), &json!({})).await;
        generator.rotate().await;
        progress(generator, |noted| noted.contains(" started")).await;
    }
    workload(it, &restarted, "deployment/restarted").roll_out().await;
    progress(&restarted, |noted| !noted.contains(' ')).await;
    drop(keeper);

    let keeper = it.keeper(from, NEVER).await;
    wait_for_lease(&it.cluster.namespace("trial").await).await;
    let mut waiting = staged("waiting", How::Put).await;
    let mut moved = staged("moved", How::Apply).await;
    for generator in [&mut waiting, &mut moved] {
        assert!(is_staged(&generator.rotate().await), "{}", generator.name);
    }
    let stored = moved.rotate().await;
    assert_eq!((moved.served(&stored), moved.cas(&stored)), (1, vec![3, 1]));
    let mut bundled = plain("bundled", How::Put, json!({})).await;
    let mut window = plain("window", How::Apply, json!({names::WINDOW: "1h"})).await;
    let mut distrusted = plain("distrusted", How::Patch, json!({})).await;
    for generator in [&mut bundled, &mut window, &mut distrusted] {
        let stored = generator.rotate().await;
        assert_eq!(generator.cas(&stored), [2, 1], "{}", generator.name);
    }
    let old = distrusted.pairs[0].0.sha256();
    let patch = json!({"metadata": {"annotations": {names::DISTRUST: old}}});
    let stored = secrets.patch("distrusted", MERGE, "fieldManager=person", &patch).await.ok();
    assert_eq!(distrusted.cas(&stored), [2]);
    let settings = plain("settings", How::Put, json!({names::KEEP: "2"})).await;
    let states = States {
        bundled,
        window,
        distrusted,
        settings,
        promoted,
        waiting,
        moved,
        restarted,
        rolling,
    };
    (states, keeper)
}

/// Takes each state further, with the programs of the other edition.
async fn continue_all(it: &mut Installation, states: States, keeper: Keeper, to: Edition) {
    let States {
        mut bundled,
        mut window,
        mut distrusted,
        mut settings,
        mut promoted,
        waiting,
        moved,
        restarted,
        rolling,
    } = states;
    for generator in [&mut bundled, &mut promoted, &mut distrusted] {
        let stored = generator.rotate().await;
        let name = &generator.name;
        assert!(generator.cas(&stored).starts_with(&[3, 2]), "{name}: {stored:?}");
        assert_eq!(generator.cas(&stored).len(), 2, "{name}");
    }
    let stored = settings.rotate().await;
    assert_eq!(settings.cas(&stored), [2, 1]);
    let stored = settings.rotate().await;
    assert_eq!(settings.cas(&stored), [3, 2, 1], "keep is still 2");
    // A shorter window ends what the other edition began to carry, in the same write.
    let patch = json!({"metadata": {"annotations": {names::WINDOW: "1s"}}});
    eventually("the end of the window", async || {
        let stored = window.secrets.patch("window", MERGE, "fieldManager=person", &patch).await;
        (window.cas(&stored.ok()) == [2]).then_some(())
    })
    .await;
    let stored = window.rotate().await;
    assert_eq!(window.cas(&stored), [3, 2]);

    // A restart that was complete is not repeated, and one in flight is followed to its end.
    workload(it, &rolling, "deployment/rolling").roll_out().await;
    progress(&rolling, |noted| !noted.contains(' ')).await;
    for generator in [&restarted, &rolling] {
        let name = format!("deployment/{}", generator.name);
        assert_eq!(workload(it, generator, &name).generation().await, 2, "{name} restarted once");
    }
    drop(keeper);
    let _keeper = it.keeper(to, "1s").await;
    for generator in [&promoted, &waiting, &moved] {
        let stored = unstaged(generator).await;
        assert_at_rest(generator, &stored);
    }
    let (one, other) = (waiting.stored().await, moved.stored().await);
    let pem = |generator: &Generator, numbers: &[usize]| {
        bundle(&numbers.iter().map(|at| &generator.pairs[at - 1].0).collect::<Vec<_>>())
    };
    assert_eq!(one.pem("ca.crt"), pem(&waiting, &[2, 1]));
    assert_eq!(other.pem("ca.crt"), pem(&moved, &[3, 1]));
    for generator in [&bundled, &distrusted, &settings, &restarted, &rolling] {
        assert_at_rest(generator, &generator.stored().await);
    }
    if to == Edition::Current {
        for generator in [&bundled, &settings, &waiting, &moved, &restarted, &rolling] {
            let stored = generator.stored().await;
            let uid = &stored.body["metadata"]["uid"];
            let entries = record(&stored);
            assert!(!entries.is_empty(), "{}", generator.name);
            assert!(entries.iter().all(|it| it["uid"] == *uid), "{}: {entries:?}", generator.name);
        }
    }
}

fn workload<'a>(it: &'a Installation, generator: &'a Generator, name: &'a str) -> Workload<'a> {
    Workload { plane: &it.cluster.plane, namespace: &generator.secrets.namespace, name }
}

/// Waits until the noted progress of a restart `is` so.
async fn progress(generator: &Generator, is: impl Fn(&str) -> bool) {
    eventually(&format!("the restart for {}", generator.name), async || {
        let stored = generator.stored().await;
        let noted = stored.annotation(names::RESTARTED)?;
        is(noted).then_some(())
    })
    .await;
}
