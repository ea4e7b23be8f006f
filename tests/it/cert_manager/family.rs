//! A root, its issuers, and the leaves in three namespaces.

use ca_overlap::names;
use devtools::handshake::{Files, Tally, Tls, meet};
use devtools::secrets::{Answer, Secrets};
use serde_json::json;

use super::peers::{Peers, add};
use super::rig::{NAMESPACE, Rig, SELF_SIGNED};
use crate::keeper::setup::{Rotation, eventually};
use crate::support::command::run;

/// What keys a family has, and what issues its leaves.
#[derive(Clone, Copy)]
pub struct Kind {
    algorithm: &'static str,
    size: u32,
    pub has_intermediate: bool,
}

impl Kind {
    pub const ECDSA: Self = Self { algorithm: "ECDSA", size: 256, has_intermediate: false };
    pub const RSA: Self = Self { algorithm: "RSA", size: 2048, has_intermediate: false };
    pub const INTERMEDIATE: Self = Self { has_intermediate: true, ..Self::ECDSA };
}

/// A certificate of cert-manager, whose Secret has the same name.
pub struct Certificate {
    pub secrets: Secrets,
    pub name: String,
    /// How often it was issued when that was last waited for.
    issued: u64,
}

pub struct Family<'r> {
    rig: &'r Rig,
    pub name: &'static str,
    kind: Kind,
    namespaces: [Secrets; 3],
    pub root: Certificate,
    pub intermediate: Option<Certificate>,
    pub leaves: Vec<Certificate>,
    peers: Peers,
}

impl<'r> Family<'r> {
    /// Issues a root and the leaves, and lets all peers meet.
    pub async fn begin(rig: &'r Rig, name: &'static str, kind: Kind, leaves: usize) -> Self {
        let cluster = &rig.setup.cluster;
        let central = Secrets::new(cluster.plane.client().await.unwrap(), NAMESPACE.into());
        let namespaces =
            [central.clone(), cluster.namespace(name).await, cluster.namespace(name).await];
        let certificate = |name: String| Certificate::new(&central, name);
        let mut family = Self {
            rig,
            name,
            kind,
            namespaces,
            root: certificate(format!("{name}-root")),
            intermediate: None,
            leaves: Vec::new(),
            peers: Peers::default(),
        };
        family.root.create(rig, kind, true, "ClusterIssuer", SELF_SIGNED).await;
        family.root.wait(rig).await;
        let mut source = family.root.name.clone();
        if kind.has_intermediate {
            rig.create_issuer(None, &source, &source).await;
            let mut intermediate = certificate(format!("{name}-int"));
            intermediate.create(rig, kind, true, "ClusterIssuer", &source).await;
            intermediate.wait(rig).await;
            source.clone_from(&intermediate.name);
            family.intermediate = Some(intermediate);
        }
        rig.create_issuer(None, name, &source).await;
        rig.create_issuer(Some(NAMESPACE), name, &source).await;
        for _ in 0..leaves {
            family.add_leaf().await;
        }
        family.issued().await;
        let tally = family.step().await;
        assert!(tally.all(), "{name}: {tally:?} before any rotation");
        family.settle();
        family
    }

    /// The same beside a keeper that follows issuers, which has found this one. Only then are the
    /// previous roots kept.
    pub async fn followed(rig: &'r Rig, name: &'static str, kind: Kind, leaves: usize) -> Self {
        let family = Self::begin(rig, name, kind, leaves).await;
        for source in [&family.root].into_iter().chain(&family.intermediate) {
            eventually(&format!("{} followed", source.name), async || {
                let stored = source.stored().await;
                (stored.label(names::SOURCE) == Some("issuer")).then_some(())
            })
            .await;
        }
        family
    }

    /// Orders one more leaf, in the next of the namespaces.
    pub async fn add_leaf(&mut self) {
        let number = self.leaves.len();
        let secrets = self.namespaces[number % self.namespaces.len()].clone();
        let kind = if secrets.namespace == NAMESPACE { "Issuer" } else { "ClusterIssuer" };
        let leaf = Certificate::new(&secrets, format!("{}-{number}", self.name));
        leaf.create(self.rig, self.kind, false, kind, self.name).await;
        self.leaves.push(leaf);
    }

    /// Waits until all leaves are issued.
    pub async fn issued(&mut self) {
        for leaf in &mut self.leaves {
            leaf.wait(self.rig).await;
        }
    }

    pub async fn renew_root(&mut self) {
        self.root.renew(self.rig).await;
    }

    pub async fn renew_intermediate(&mut self) {
        self.intermediate.as_mut().unwrap().renew(self.rig).await;
    }

    pub async fn renew(&mut self, leaf: usize) {
        self.leaves[leaf].renew(self.rig).await;
    }

