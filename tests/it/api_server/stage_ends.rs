//! Each way in which a stage ends, with the webhook running and with the webhook down in between.
//! In all cases the pair in service is complete, it is the one that the generator means, and no
//! waiting key is left.

use base64::prelude::*;
use ca_overlap::names;
use http::StatusCode;
use serde_json::{Value, json};

use super::asks::{ask, keeper, owners_of};
use super::setup::{NAME, Setup};
use super::staged::{apply, grant_and_lease, pairs, staged, values};
use crate::support::Cluster;
use devtools::certs::Identity;
use devtools::certs::sha256;
use devtools::secrets::{Answer, MERGE};

/// An event for a Secret in which a leaf of CA2 waits while a leaf of CA1 is in service.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// The keeper asks to promote.
    Promoted,
    /// The generator applies the waiting pair again.
    AppliedAgain,
    /// The generator PUTs the waiting pair as a fresh object, without our keys.
    PutAgain,
    /// The generator goes back to the pair in service.
    WrittenBack,
    /// The generator rotates again, by an apply.
    RotatedAgain,
    /// A patch brings another leaf alone.
    LeafAlone,
    /// A person changes the mode.
    Mode,
    /// A person distrusts the CA of the leaf in service.
    Distrust,
    /// A person makes the Secret immutable.
    Immutable,
    /// A person removes `ca.crt`.
    NoCa,
    /// A person adds a keystore.
    OtherKey,
    /// A person removes the waiting key.
    HalfAPair,
    /// A controller removes all labels and annotations.
    Wiped,
}

impl End {
    const ALL: [Self; 13] = [
        Self::Promoted,
        Self::AppliedAgain,
        Self::PutAgain,
        Self::WrittenBack,
        Self::RotatedAgain,
        Self::LeafAlone,
        Self::Mode,
        Self::Distrust,
        Self::Immutable,
        Self::NoCa,
        Self::OtherKey,
        Self::HalfAPair,
        Self::Wiped,
    ];

    /// The pair that waits afterwards, if the stage continues when the webhook sees the event.
    fn goes_on(self, it: &Staged) -> Option<&Identity> {
        match self {
            Self::AppliedAgain | Self::PutAgain | Self::HalfAPair | Self::Wiped => Some(&it.new),
            Self::RotatedAgain => Some(&it.third),
            _ => None,
        }
    }

    /// The pair in service at the end. `is_seen`: whether the webhook saw the event.
    fn served(self, it: &Staged, is_seen: bool) -> &Identity {
        match self {
            Self::WrittenBack => &it.old,
            // An incomplete pair cannot be promoted.
            Self::HalfAPair if !is_seen => &it.old,
            Self::RotatedAgain | Self::LeafAlone => &it.third,
            _ => &it.new,
        }
    }

    async fn happens(self, it: &Staged) -> Answer {
        let setup = &it.setup;
        let patch = |patch: Value| async move {
            setup.secrets.patch(NAME, MERGE, "fieldManager=person", &patch).await.ok()
        };
        let encoded = |text: &str| BASE64_STANDARD.encode(text);
        match self {
            Self::Promoted => {
                let print = sha256(it.new.pem.as_bytes());
                ask(&it.keeper, &format!("promote {print} #1")).await.ok()
            }
            Self::AppliedAgain => apply(setup, "CA2", &it.new).await,
            Self::PutAgain => setup.secrets.put(NAME, &setup.fresh("CA2", &it.new)).await.ok(),
            Self::WrittenBack => setup.secrets.put(NAME, &setup.fresh("CA1", &it.old)).await.ok(),
            Self::RotatedAgain => apply(setup, "CA3", &it.third).await,
            Self::LeafAlone => {
                let (crt, key) = (encoded(&it.third.pem), encoded(&it.third.key));
                patch(json!({"data": {"tls.crt": crt, "tls.key": key}})).await
            }
            Self::Mode => {
                patch(json!({"metadata": {"labels": {"ca-overlap.dev/mode": "bundle"}}})).await
            }
            Self::Distrust => {
                let print = sha256(&setup.ca("CA1").der);
                patch(json!({"metadata": {"annotations": {"ca-overlap.dev/distrust": print}}}))
                    .await
            }
            Self::Immutable => patch(json!({"immutable": true})).await,
            Self::NoCa => patch(json!({"data": {"ca.crt": null}})).await,
            Self::OtherKey => patch(json!({"data": {"keystore.p12": encoded("store")}})).await,
            Self::HalfAPair => patch(json!({"data": {"pending.tls.key": null}})).await,
            Self::Wiped => {
                let labels = json!({names::MODE: null, names::PHASE: null});
                let annotations = json!({names::STAGED: null, names::CARRIED: null});
                patch(json!({"metadata": {"labels": labels, "annotations": annotations}})).await
            }
        }
    }
}

