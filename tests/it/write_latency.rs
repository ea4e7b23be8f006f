//! What a write of a Secret costs through a real API server: without a webhook, with ours, and with
//! others. `make write-latency` runs it; docs/performance.md has the figures.
//!
//! Each way of installation has a namespace of its own. One client writes to one namespace after the
//! other, so that whatever else the machine does meets all of them alike.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::prelude::*;
use ca_overlap::names;
use devtools::certs::{self, Identity};
use devtools::control_plane::{ControlPlane, Supervised, render, serving};
use devtools::secrets::{MERGE, Secrets, secret, tls_secret};
use serde_json::{Value, json};

use crate::keeper::setup::{Setup, eventually};
use crate::support;

/// The label of a namespace that chooses its installation.
const LABEL: &str = "write-latency";
const NONE: &str = "none";
const AGAIN: &str = "none-again";
const BASE: &str = "base";
/// As `base`, and called for every update of a Secret.
const BARE: &str = "no-conditions";
const FULL: &str = "full";
const ALLOW_ALL: &str = "allow-all";
const POLICY: &str = "policy";
const GO: &str = "go";
const WAYS: [&str; 8] = [NONE, AGAIN, BASE, BARE, FULL, ALLOW_ALL, POLICY, GO];
/// Writes of each kind before the first that counts.
const WARM_UP: usize = 20;
const REGISTRATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

#[derive(Clone, Copy, Debug)]
enum Kind {
    Rotation,
    Label,
    Other,
}

struct Way {
    name: &'static str,
    secrets: Secrets,
    times: Vec<Duration>,
}

/// A Secret of this name, before and after its rotation.
type Written<'a> = &'a dyn Fn(&str, usize) -> Value;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make write-latency"]
async fn the_cost_of_a_write_through_the_api_server() {
    let test = "the_cost_of_a_write_through_the_api_server";
    let count: usize = variable("CA_OVERLAP_WRITES").to_str().unwrap().parse().unwrap();
    let staged = ["--staged", "--default-mode", "staged"];
    let setup = Setup::with(test, "full", &staged).await.expect("a control plane");
    let _keeper = setup.keeper_at_rest().await;
    let plane = &setup.cluster.plane;
    let mut ways = Vec::new();
    for name in WAYS {
        let secrets = setup.cluster.namespace_with(test, &json!({LABEL: name})).await;
        ways.push(Way { name, secrets, times: Vec::new() });
    }
    let _others = install(&setup, test).await;
    let pair = [certs::ca_named("CA"), certs::ca_named("CA")];
    let leaves = pair.each_ref().map(|ca| ca.leaf("api"));
    let written: Written<'_> = &|name, which| tls_secret(name, &pair[which].pem, &leaves[which]);
    wait_until_in_force(plane, &ways, written).await;

    println!("{count} writes of each kind, one after the other; milliseconds, p50 and p99");
    for kind in [Kind::Rotation, Kind::Label, Kind::Other] {
        for way in &ways {
            way.prepare(kind, count + WARM_UP, written).await;
        }
        for turn in 0..count + WARM_UP {
            for place in 0..ways.len() {
                let way = &mut ways[(turn + place) % WAYS.len()];
                let begin = Instant::now();
                way.write(kind, turn, written).await;
                if turn >= WARM_UP {
                    way.times.push(begin.elapsed());
                }
            }
        }
        report(kind, &mut ways);
        for way in &mut ways {
            way.check(kind, &pair).await;
            way.times.clear();
        }
    }
    let metrics = plane.metrics().await.unwrap();
    let failed = support::sum(&metrics, "apiserver_admission_webhook_fail_open_count", &[]);
    assert!(failed < 0.5, "{failed} calls of a webhook failed");
}

fn variable(name: &str) -> OsString {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: use make write-latency"))
}

