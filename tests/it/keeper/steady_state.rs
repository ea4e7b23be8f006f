//! The steady state needs no write: a generator repeats its write every second, by PUT and by
//! server-side apply, and no `resourceVersion` changes. It runs for a minute, and for ten minutes
//! in `make quiet-full`.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ca_overlap::names;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::setup::{LEASE, Rotation, Setup, eventually};
use crate::support::sum;
use devtools::certs::{self, Identity, bundle};
use devtools::secrets::{Answer, MERGE, Secrets, secret, tls_secret};

const SECOND: Duration = Duration::from_secs(1);

/// A generator that does not know ca-overlap and writes each second.
struct Generator {
    name: &'static str,
    applies: bool,
    ca: Identity,
    leaf: Identity,
}

impl Generator {
    fn object(&self) -> Value {
        tls_secret(self.name, &self.ca.pem, &self.leaf)
    }

    async fn write(&self, secrets: &Secrets) -> Answer {
        if self.applies {
            secrets.apply(self.name, "helm", false, &self.object()).await.ok()
        } else {
            secrets.put(self.name, &self.object()).await.ok()
        }
    }
}

/// A generator after one rotation: its Secret carries a CA for 24 hours and, if `mode` is staged,
/// holds a waiting leaf.
async fn generator(secrets: &Secrets, name: &'static str, applies: bool, mode: &str) -> Generator {
    let old = certs::ca_named("CA1");
    let leaf = old.leaf("envoy");
    let mut generator = Generator { name, applies, ca: old, leaf };
    if applies {
        generator.write(secrets).await;
    } else {
        secrets.create(&generator.object()).await.ok();
    }
    let patch = json!({"metadata": {
        "labels": {names::MODE: mode}, "annotations": {names::WINDOW: "24h", names::KEEP: "2"},
    }});
    secrets.patch(name, MERGE, "fieldManager=person", &patch).await.ok();
    let new = certs::ca_named("CA2");
    let first = std::mem::replace(&mut generator.ca, new);
    generator.leaf = generator.ca.leaf("envoy");
    let rotated = generator.write(secrets).await;
    assert_eq!(rotated.pem("ca.crt"), bundle(&[&generator.ca, &first]));
    let phase = if mode == "staged" { "staged" } else { "overlap" };
    assert_eq!(rotated.label(names::PHASE), Some(phase));
    generator
}

/// The `resourceVersion` of each Secret, by name.
pub async fn versions(secrets: &Secrets) -> BTreeMap<String, String> {
    let list = secrets.request("GET", "", "", None, Vec::new()).await.ok();
    let pair = |item: &Value| {
        let text = |key: &str| item["metadata"][key].as_str().unwrap().to_owned();
        (text("name"), text("resourceVersion"))
    };
    list.body["items"].as_array().unwrap().iter().map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_that_reapplies_every_second_changes_nothing() {
    let test = "a_generator_that_reapplies_every_second_changes_nothing";
    let seconds: u32 = std::env::var("CA_OVERLAP_QUIET").map_or(60, |text| text.parse().unwrap());
    let Some((setup, keeper)) = Setup::at_rest(test).await else { return };
    let secrets = setup.cluster.namespace(test).await;
    let generators = [
        generator(&secrets, "put", false, "bundle").await,
        generator(&secrets, "apply", true, "bundle").await,
        generator(&secrets, "put-staged", false, "staged").await,
        generator(&secrets, "apply-staged", true, "staged").await,
    ];
    // Another Secret has no `ca.crt`.
    let other = secret("other", "Opaque", &[("key", b"1")]);
    secrets.create(&other).await.ok();
    let watched = f64::from(u32::try_from(generators.len()).unwrap());
    eventually("all Secrets watched", async || {
        let metrics = keeper.metrics().await;
        (sum(&metrics, "ca_overlap_keeper_secrets", &[]) >= watched).then_some(())
    })
    .await;
    let before = versions(&secrets).await;
    let asks = async || sum(&keeper.metrics().await, "ca_overlap_keeper_asks_total", &[]);
    let asked = asks().await;
    let calls = async || sum(&setup.cluster.metrics().await, "ca_overlap_admissions_total", &[]);
    let called = calls().await;

    let begin = Instant::now();
    let mut clock = interval(SECOND);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writes = 0;
    for _ in 0..seconds {
        clock.tick().await;
        for generator in &generators {
            generator.write(&secrets).await;
            writes += 1;
        }
        secrets.put("other", &other).await.ok();
    }
    assert_eq!(versions(&secrets).await, before, "something was written");
    assert!((asks().await - asked).abs() < 0.5, "the keeper has made an ask");
    // Each write differs from the stored object, so the API server has called the webhook.
    let answered = calls().await - called;
    assert!(answered >= f64::from(writes) - 0.5, "{answered} of {writes}");
    println!(
        "{seconds} s: {writes} writes of {watched} Secrets, none stored, in {:.0} s, \
         {answered:.0} calls",
        begin.elapsed().as_secs_f64()
    );

    // The control: a new CA changes a version at once.
    let mut rotation =
        Rotation { secrets: secrets.clone(), name: "apply".into(), generation: Vec::new() };
    rotation.rotate().await;
    let after = versions(&secrets).await;
    let changed: Vec<&String> = after.keys().filter(|key| after[*key] != before[*key]).collect();
    assert_eq!(changed, ["apply"]);
    // The keeper has led all the time.
    let lease = setup.cluster.plane.json("GET", LEASE, &Value::Null).await.unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], json!(keeper.identity));
    let stored = secrets.get("put-staged").await.ok();
    let waiting = stored.data(names::PENDING_TLS_CRT).unwrap();
    assert_eq!(BASE64_STANDARD.encode(waiting), BASE64_STANDARD.encode(&generators[2].leaf.pem));
}