/// A staged Secret.
struct Staged {
    setup: Setup,
    keeper: devtools::secrets::Secrets,
    old: Identity,
    new: Identity,
    third: Identity,
}

impl Staged {
    /// `third` is from CA3 if it comes with a rotation, else from CA2.
    async fn begin(cluster: &Cluster, end: End) -> Self {
        let (setup, old, new) = staged(cluster).await;
        let keeper = keeper(cluster, &setup.secrets.namespace).await;
        let third = setup.leaf(if end == End::RotatedAgain { "CA3" } else { "CA2" });
        Self { setup, keeper, old, new, third }
    }

    /// Writes a label, which changes nothing and is allowed on an immutable Secret.
    async fn touch(&self) -> Answer {
        let touch = json!({"metadata": {"labels": {"ca-overlap.dev/phase": "touched"}}});
        self.setup.secrets.patch(NAME, MERGE, "", &touch).await.ok()
    }
}

/// Asserts that one complete pair is left, and no state of a stage.
fn assert_ended(answer: &Answer, served: &Identity, what: &str) {
    assert_eq!(pairs(answer), values(served, None), "{what}");
    assert_eq!(answer.annotation("ca-overlap.dev/staged"), None, "{what}");
    assert_ne!(answer.label("ca-overlap.dev/phase"), Some("staged"), "{what}");
    assert_eq!(answer.annotation("ca-overlap.dev/ask"), None, "{what}");
}

#[tokio::test]
async fn every_end_of_a_stage_leaves_a_complete_pair_and_no_waiting_key() {
    let test = "every_end_of_a_stage_leaves_a_complete_pair_and_no_waiting_key";
    let Some(cluster) = Cluster::without_webhook(test).await else { return };
    grant_and_lease(&cluster).await;
    cluster.start_webhook("webhook", cluster.port_443(), &["--staged"]).await.unwrap();

    // The webhook runs while the event happens.
    for end in End::ALL {
        let it = Staged::begin(&cluster, end).await;
        let answer = end.happens(&it).await;
        if let Some(waiting) = end.goes_on(&it) {
            assert_eq!(pairs(&answer), values(&it.old, Some(waiting)), "{end:?}");
            // A person ends the stage.
            End::Mode.happens(&it).await;
        }
        let stored = it.setup.secrets.get(NAME).await.ok();
        assert_ended(&stored, end.served(&it, true), &format!("{end:?}, seen"));
        if end == End::Promoted {
            assert_eq!(owners_of(&stored, "f:tls.crt"), [Value::from("helm")]);
        }
    }

    // The webhook is down while the event happens.
    let mut waiting = Vec::new();
    for end in End::ALL {
        waiting.push((end, Staged::begin(&cluster, end).await));
    }
    let mut webhook = cluster.webhook.lock().await.take().unwrap();
    webhook.process().signal("KILL");
    drop(webhook);
    for (end, it) in &waiting {
        let answer = end.happens(it).await;
        let key = answer.data("pending.tls.key").is_some();
        assert_eq!(
            key,
            !matches!(end, End::PutAgain | End::WrittenBack | End::HalfAPair),
            "{end:?}"
        );
    }
    cluster.start_webhook("webhook", cluster.port_443(), &["--staged"]).await.unwrap();
    for (end, it) in &waiting {
        check_missed(*end, it).await;
    }
}

/// Asserts what the first writes after the outage do.
async fn check_missed(end: End, it: &Staged) {
    let what = format!("{end:?}, missed");
    let mut stored = it.touch().await;
    if end == End::Promoted {
        // The missed ask has no effect; a new ask has.
        assert_eq!(pairs(&stored), values(&it.old, Some(&it.new)), "{what}");
        assert_eq!(stored.annotation("ca-overlap.dev/ask"), None);
        let print = sha256(it.new.pem.as_bytes());
        stored = ask(&it.keeper, &format!("promote {print} #2")).await.ok();
    }
    if end == End::Immutable {
        // The data of an immutable Secret cannot change any more.
        let patch = json!({"data": {"pending.tls.key": null}});
        let refused = it.setup.secrets.patch(NAME, MERGE, "", &patch).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(pairs(&stored), values(&it.old, Some(&it.new)), "{what}");
        return;
    }
    assert_ended(&stored, end.served(it, false), &what);
    let again = it.touch().await;
    assert_eq!(pairs(&again), pairs(&stored), "{what}: another write changes nothing");
}
