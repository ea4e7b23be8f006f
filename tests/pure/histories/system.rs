//! One Secret, a webhook that reviews its writes, and a keeper that reconciles it after each.

use devtools::certs::{self, Identity};
use devtools::reviews;
use devtools::secrets::without_uids;
use std::sync::LazyLock;
use std::time::Duration;

use base64::prelude::*;
use ca_overlap::admission::respond::{Installation, respond};
use ca_overlap::admission::review;
use ca_overlap::keeper::memory::Remembered;
use ca_overlap::kubernetes::secret_view::SecretView;
use ca_overlap::kubernetes::stage_end;
use ca_overlap::names;
use ca_overlap::overlap::announcement::Announcement;
use ca_overlap::overlap::ask::{Ask, nonce};
use ca_overlap::overlap::distrust::FormerDistrust;
use ca_overlap::overlap::outlook::{Due, Rules, outlook};
use ca_overlap::overlap::settings::Defaults;
use ca_overlap::overlap::stage_end::{StageEnd, stage_end};
use ca_overlap::overlap::staged;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Four roots of one subject, as legacy generators make them.
pub static CAS: LazyLock<Vec<Identity>> = LazyLock::new(|| (0..4).map(|_| certs::ca()).collect());
/// Three leaves of each.
static LEAVES: LazyLock<Vec<String>> = LazyLock::new(|| {
    CAS.iter().flat_map(|ca| (0..LEAFS_OF_EACH).map(|_| certs::leaf(ca, true).pem)).collect()
});
pub const LEAFS_OF_EACH: usize = 3;
pub const SETTLE: Duration = Duration::from_secs(120);
/// How long the keeper waits for the webhook before it ends a stage itself.
pub const GROUP_WAIT: Duration = Duration::from_secs(360);
/// More asks in a row are a loop.
const MAX_ASKS: usize = 8;

const KEEPER: &str = "system:serviceaccount:ca-overlap:ca-overlap-keeper";
const GENERATOR: &str = "system:serviceaccount:gateway:certgen";

/// The CA that issued a leaf.
pub fn issuer(leaf: usize) -> usize {
    leaf / LEAFS_OF_EACH
}

/// A fault that is injected to show that the laws detect it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// The keeper never asks to retire.
    NeverRetires,
    /// The keeper never asks to promote.
    NeverPromotes,
    /// The webhook appends nothing.
    CarriesNothing,
    /// The webhook ignores distrust.
    TrustsAll,
    /// The webhook ignores what is announced.
    AnnouncesNothing,
    /// The waiting pair gets the key of the pair in service.
    MixesKeys,
    /// The next write drops the waiting pair.
    ForgetsPairs,
    /// The ask stays on the Secret.
    LeavesAsks,
    /// The keeper never ends a stage without the webhook.
    WaitsForEver,
    /// Where the keeper ends a stage itself, it drops the waiting pair.
    DropsPairs,
}

/// An entry of the record.
#[derive(PartialEq)]
pub struct Carried {
    pub ca: usize,
    pub since: Timestamp,
    pub until: Option<Timestamp>,
    pub is_announced: bool,
    pub by_person: bool,
}

pub struct System {
    pub stored: Value,
    pub now: Timestamp,
    /// Whether the webhook runs and is registered.
    pub is_webhook_up: bool,
    /// Whether the namespace is opted out.
    pub is_opted_out: bool,
    pub is_keeper_up: bool,
    /// The keeper's health as the webhook sees it.
    pub health: staged::KeeperHealth,
    fault: Fault,
    /// Since when the keeper's asks to end the stage are not seen.
    unseen_since: Option<Timestamp>,
    /// The keeper's memory.
    memory: Option<Remembered>,
    /// How many objects were created; the number is the uid.
    objects: usize,
    installation: Installation,
}

/// The announcement of a CA.
pub fn announcement(ca: usize, until: Option<Timestamp>) -> Announcement {
    Announcement { der: CAS[ca].der.to_vec(), until }
}

fn encoded(text: &str) -> Value {
    BASE64_STANDARD.encode(text).into()
}

