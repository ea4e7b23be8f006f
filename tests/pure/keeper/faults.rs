//! Faults that a real API server does not produce on demand: conflicts, overload, no answer, watches
//! that end. The real keeper runs against a store in memory. Its answers are scripted, and its
//! writes go through the webhook's own code. The clock is virtual.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use ca_overlap::admission::respond::{Installation, respond};
use ca_overlap::admission::review;
use ca_overlap::keeper::ca_bundles::CaBundles;
use ca_overlap::keeper::controller::Controller;
use ca_overlap::keeper::election::{Election, ElectionConfig};
use ca_overlap::keeper::events::Events;
use ca_overlap::keeper::metrics::KeeperMetrics;
use ca_overlap::keeper::pace::Pace;
use ca_overlap::keeper::reconcile::{Called, Reconciler};
use ca_overlap::keeper::secrets::Secrets;
use ca_overlap::keeper::workloads::Restarter;
use ca_overlap::metrics;
use ca_overlap::names;
use ca_overlap::overlap::outlook::Rules;
use ca_overlap::overlap::settings::Defaults;
use ca_overlap::overlap::staged::KeeperHealth;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use devtools::certs::{self, bundle};
use devtools::reviews;
use devtools::secrets::tls_secret;

/// What a PATCH of a Secret meets instead of a plain success.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Status(u16),
    /// The write is not done, and no answer comes.
    Silence,
    /// The write is done, and no answer comes.
    Lost,
}

#[derive(Default)]
struct Store {
    /// All objects by path.
    objects: BTreeMap<String, Value>,
    version: u64,
    watchers: Vec<(String, UnboundedSender<Result<String, Infallible>>)>,
    faults: VecDeque<Fault>,
    /// The statuses with which the next watches of Secrets are refused.
    refused_watches: VecDeque<u16>,
    /// The time of each PATCH of a Secret.
    patches: Vec<Instant>,
    reads: usize,
    lists: usize,
    /// The reasons of the Events.
    events: Vec<String>,
    /// Whom the webhook takes for the keeper; by default the keeper.
    keeper_user: Option<&'static str>,
}

/// An API server with the webhook, and one keeper that is the leader.
struct FakeApiServer {
    store: Arc<Mutex<Store>>,
    client: Client,
    begin: Instant,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

const COLLECTION: &str = "/api/v1/namespaces/n/secrets";

fn status(code: u16) -> Response<Body> {
    let text = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": "Scripted", "message": "scripted", "metadata": {},
    });
    Response::builder().status(code).body(Body::from(text.to_string())).unwrap()
}

fn found(object: &Value) -> Response<Body> {
    Response::new(Body::from(object.to_string()))
}

