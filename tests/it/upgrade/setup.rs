//! Both editions of the program, and generators that know of neither.

use std::path::PathBuf;
use std::time::Duration;

use ca_overlap::names;
use devtools::certs::{self, Identity};
use devtools::control_plane::{Patches, Webhook};
use devtools::secrets::{Answer, MERGE, Secrets, tls_secret};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::keeper::setup::Keeper;
use crate::support::{Cluster, Plane, binary, manifests};

/// A build of the program, with the manifests that belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// The one that `CA_OVERLAP_EARLIER` names: a directory that `tests/cluster/earlier.sh` made.
    Earlier,
    /// The one that cargo built with this test.
    Current,
}

impl Edition {
    pub fn program(self) -> PathBuf {
        match self {
            Self::Earlier => earlier().join("build/debug/ca-overlap"),
            Self::Current => binary::path(),
        }
    }

    fn overlay(self) -> PathBuf {
        let manifests = match self {
            Self::Earlier => earlier().join("tree/manifests"),
            Self::Current => manifests(),
        };
        manifests.join("overlays/staged")
    }
}

fn earlier() -> PathBuf {
    let directory = std::env::var_os("CA_OVERLAP_EARLIER").expect("make upgrade-test sets it");
    std::fs::canonicalize(directory).expect("the directory that tests/cluster/earlier.sh made")
}

/// A cluster with the manifests of one edition, in staged mode. No program runs yet.
pub struct Installation {
    pub cluster: Cluster,
    kubeconfig: PathBuf,
    started: usize,
}

impl Installation {
    /// `None` if there is no control plane; the test is then reported as skipped.
    pub async fn of(edition: Edition, test: &str) -> Option<Self> {
        let overlay = edition.overlay();
        let plane = Plane::exclusive(test).await?;
        let cluster = Cluster::on(plane, test, overlay.to_str().unwrap()).await?;
        let (namespace, name) = (names::NAMESPACE, names::KEEPER_SERVICE_ACCOUNT);
        let kubeconfig = cluster.plane.service_account_kubeconfig(namespace, name).await.unwrap();
        Some(Self { cluster, kubeconfig, started: 0 })
    }

    /// Applies the manifests of another edition over those of the last one.
    pub async fn apply(&self, edition: Edition) {
        let patches = Patches { cluster_ip: Some(self.cluster.service), url: None };
        self.cluster.plane.install(&edition.overlay(), patches).await.unwrap();
    }

    /// Starts a webhook on this address, and waits until it is ready.
    pub async fn webhook(
        &mut self,
        edition: Edition,
        listen: std::net::SocketAddr,
        arguments: &[&str],
    ) -> Webhook {
        self.started += 1;
        let name = format!("webhook-{}-{edition:?}", self.started);
        let program = edition.program();
        let started = self.cluster.replica_of(program, &name, listen, arguments).await;
        started.unwrap()
    }

    /// Starts a keeper, and waits until it leads.
    pub async fn keeper(&mut self, edition: Edition, settle: &str) -> Keeper {
        self.started += 1;
        let identity = format!("keeper-{}", self.started);
        let arguments = ["--settle", settle];
        let (plane, program) = (&self.cluster.plane, edition.program());
        let mut keeper = Keeper::start(plane, &program, &self.kubeconfig, &identity, &arguments);
        keeper.ready().await;
        keeper.leads(true).await;
        keeper
    }
}

/// How a generator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A fresh object.
    Put,
    /// Server side, without force.
    Apply,
    /// A patch of its values.
    Patch,
}

/// A generator of one Secret.
#[derive(Clone)]
pub struct Generator {
    pub secrets: Secrets,
    pub name: String,
    pub how: How,
    /// All its CAs, each with a leaf. It writes the last one.
    pub pairs: Vec<(Identity, Identity)>,
}