impl Way {
    /// The Secret as its generator writes it. The webhook of `full` also serves `base`, which bundles.
    fn of(&self, mut secret: Value) -> Value {
        if [BASE, BARE].contains(&self.name) {
            secret["metadata"]["labels"] = json!({names::MODE: "bundle"});
        }
        secret
    }

    async fn prepare(&self, kind: Kind, count: usize, written: Written<'_>) {
        match kind {
            // A Secret rotates once, so that all rotations are alike.
            Kind::Rotation => {
                for turn in 0..count {
                    self.secrets.create(&self.of(written(&format!("tls-{turn}"), 0))).await.ok();
                }
            }
            Kind::Label => drop(self.secrets.create(&self.of(written("labelled", 0))).await.ok()),
            Kind::Other => drop(self.secrets.create(&other(0)).await.ok()),
        }
    }

    async fn write(&self, kind: Kind, turn: usize, written: Written<'_>) {
        let name = format!("tls-{turn}");
        let label = json!({"metadata": {"labels": {"turn": turn.to_string()}}});
        let answer = match kind {
            Kind::Rotation => self.secrets.put(&name, &self.of(written(&name, 1))).await,
            Kind::Label => self.secrets.patch("labelled", MERGE, "", &label).await,
            Kind::Other => self.secrets.put("other", &other(turn + 1)).await,
        };
        answer.ok();
    }

    /// Control: the installation has done its work, and no other one.
    async fn check(&self, kind: Kind, [old, new]: &[Identity; 2]) {
        let Kind::Rotation = kind else { return };
        let stored = self.secrets.get(&format!("tls-{WARM_UP}")).await.ok();
        let bundles = ![NONE, AGAIN, ALLOW_ALL].contains(&self.name);
        assert_eq!(stored.pem("ca.crt").matches("BEGIN").count(), 1 + usize::from(bundles));
        let waits = stored.data(names::PENDING_TLS_CRT).is_some();
        assert_eq!(waits, self.name == FULL, "{}", self.name);
        // The webhook in Go writes the same record.
        let is_recorded = stored.annotation(names::CARRIED).is_some();
        assert_eq!(is_recorded, [BASE, BARE, FULL, GO].contains(&self.name), "{}", self.name);
        assert!(stored.pem("ca.crt").starts_with(&new.pem) && new.pem != old.pem);
    }
}

fn other(turn: usize) -> Value {
    secret("other", "Opaque", &[("password", format!("{turn:2000}").as_bytes())])
}

fn report(kind: Kind, ways: &mut [Way]) {
    println!("{kind:?}");
    let mut without = 0.0;
    for way in ways {
        way.times.sort_unstable();
        let at = |share: usize| way.times[(way.times.len() - 1) * share / 100].as_secs_f64() * 1e3;
        let (median, tail) = (at(50), at(99));
        if way.name == NONE {
            without = median;
        }
        println!("  {:<14}{median:6.2} {tail:6.2}  {:.2} x", way.name, median / without);
    }
}