impl Store {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let event = json!({"type": "MODIFIED", "object": object}).to_string() + "\n";
        for (of, watcher) in &self.watchers {
            if path.contains(of.as_str()) {
                drop(watcher.unbounded_send(Ok(event.clone())));
            }
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn list(&mut self, kind: &str) -> Response<Body> {
        let items: Vec<&Value> =
            self.objects.iter().filter(|(path, _)| path.contains(kind)).map(|(_, o)| o).collect();
        let version = self.version.to_string();
        found(&json!({
            "kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version},
            "items": items,
        }))
    }

    /// A watch starts with what was written after the resource version that it names.
    fn watch(&mut self, kind: &str, query: &str) -> Response<Body> {
        let (sender, receiver) = unbounded();
        let from = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        let from: u64 = from.and_then(|from| from.parse().ok()).unwrap_or_default();
        let newer = |object: &Value| {
            let version = object["metadata"]["resourceVersion"].as_str().unwrap();
            version.parse::<u64>().unwrap() > from
        };
        for (path, object) in &self.objects {
            if path.contains(kind) && newer(object) {
                let event = json!({"type": "MODIFIED", "object": object}).to_string() + "\n";
                sender.unbounded_send(Ok(event)).unwrap();
            }
        }
        self.watchers.push((kind.to_owned(), sender));
        Response::new(Body::from_stream(receiver))
    }

    fn watchers_of_secrets(&self) -> usize {
        self.watchers.iter().filter(|(of, _)| of == "/secrets").count()
    }

    /// Ends all watches of Secrets with 410: the resource version is too old.
    fn expire_watches(&mut self) {
        let gone = json!({"type": "ERROR", "object": {
            "kind": "Status", "code": 410, "reason": "Expired", "message": "too old",
        }});
        for (_, watcher) in self.watchers.iter().filter(|(of, _)| of == "/secrets") {
            drop(watcher.unbounded_send(Ok(gone.to_string() + "\n")));
        }
        self.watchers.retain(|(of, _)| of != "/secrets");
    }

    fn patched(&mut self, path: &str, change: &Value) -> Response<Body> {
        let Some(old) = self.objects.get(path).cloned() else { return status(404) };
        let wanted = &change["metadata"]["resourceVersion"];
        if wanted.is_string() && *wanted != old["metadata"]["resourceVersion"] {
            return status(409);
        }
        let mut object = old.clone();
        json_patch::merge(&mut object, change);
        if path.contains("/secrets/") {
            reviewed(&mut object, &old, self.keeper_user);
        }
        let stored = self.put(path, object);
        found(&stored)
    }
}

/// Applies the webhook's patch to the keeper's write.
fn reviewed(object: &mut Value, old: &Value, keeper_user: Option<&str>) {
    let user = format!("system:serviceaccount:ca-overlap:{}", names::KEEPER_SERVICE_ACCOUNT);
    let review = reviews::update(old, object, &user);
    let body = serde_json::to_vec(&review).unwrap();
    let request = review::read(&body).ok().unwrap();
    let mut installation = Installation::new(Defaults::default(), names::NAMESPACE);
    if let Some(user) = keeper_user {
        user.clone_into(&mut installation.keeper_user);
    }
    let answer = respond(&request, &installation, KeeperHealth::Absent, Timestamp::now());
    if let Some(patch) = answer.patch {
        json_patch::patch(object, &patch).unwrap();
    }
}

async fn answer(store: Arc<Mutex<Store>>, request: Request<kube::client::Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let is_secret = path.contains("/secrets/");
    let fault = {
        let mut store = store.lock().unwrap();
        if head.method == Method::PATCH && is_secret {
            store.patches.push(Instant::now());
            store.faults.pop_front()
        } else {
            None
        }
    };
    match fault {
        Some(Fault::Status(code)) => return status(code),
        Some(Fault::Silence) => std::future::pending::<()>().await,
        Some(Fault::Lost) => {
            store.lock().unwrap().patched(path, &body);
            std::future::pending::<()>().await;
        }
        None => {}
    }
    let mut store = store.lock().unwrap();
    let kind = if path.contains("/leases") { "/leases" } else { "/secrets" };
    if head.method == Method::POST && path.contains("/events") {
        store.events.push(body["reason"].as_str().unwrap_or_default().to_owned());
        return found(&body);
    }
    if head.method == Method::POST {
        let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
        return found(&store.put(&path, body));
    }
    if head.method == Method::PATCH {
        return store.patched(path, &body);
    }
    if query.contains("watch=") {
        let refused = (kind == "/secrets").then(|| store.refused_watches.pop_front()).flatten();
        return refused.map_or_else(|| store.watch(kind, query), status);
    }
    if path.ends_with(kind) {
        store.lists += usize::from(kind == "/secrets");
        return store.list(kind);
    }
    store.reads += usize::from(is_secret);
    store.objects.get(path).map_or_else(|| status(404), found)
}

impl FakeApiServer {
    /// The first writes meet these faults.
    fn start(faults: &[Fault]) -> Self {
        let store = Arc::new(Mutex::new(Store {
            faults: faults.iter().copied().collect(),
            ..Store::default()
        }));
        let serving = store.clone();
        let service = tower::service_fn(move |request| {
            let store = serving.clone();
            async move { Ok::<_, Infallible>(answer(store, request).await) }
        });
        let client = Client::new(service, "n");
        let (stop, _) = watch::channel(false);
        Self { store, client, begin: Instant::now(), stop, tasks: JoinSet::new() }
    }