impl Generator {
    /// Creates the Secret, and sets its labels and annotations as a person does.
    pub async fn begin(
        secrets: &Secrets,
        name: &str,
        how: How,
        labels: Value,
        annotations: Value,
    ) -> Self {
        let generator =
            Self { secrets: secrets.clone(), name: name.to_owned(), how, pairs: vec![pair(1)] };
        match how {
            How::Apply => generator.write().await.ok(),
            How::Put | How::Patch => secrets.create(&generator.object()).await.ok(),
        };
        let patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
        secrets.patch(name, MERGE, "fieldManager=person", &patch).await.ok();
        generator
    }

    /// Writes a new CA and a leaf of it.
    pub async fn rotate(&mut self) -> Answer {
        self.pairs.push(pair(self.pairs.len() + 1));
        self.write().await.ok()
    }

    /// Writes the last CA and its leaf, again or for the first time.
    pub async fn write(&self) -> Answer {
        let (name, object) = (&self.name, self.object());
        match self.how {
            How::Put => self.secrets.put(name, &object).await,
            How::Apply => self.secrets.apply(name, "helm", false, &object).await,
            How::Patch => {
                let patch = json!({"data": object["data"]});
                self.secrets.patch(name, MERGE, "fieldManager=job", &patch).await
            }
        }
    }

    fn object(&self) -> Value {
        let (ca, leaf) = self.pairs.last().unwrap();
        tls_secret(&self.name, &ca.pem, leaf)
    }

    pub async fn stored(&self) -> Answer {
        self.secrets.get(&self.name).await.ok()
    }

    /// The numbers of the CAs in `ca.crt`, from 1 on, in order.
    pub fn cas(&self, answer: &Answer) -> Vec<usize> {
        let text = answer.pem("ca.crt");
        let blocks = text.split_inclusive("-----END CERTIFICATE-----\n");
        let number = |block: &str| self.pairs.iter().position(|(ca, _)| ca.pem == block);
        blocks.map(|block| number(block).expect("a CA of this generator") + 1).collect()
    }

    /// The number of the leaf in service. Panics if its key is not its own.
    pub fn served(&self, answer: &Answer) -> usize {
        let (crt, key) = (answer.pem("tls.crt"), answer.pem("tls.key"));
        let at = self.pairs.iter().position(|(_, leaf)| leaf.pem == crt).expect("a known leaf");
        assert_eq!(key, self.pairs[at].1.key, "{}: the pair belongs together", self.name);
        at + 1
    }
}

fn pair(number: usize) -> (Identity, Identity) {
    let ca = certs::ca_named(&format!("CA{number}"));
    let leaf = ca.leaf("envoy");
    (ca, leaf)
}

pub fn is_staged(answer: &Answer) -> bool {
    answer.label(names::PHASE) == Some(names::PHASE_STAGED)
}

/// Waits until nothing waits in the Secret. It takes no closure, so that a spawned task can call it.
pub async fn unstaged(generator: &Generator) -> Answer {
    let limit = Instant::now() + Duration::from_secs(120);
    loop {
        let stored = generator.stored().await;
        if !is_staged(&stored) {
            return stored;
        }
        assert!(Instant::now() < limit, "not within two minutes: {} is promoted", generator.name);
        sleep(Duration::from_millis(50)).await;
    }
}

/// Asserts that no state of a stage or of an ask is left.
pub fn assert_at_rest(generator: &Generator, stored: &Answer) {
    let name = &generator.name;
    for key in [names::PENDING_TLS_CRT, names::PENDING_TLS_KEY] {
        assert_eq!(stored.data(key), None, "{name}: {key}");
    }
    for key in [names::STAGED, names::ASK] {
        assert_eq!(stored.annotation(key), None, "{name}: {key}");
    }
    assert_eq!(generator.served(stored), generator.pairs.len(), "{name}: the newest leaf serves");
}

/// The record: for each carried certificate its fingerprint and dates, and the uid that it names.
pub fn record(answer: &Answer) -> Vec<Value> {
    serde_json::from_str(answer.annotation(names::CARRIED).unwrap_or("[]")).unwrap()
}
