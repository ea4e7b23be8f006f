//! A root, its issuers, and the leaves in three namespaces.

use devtools::handshake::{Files, Tally};
use devtools::secrets::{Answer, Secrets};
use serde_json::json;

use super::peers::{Peers, add};
use super::rig::{NAMESPACE, Rig, SELF_SIGNED};
use crate::keeper::setup::Rotation;

/// What keys a family has, and what issues its leaves.
#[derive(Clone, Copy)]
pub struct Kind {
    algorithm: &'static str,
    size: u32,
    has_intermediate: bool,
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
    /// How often it was ordered.
    orders: usize,
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
        let certificate = |name: String| Certificate { secrets: central.clone(), name, orders: 1 };
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
        family.create(&family.root, true, "ClusterIssuer", SELF_SIGNED).await;
        family.root.issued(rig).await;
        let mut source = family.root.name.clone();
        if kind.has_intermediate {
            rig.create_issuer(None, &source, &source).await;
            let intermediate = certificate(format!("{name}-int"));
            family.create(&intermediate, true, "ClusterIssuer", &source).await;
            intermediate.issued(rig).await;
            source.clone_from(&intermediate.name);
            family.intermediate = Some(intermediate);
        }
        rig.create_issuer(None, name, &source).await;
        rig.create_issuer(Some(NAMESPACE), name, &source).await;
        for _ in 0..leaves {
            family.add_leaf().await;
        }
        for leaf in &family.leaves {
            leaf.issued(rig).await;
        }
        let tally = family.step().await;
        assert!(tally.all(), "{name}: {tally:?} before any rotation");
        family.settle();
        family
    }

    /// Orders one more leaf, in the next of the namespaces.
    pub async fn add_leaf(&mut self) {
        let number = self.leaves.len();
        let secrets = self.namespaces[number % self.namespaces.len()].clone();
        let kind = if secrets.namespace == NAMESPACE { "Issuer" } else { "ClusterIssuer" };
        let leaf = Certificate { secrets, name: format!("{}-{number}", self.name), orders: 1 };
        self.create(&leaf, false, kind, self.name).await;
        self.leaves.push(leaf);
    }

    async fn create(&self, it: &Certificate, is_ca: bool, issuer_kind: &str, issuer: &str) {
        let mut spec = json!({
            "secretName": it.name,
            "isCA": is_ca,
            "privateKey": {"algorithm": self.kind.algorithm, "size": self.kind.size},
            "issuerRef": {"group": "cert-manager.io", "kind": issuer_kind, "name": issuer},
            // Requests are counted, so none may be cleaned up.
            "revisionHistoryLimit": 99,
        });
        if is_ca {
            spec["commonName"] = json!(it.name);
        } else {
            spec["dnsNames"] = json!([it.name]);
            spec["usages"] = json!(["digital signature", "server auth", "client auth"]);
        }
        self.rig.create_certificate(&it.secrets.namespace, &it.name, spec).await;
    }

    /// Renews the root, and then the intermediate.
    pub async fn renew_cas(&mut self) {
        renew(self.rig, &mut self.root).await;
        if let Some(intermediate) = &mut self.intermediate {
            renew(self.rig, intermediate).await;
        }
    }

    pub async fn renew(&mut self, leaf: usize) {
        renew(self.rig, &mut self.leaves[leaf]).await;
    }

    /// All leaves, in an order that mixes namespaces and ages, the same in each run.
    pub fn order(&self) -> Vec<usize> {
        let count = self.leaves.len();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|leaf| (leaf * 7 + 3) % 11);
        order
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

    /// cert-manager alone manages the data, and nothing was issued because of us.
    pub async fn assert_untouched(&self) {
        let all = self.leaves.iter().chain([&self.root]).chain(&self.intermediate);
        for it in all {
            let (secrets, name) = (it.secrets.clone(), it.name.clone());
            let managers = Rotation { secrets, name, generation: Vec::new() }.data_managers().await;
            assert_eq!(managers, ["cert-manager-certificates-issuing"], "{}", it.name);
            let requests = self.rig.requests(&it.secrets.namespace, &it.name).await;
            assert_eq!(requests, it.orders, "{}", it.name);
        }
    }
}

impl Certificate {
    pub async fn stored(&self) -> Answer {
        self.secrets.get(&self.name).await.ok()
    }

    /// Waits until it has been issued as often as it was ordered.
    pub async fn issued(&self, rig: &Rig) {
        rig.issued(&self.secrets.namespace, &self.name, self.orders).await;
    }
}

async fn renew(rig: &Rig, it: &mut Certificate) {
    rig.renew(&it.secrets.namespace, &it.name).await;
    it.orders += 1;
    it.issued(rig).await;
}

fn files(name: &str, stored: &Answer) -> Files {
    let [ca, certificate, key] =
        ["ca.crt", "tls.crt", "tls.key"].map(|key| stored.data(key).unwrap());
    Files { name: name.into(), ca, certificate, key }
}