    /// All leaves, in an order that mixes namespaces and ages, the same in each run.
    pub fn order(&self) -> Vec<usize> {
        let count = self.leaves.len();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|leaf| (leaf * 7 + 3) % 11);
        order
    }

    /// Whether all leaves are of this root, and nothing more is under way.
    pub async fn are_of(&self, root: &str) -> bool {
        for leaf in &self.leaves {
            if !leaf.is_of(self.rig, root).await {
                return false;
            }
        }
        true
    }

    /// Reads all leaf Secrets. Peers whose files have changed meet all others.
    pub async fn step(&mut self) -> Tally {
        let mut tally = Tally::default();
        for (index, leaf) in self.leaves.iter().enumerate() {
            let files = files(&leaf.name, &leaf.stored().await);
            add(&mut tally, self.peers.see(index, files).await);
        }
        tally
    }

    pub fn settle(&mut self) {
        self.peers.settle();
    }

    /// All these peers talk to each other with their present files.
    pub async fn meets(&self, tls: Tls, clients: &[usize], servers: &[usize]) {
        let (clients, servers) = (self.peers.present(clients), self.peers.present(servers));
        let tally = meet(tls, &clients, &servers).await.unwrap();
        assert!(tally.all(), "{}: {tls:?} {tally:?}", self.name);
    }

    /// Waits until all leaf Secrets trust the present root.
    pub async fn trusts_root(&self) {
        self.trust_root(&self.leaves.iter().collect::<Vec<_>>()).await;
    }

    /// Waits until the intermediate's Secret trusts the present root.
    pub async fn intermediate_trusts_root(&self) {
        self.trust_root(&[self.intermediate.as_ref().unwrap()]).await;
    }

    async fn trust_root(&self, followers: &[&Certificate]) {
        let root = async || self.root.stored().await.pem("tls.crt");
        loop {
            let announced = root().await;
            for follower in followers {
                follower.trusts(&announced).await;
            }
            let namespace = &self.root.secrets.namespace;
            let is_under_way = self.rig.is_under_way(namespace, &self.root.name).await;
            if !is_under_way && root().await == announced {
                break;
            }
        }
    }

    /// How often each leaf was requested.
    pub async fn requests(&self) -> Vec<usize> {
        let mut requests = Vec::new();
        for leaf in &self.leaves {
            requests.push(leaf.requests(self.rig).await);
        }
        requests
    }

    /// Distrusts a CA in all namespaces of the family, as a person.
    pub fn distrust(&self, ca: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ca).unwrap();
        let kubeconfig = self.rig.setup.cluster.plane.admin_kubeconfig();
        for secrets in &self.namespaces {
            // It reports the Secrets whose generator still writes that CA.
            let file = file.path().to_str().unwrap();
            run(&kubeconfig, &["distrust", file, "-n", &secrets.namespace]);
        }
    }

    /// cert-manager alone manages the data.
    pub async fn assert_managed_by_cert_manager(&self) {
        for it in self.leaves.iter().chain([&self.root]).chain(&self.intermediate) {
            let managers = it.rotation().data_managers().await;
            assert_eq!(managers, ["cert-manager-certificates-issuing"], "{}", it.name);
        }
    }
}

impl Certificate {
    pub fn new(secrets: &Secrets, name: String) -> Self {
        Self { secrets: secrets.clone(), name, issued: 0 }
    }

    /// Its Secret.
    pub fn rotation(&self) -> Rotation {
        let (secrets, name) = (self.secrets.clone(), self.name.clone());
        Rotation { secrets, name, generation: Vec::new() }
    }

    /// Orders it.
    pub async fn create(
        &self,
        rig: &Rig,
        kind: Kind,
        is_ca: bool,
        issuer_kind: &str,
        issuer: &str,
    ) {
        let mut spec = json!({
            "secretName": self.name,
            "isCA": is_ca,
            "privateKey": {"algorithm": kind.algorithm, "size": kind.size},
            "issuerRef": {"group": "cert-manager.io", "kind": issuer_kind, "name": issuer},
            // Requests are counted, so none may be cleaned up.
            "revisionHistoryLimit": 99,
        });
        if is_ca {
            spec["commonName"] = json!(self.name);
        } else {
            spec["dnsNames"] = json!([self.name]);
            spec["usages"] = json!(["digital signature", "server auth", "client auth"]);
        }
        rig.create_certificate(&self.secrets.namespace, &self.name, spec).await;
    }

    /// How often it was requested.
    pub async fn requests(&self, rig: &Rig) -> usize {
        rig.requests(&self.secrets.namespace, &self.name).await
    }

    /// Whether its leaf is of this root, and nothing more is under way.
    pub async fn is_of(&self, rig: &Rig, root: &str) -> bool {
        // cert-manager writes the root first; what is announced is behind it.
        let is_of = self.stored().await.pem("ca.crt").starts_with(root);
        is_of && !rig.is_under_way(&self.secrets.namespace, &self.name).await
    }

    pub async fn stored(&self) -> Answer {
        self.secrets.get(&self.name).await.ok()
    }

    /// Waits until `ca.crt` has this certificate.
    pub async fn trusts(&self, ca: &str) {
        let what = format!("a new CA in {}/{}", self.secrets.namespace, self.name);
        let trusts = async || self.stored().await.pem("ca.crt").contains(ca).then_some(());
        eventually(&what, trusts).await;
    }

    /// Waits until it has been issued again.
    pub async fn wait(&mut self, rig: &Rig) {
        self.issued = rig.issued(&self.secrets.namespace, &self.name, self.issued + 1).await;
    }

    pub async fn renew(&mut self, rig: &Rig) {
        // It may have been issued one time more than was asked for.
        self.issued = rig.issued(&self.secrets.namespace, &self.name, self.issued).await;
        rig.renew(&self.secrets.namespace, &self.name).await;
        self.wait(rig).await;
    }
}

fn files(name: &str, stored: &Answer) -> Files {
    let [ca, certificate, key] =
        ["ca.crt", "tls.crt", "tls.key"].map(|key| stored.data(key).unwrap());
    Files { name: name.into(), ca, certificate, key }
}