/// Sets the certificate and the key of a leaf; the key names its leaf.
pub fn set_pair(object: &mut Value, leaf: usize) {
    object["data"]["tls.crt"] = encoded(&LEAVES[leaf]);
    object["data"]["tls.key"] = encoded(&format!("key of leaf {leaf}"));
}

pub fn set_ca(object: &mut Value, ca: usize) {
    object["data"]["ca.crt"] = encoded(&CAS[ca].pem);
}

/// The object that a generator writes, without our labels and annotations.
pub fn fresh(leaf: usize) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "envoy", "namespace": "gateway", "managedFields": [{}]}, "data": {},
    });
    set_ca(&mut object, issuer(leaf));
    set_pair(&mut object, leaf);
    object
}

impl System {
    /// Leaf 0, mode `staged`, webhook and keeper up.
    pub fn new(fault: Fault) -> Self {
        let mut installation = Installation::new(Defaults::default(), "ca-overlap");
        installation.settle = SETTLE;
        let mut system = Self {
            stored: Value::Null,
            now: certs::now(),
            is_webhook_up: true,
            is_opted_out: false,
            is_keeper_up: true,
            health: staged::KeeperHealth::Alive,
            fault,
            unseen_since: None,
            memory: None,
            objects: 0,
            installation,
        };
        let mut first = fresh(0);
        first["metadata"]["labels"] = json!({names::MODE: "staged"});
        system.create(first);
        system.reconcile();
        system
    }

    /// Creates a new object under the name, without a review.
    pub fn create(&mut self, object: Value) {
        self.objects += 1;
        self.store(object);
    }

    /// A write by the generator.
    pub fn write(&mut self, object: Value) {
        self.write_as(object, GENERATOR);
        self.reconcile();
    }