/// Registers each webhook and the policy for its namespace alone.
async fn install(setup: &Setup, test: &str) -> Vec<Supervised> {
    let plane = &setup.cluster.plane;
    let path = format!("{REGISTRATIONS}/{}", names::WEBHOOK_CONFIGURATION);
    let mut full = plane.json("GET", &path, &Value::Null).await.unwrap();
    let assets = support::assets(test).unwrap();
    let objects = render(&assets, &support::manifests().join("base")).await.unwrap();
    let is_it = |it: &&Value| it["kind"] == "MutatingWebhookConfiguration";
    let mut base = objects.iter().find(is_it).unwrap().clone();
    base["webhooks"][0]["clientConfig"] = full["webhooks"][0]["clientConfig"].clone();
    // Others have no match conditions.
    let mut unconditional = base.clone();
    unconditional["webhooks"][0].as_object_mut().unwrap().remove("matchConditions");
    register(plane, BASE, base).await;
    register(plane, BARE, unconditional.clone()).await;
    for entry in full["webhooks"].as_array_mut().unwrap() {
        only_in(&mut entry["namespaceSelector"], FULL);
    }
    plane.json("PUT", &path, &full).await.unwrap();

    let mut running = Vec::new();
    for (name, program) in [(ALLOW_ALL, "CA_OVERLAP_ALLOW_ALL"), (GO, "CA_OVERLAP_GO_PEER")] {
        let listen = SocketAddr::from((plane.next_cluster_ip().unwrap(), 8443));
        let serving = serving(&[listen.ip().to_string()]).unwrap();
        let write = |suffix: &str, text: &str| {
            plane.scratch().write(&format!("{name}{suffix}"), text).unwrap()
        };
        let (cert, key) = (write(".crt", &serving.certificate), write(".key", &serving.key));
        let mut arguments: Vec<OsString> = vec!["--listen".into(), listen.to_string().into()];
        arguments.extend(["--tls-cert".into(), cert.into(), "--tls-key".into(), key.into()]);
        let (program, scratch) = (PathBuf::from(variable(program)), plane.scratch().path());
        let log = scratch.join(format!("{name}.log"));
        running.push(Supervised::start(name, &program, arguments, &[], scratch, log).unwrap());
        let url = format!("https://{listen}/mutate");
        unconditional["webhooks"][0]["clientConfig"] =
            json!({"url": url, "caBundle": BASE64_STANDARD.encode(&serving.ca)});
        register(plane, name, unconditional.clone()).await;
    }
    let documented = fs::read_to_string("docs/comparison.md").unwrap();
    let policy = documented.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(policy).unwrap();
    only_in(&mut objects[1]["spec"]["matchResources"]["namespaceSelector"], POLICY);
    for (object, kind) in objects.iter().zip(["policies", "policybindings"]) {
        let path = format!("/apis/admissionregistration.k8s.io/v1/mutatingadmission{kind}");
        plane.json("POST", &path, object).await.unwrap();
    }
    running
}

/// Registers a webhook of one entry for its namespace alone.
async fn register(plane: &ControlPlane, name: &str, mut registration: Value) {
    registration["metadata"] = json!({"name": name});
    registration["webhooks"][0]["name"] = json!(format!("{name}.example.com"));
    only_in(&mut registration["webhooks"][0]["namespaceSelector"], name);
    plane.json("POST", REGISTRATIONS, &registration).await.unwrap();
}

fn only_in(selector: &mut Value, way: &str) {
    let mut expressions = selector["matchExpressions"].as_array().cloned().unwrap_or_default();
    expressions.push(json!({"key": LABEL, "operator": "In", "values": [way]}));
    selector["matchExpressions"] = expressions.into();
}

/// Waits until the API server calls each webhook and the policy, and each for its namespace alone.
async fn wait_until_in_force(plane: &ControlPlane, ways: &[Way], written: Written<'_>) {
    for way in ways {
        way.secrets.create(&way.of(written("trial", 0))).await.ok();
        eventually(&format!("the installation of {}", way.name), async || {
            let tried =
                way.secrets.put_with("trial", "dryRun=All", &written("trial", 1)).await.ok();
            let metrics = plane.metrics().await.unwrap();
            let calls = "apiserver_admission_webhook_request_total";
            let is_called = |name| support::sum(&metrics, calls, &[name]) > 0.5;
            let is_bundled = tried.pem("ca.crt").matches("BEGIN").count() == 2;
            let is_ours = tried.annotation(names::CARRIED).is_some();
            let is_staged = tried.data(names::PENDING_TLS_CRT).is_some();
            let is_in_force = match way.name {
                BASE | BARE => is_ours && !is_staged,
                FULL => is_staged,
                ALLOW_ALL => is_called("allow-all.example.com"),
                GO => is_bundled && is_called("go.example.com"),
                POLICY => is_bundled && !is_ours,
                _ => !is_bundled,
            };
            is_in_force.then_some(())
        })
        .await;
    }
}