    /// Starts the keeper.
    fn start_keeper(&mut self) {
        let settings = ElectionConfig {
            namespace: "n".into(),
            lease: "keeper".into(),
            identity: "me".into(),
            duration: Duration::from_secs(15),
        };
        let metrics = KeeperMetrics::register(&mut metrics::registry());
        let (events, publisher) = Events::new(self.client.clone(), "me".into(), metrics.clone());
        tokio::spawn(publisher);
        let (election, leadership) = Election::new(self.client.clone(), settings);
        let reconciler = Reconciler {
            secrets: Secrets::new(self.client.clone(), leadership.clone()),
            restarter: Restarter::new(self.client.clone(), leadership.clone()),
            rules: Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) },
            group_wait: Duration::from_secs(360),
            pace: Pace::default(),
            ca_bundles: CaBundles::new(self.client.clone()),
            called: Called::default(),
            audit: None,
            leadership,
        };
        let (controller, _) = Controller::new(reconciler, events, metrics);
        self.tasks.spawn(controller.run(self.client.clone(), self.stop.subscribe()));
        self.tasks.spawn(election.run(self.stop.subscribe()));
    }

    /// Adds a Secret with a carried CA that has ended. Returns the `ca.crt` of its generator.
    fn add_due_secret(&self, name: &str) -> String {
        let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
        let mut object = tls_secret(name, &bundle(&[&new, &old]), &new.leaf("envoy"));
        let record = json!([{"sha256": old.sha256(), "since": "2026-01-01T00:00:00Z"}]);
        object["metadata"] = json!({
            "name": name, "namespace": "n", "uid": name, "managedFields": [{}],
            "labels": {names::PHASE: "overlap"},
            "annotations": {names::CARRIED: record.to_string(), names::WINDOW: "1h"},
        });
        self.store.lock().unwrap().put(&format!("{COLLECTION}/{name}"), object);
        new.pem
    }

    fn is_retired(&self, name: &str, own: &str) -> bool {
        use base64::Engine as _;
        let store = self.store.lock().unwrap();
        let secret = &store.objects[&format!("{COLLECTION}/{name}")];
        let is_own =
            secret["data"]["ca.crt"] == json!(base64::prelude::BASE64_STANDARD.encode(own));
        is_own && secret["metadata"]["annotations"][names::ASK].is_null()
    }

    /// Waits up to two hours of virtual time; gives the time since the start.
    async fn retired(&self, name: &str, own: &str) -> Duration {
        while !self.is_retired(name, own) {
            assert!(self.begin.elapsed() < Duration::from_secs(7200), "{name} is never retired");
            sleep(Duration::from_millis(10)).await;
        }
        self.begin.elapsed()
    }

    /// The pauses between the writes.
    fn pauses(&self) -> Vec<f64> {
        let store = self.store.lock().unwrap();
        store.patches.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_conflict_the_keeper_reads_again_and_retries_at_once() {
    let mut api = FakeApiServer::start(&[Fault::Status(409), Fault::Status(409)]);
    let own = api.add_due_secret("envoy");
    api.start_keeper();
    api.retired("envoy", &own).await;
    let pauses = api.pauses();
    assert!(pauses.len() == 2 && pauses.iter().all(|pause| *pause < 1.0), "{pauses:?}");
    assert!(api.store.lock().unwrap().reads >= 3, "each ask follows a read");
}

#[tokio::test(start_paused = true)]
async fn the_keeper_backs_off_from_a_failing_api_server() {
    let codes = [429, 500, 503, 504, 500];
    let faults: Vec<Fault> = codes.into_iter().map(Fault::Status).collect();
    let mut api = FakeApiServer::start(&faults);
    let own = api.add_due_secret("envoy");
    api.start_keeper();
    api.retired("envoy", &own).await;
    let pauses: Vec<f64> = api.pauses().iter().map(|pause| pause.floor()).collect();
    assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 15.0]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_times_out() {
    let mut api = FakeApiServer::start(&[Fault::Silence]);
    let own = api.add_due_secret("envoy");
    let other = api.add_due_secret("other");
    api.start_keeper();
    api.retired("envoy", &own).await;
    api.retired("other", &other).await;
    // Three writes: one got no answer, and the other Secret did not wait for it.
    let store = api.store.lock().unwrap();
    let [first, second, third] = store.patches[..] else { panic!("{:?}", store.patches) };
    assert!(second - first < Duration::from_secs(1), "the other one");
    let timeout = (third - first).as_secs_f64();
    assert!((10.0..13.0).contains(&timeout), "{timeout}");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_not_repeated() {
    let mut api = FakeApiServer::start(&[Fault::Lost]);
    let own = api.add_due_secret("envoy");
    api.start_keeper();
    api.retired("envoy", &own).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(api.store.lock().unwrap().patches.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_write_is_reported_once_and_delays_no_other_secret() {
    let forbidden = vec![Fault::Status(403); 60];
    let mut api = FakeApiServer::start(&forbidden);
    let own = api.add_due_secret("envoy");
    api.start_keeper();
    sleep(Duration::from_secs(3600)).await;
    let tries = api.store.lock().unwrap().patches.len();
    // Four a minute for about ten minutes, then one every five minutes.
    assert!((40..=56).contains(&tries), "{tries} in an hour");
    assert!(!api.is_retired("envoy", &own));
    let said = api.store.lock().unwrap().events.clone();
    assert!(said.iter().filter(|reason| *reason == "AskFailed").count() <= 1, "{said:?}");
    // Now the right is granted.
    api.store.lock().unwrap().faults.clear();
    let other = api.add_due_secret("other");
    let granted = Instant::now();
    api.retired("other", &other).await;
    assert!(granted.elapsed() < Duration::from_secs(5), "the forbidden Secret delays no other");
    api.retired("envoy", &own).await;
    assert!(granted.elapsed() <= Duration::from_secs(301));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_webhook_undoes_is_tried_again_after_a_pause() {
    let mut api = FakeApiServer::start(&[]);
    api.store.lock().unwrap().keeper_user = Some("system:serviceaccount:other:keeper");
    api.add_due_secret("envoy");
    let path = format!("{COLLECTION}/envoy");
    {
        let mut store = api.store.lock().unwrap();
        let mut secret = store.objects[&path].clone();
        secret["metadata"]["labels"] = json!({names::MODE: "bundle"});
        secret["metadata"]["annotations"] = json!({
            names::CARRIED: "[]", names::RESTART: "deployment/a", names::RESTARTED: "another",
        });
        store.put(&path, secret);
    }
    api.start_keeper();
    sleep(Duration::from_secs(50)).await;
    {
        let store = api.store.lock().unwrap();
        assert_eq!(store.patches.len(), 1, "{:?}", store.events);
        assert_eq!(store.events, ["AskFailed"]);
    }
    sleep(Duration::from_secs(3600)).await;
    let tries = api.store.lock().unwrap().patches.len();
    assert!((2..=6).contains(&tries), "{tries} in an hour");
    // Now the flags agree, and something changes.
    {
        let mut store = api.store.lock().unwrap();
        store.keeper_user = None;
        let secret = store.objects[&path].clone();
        store.put(&path, secret);
    }
    sleep(Duration::from_secs(50)).await;
    let store = api.store.lock().unwrap();
    let noted = store.objects[&path]["metadata"]["annotations"][names::RESTARTED].clone();
    assert_ne!(noted, "another", "the restart continues");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_is_restarted_and_misses_nothing() {
    let mut api = FakeApiServer::start(&[]);
    let first = api.add_due_secret("first");
    api.start_keeper();
    api.retired("first", &first).await;
    let lists = api.store.lock().unwrap().lists;
    // The watch ends, new ones are refused for a while, and a Secret is added meanwhile.
    api.store.lock().unwrap().refused_watches.extend([410, 500, 403, 429]);
    api.store.lock().unwrap().expire_watches();
    let missed = api.add_due_secret("missed");
    let gone = Instant::now();
    api.retired("missed", &missed).await;
    assert!(api.store.lock().unwrap().lists > lists, "it was listed");
    assert!(gone.elapsed() < Duration::from_secs(120), "{:?}", gone.elapsed());
    // The new watches, by label and of the metadata of all, show later Secrets.
    while api.store.lock().unwrap().watchers_of_secrets() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    let later = api.add_due_secret("later");
    let come = Instant::now();
    api.retired("later", &later).await;
    assert!(come.elapsed() < Duration::from_secs(5), "{:?}", come.elapsed());
}