    /// A write that edits the stored object.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Value)) {
        let mut object = self.stored.clone();
        edit(&mut object);
        self.write(object);
    }

    /// Starts the keeper, with an empty memory.
    pub fn start_keeper(&mut self) {
        self.is_keeper_up = true;
        self.health = staged::KeeperHealth::Alive;
        self.memory = None;
        self.unseen_since = None;
        self.reconcile();
    }

    /// Removes the uids from the record and from the stage, which the first edition does not know.
    pub fn forget_uids(&mut self) {
        for key in [names::CARRIED, names::STAGED] {
            let Some(text) = self.annotation(key) else { continue };
            let older = without_uids(serde_json::from_str(text).unwrap()).to_string();
            self.stored["metadata"]["annotations"][key] = older.into();
        }
    }

    /// Whether the API server calls the webhook.
    pub fn is_called(&self) -> bool {
        self.is_webhook_up && !self.is_opted_out
    }

    /// The keeper reconciles until nothing is due, as after each event of its watch.
    pub fn reconcile(&mut self) {
        if !self.is_keeper_up {
            return;
        }
        for _ in 0..MAX_ASKS {
            let before = self.stored.clone();
            // An ask that the webhook misses is repeated when it is back.
            if !self.reconcile_once() || !self.is_called() {
                return;
            }
            if self.stored == before && self.fault == Fault::None {
                let asks = self.view().annotation(names::ASK).is_some();
                assert!(!asks, "the webhook left an ask");
                // The ask was refused, and would be repeated later.
                return;
            }
        }
    }

    /// One step in the order of `keeper::reconcile`; says whether it has asked.
    fn reconcile_once(&mut self) -> bool {
        let secret = self.view();
        let rules = Rules { defaults: Defaults::default(), settle: SETTLE };
        let is_over =
            outlook(&secret.view(), &rules, self.now).is_stage_over(&secret.view(), self.now);
        if is_over && !self.is_called() {
            self.end_stage(&secret);
        } else {
            self.unseen_since = None;
        }
        let secret = self.view();
        let plan = self
            .memory
            .as_ref()
            .and_then(|m| m.compare(&secret, &rules, &FormerDistrust::default(), self.now));
        let next = nonce(secret.annotation(names::ASK));
        if let Some(plan) = plan {
            let ask = Ask::Repair(plan.repair());
            let before = self.carried();
            self.ask(&json!(ask.to_annotation(next)));
            if self.is_called() && self.carried() == before {
                // The same rules would refuse it again, so the memory begins with what is stored.
                self.memory = None;
            }
            self.remember();
            return true;
        }
        self.remember();
        let ask = match outlook(&secret.view(), &rules, self.now).due {
            None => return false,
            Some(Due::Retire(_)) if self.fault == Fault::NeverRetires => return false,
            Some(Due::Promote(_)) if self.fault == Fault::NeverPromotes => return false,
            Some(Due::Retire(_)) => json!(Ask::Retire.to_annotation(next)),
            Some(Due::Promote(pending)) => json!(Ask::Promote(pending).to_annotation(next)),
            Some(Due::Unstage) => json!(Ask::Unstage.to_annotation(next)),
            Some(Due::Withdraw) => Value::Null,
        };
        self.ask(&ask);
        self.remember();
        true
    }

    /// Ends the stage without the webhook, once the keeper has waited for it.
    fn end_stage(&mut self, secret: &SecretView) {
        let since = *self.unseen_since.get_or_insert(self.now);
        let is_away = self.now >= since + jiff::SignedDuration::try_from(GROUP_WAIT).unwrap();
        let Some(end) = stage_end(&secret.view(), self.now).filter(|_| is_away) else { return };
        let end = match self.fault {
            Fault::WaitsForEver => return,
            Fault::DropsPairs => StageEnd::Drop,
            _ => end,
        };
        let mut object = self.stored.clone();
        json_patch::patch(&mut object, &stage_end::patch(secret, end)).expect("the patch applies");
        self.store(object);
        self.unseen_since = None;
    }

    /// Remembers the Secret if it is watched and the webhook has missed nothing of it.
    fn remember(&mut self) {
        let secret = self.view();
        let rules = Rules { defaults: Defaults::default(), settle: SETTLE };
        let is_watched =
            [names::MODE, names::PHASE].iter().any(|label| secret.label(label).is_some());
        let memory = self.memory.as_ref();
        if memory.is_some_and(|m| {
            m.compare(&secret, &rules, &FormerDistrust::default(), self.now).is_some()
        }) {
            return;
        }
        self.memory = is_watched.then(|| Remembered::of(&secret)).flatten();
    }

    fn ask(&mut self, ask: &Value) {
        let change = json!({"metadata": {"annotations": {names::ASK: ask}}});
        let mut object = self.stored.clone();
        json_patch::merge(&mut object, &change);
        self.write_as(object, KEEPER);
    }

    /// The keeper asks to announce this CA, or none.
    pub fn ask_announce(&mut self, ca: Option<usize>) {
        let list = ca.map(|ca| announcement(ca, None)).into_iter().collect();
        let next = nonce(self.annotation(names::ASK));
        self.ask(&json!(Ask::Announce(list).to_annotation(next)));
        self.reconcile();
    }

    /// A write by this user.
    pub fn write_as(&mut self, mut object: Value, user: &str) {
        if self.is_called() {
            self.review(&mut object, user);
        }
        self.store(object);
    }

    fn review(&self, object: &mut Value, user: &str) {
        let mut old = self.stored.clone();
        let ignored = match self.fault {
            Fault::TrustsAll => names::DISTRUST,
            Fault::AnnouncesNothing => names::ANNOUNCE,
            _ => "",
        };
        let value = object["metadata"]["annotations"][ignored].clone();
        for object in [&mut *object, &mut old] {
            remove(object, ignored);
        }
        let ask =
            [&*object, &self.stored].map(|it| it["metadata"]["annotations"][names::ASK].clone());
        let ask = ask.into_iter().find(Value::is_string);
        let written = object["data"]["ca.crt"].clone();
        let review = reviews::update(&old, object, user);
        let body = serde_json::to_vec(&review).unwrap();
        let request = review::read(&body).ok().unwrap();
        let answer = respond(&request, &self.installation, self.health, self.now);
        if let Some(patch) = &answer.patch {
            json_patch::patch(object, patch).expect("the patch applies");
        }
        match self.fault {
            Fault::CarriesNothing => object["data"]["ca.crt"] = written,
            Fault::TrustsAll | Fault::AnnouncesNothing if value.is_string() => {
                object["metadata"]["annotations"][ignored] = value;
            }
            Fault::MixesKeys if object["data"][names::PENDING_TLS_KEY].is_string() => {
                object["data"][names::PENDING_TLS_KEY] = object["data"]["tls.key"].clone();
            }
            Fault::ForgetsPairs if self.stored["data"][names::PENDING_TLS_KEY].is_string() => {
                let data = object["data"].as_object_mut().unwrap();
                data.retain(|key, _| !key.starts_with("pending."));
                remove(object, names::STAGED);
            }
            Fault::LeavesAsks if ask.is_some() => {
                object["metadata"]["annotations"][names::ASK] = json!(ask);
            }
            _ => {}
        }
    }

    /// Stores the object as the API server does.
    fn store(&mut self, mut object: Value) {
        object["metadata"]["uid"] = self.objects.to_string().into();
        object["metadata"]["resourceVersion"] = "1".into();
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        for map in ["labels", "annotations"] {
            if object["metadata"][map].is_null() {
                object["metadata"][map] = json!({});
            }
        }
        self.stored = object;
    }

    fn view(&self) -> SecretView {
        serde_json::from_value(self.stored.clone()).unwrap()
    }

    fn text(&self, key: &str) -> Option<String> {
        let bytes = BASE64_STANDARD.decode(self.stored["data"][key].as_str()?).unwrap();
        Some(String::from_utf8(bytes).unwrap())
    }

    /// The CAs of `ca.crt`, in order.
    pub fn cas(&self) -> Vec<usize> {
        let text = self.text("ca.crt").unwrap_or_default();
        let blocks = text.split_inclusive("-----END CERTIFICATE-----\n");
        blocks.map(|block| CAS.iter().position(|ca| block == ca.pem).expect("a known CA")).collect()
    }

    /// The carried CAs. An entry for the first certificate does not count: its generator wrote it.
    pub fn carried(&self) -> Vec<Carried> {
        let record: Value =
            self.annotation(names::CARRIED).map_or(json!([]), |t| serde_json::from_str(t).unwrap());
        let entry = |entry: &Value| {
            let is_it = |ca: &Identity| entry["sha256"] == ca.sha256().as_str();
            let date = |key: &str| entry[key].as_str().map(|text| text.parse().unwrap());
            let ca = CAS.iter().position(is_it).expect("a known CA");
            let by_person = entry["announced"] == "person";
            let is_announced = entry["announced"].is_string();
            let since = date("since").expect("a beginning");
            Carried { ca, since, until: date("until"), is_announced, by_person }
        };
        let entries = record.as_array().unwrap().iter().map(entry);
        let cas = self.cas();
        entries.filter(|it| cas.iter().skip(1).any(|behind| *behind == it.ca)).collect()
    }

    /// The leaf in service. Fails if the key is not its own.
    pub fn served(&self) -> Result<Option<usize>, String> {
        self.leaf_under("tls.crt", "tls.key")
    }

    /// The waiting leaf.
    pub fn waiting(&self) -> Result<Option<usize>, String> {
        self.leaf_under(names::PENDING_TLS_CRT, names::PENDING_TLS_KEY)
    }

    fn leaf_under(&self, crt: &str, key: &str) -> Result<Option<usize>, String> {
        let leaf = self.text(crt).and_then(|text| LEAVES.iter().position(|leaf| *leaf == text));
        let key = self.text(key);
        if key == leaf.map(|leaf| format!("key of leaf {leaf}")) {
            return Ok(leaf);
        }
        Err(format!("{crt} is of leaf {leaf:?} and stands beside {key:?}"))
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.stored["metadata"]["annotations"][key].as_str()
    }
}

fn remove(object: &mut Value, annotation: &str) {
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(annotation);
    }
}
