//! The issuers of cert-manager, and which of them signs the leaf of a Secret.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DynamicResourceScope;
use serde::Deserialize;

use super::key::Key;
use crate::names;

/// The API group of cert-manager's own issuers. Others use the kind `Issuer`, too.
pub(crate) const GROUP: &str = "cert-manager.io";

/// A kind of issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IssuerKind {
    /// It signs for its own namespace.
    Issuer,
    /// It signs for all namespaces.
    ClusterIssuer,
}

impl IssuerKind {
    pub(crate) const ALL: [Self; 2] = [Self::Issuer, Self::ClusterIssuer];

    /// Its names in the API: `kind` and plural.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Issuer => ("Issuer", "issuers"),
            Self::ClusterIssuer => ("ClusterIssuer", "clusterissuers"),
        }
    }
}

/// An issuer of cert-manager, as far as it is read.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Issuer {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: IssuerSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct IssuerSpec {
    #[serde(default)]
    ca: Option<CaSpec>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaSpec {
    #[serde(default)]
    secret_name: String,
}

impl Resource for Issuer {
    type DynamicType = IssuerKind;
    type Scope = DynamicResourceScope;

    fn kind(of: &IssuerKind) -> Cow<'_, str> {
        of.names().0.into()
    }

    fn group(_: &IssuerKind) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version(_: &IssuerKind) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(of: &IssuerKind) -> Cow<'_, str> {
        of.names().1.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Issuer {
    pub(crate) fn key(&self) -> IssuerKey {
        let ObjectMeta { namespace, name, .. } = self.metadata.clone();
        IssuerKey { namespace: namespace.unwrap_or_default(), name: name.unwrap_or_default() }
    }

    /// The name in `spec.ca.secretName`; `None` if it is no CA issuer. Whoever writes the issuer
    /// chooses it, and it becomes a part of a path, so anything but a name counts as none.
    pub(crate) fn secret_name(&self) -> Option<String> {
        let name = &self.spec.ca.as_ref()?.secret_name;
        names::is_name(name).then(|| name.clone())
    }
}

/// An Issuer, or a `ClusterIssuer` if the namespace is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct IssuerKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl IssuerKey {
    /// The issuer that signs the leaf of a Secret with this metadata; `None` if cert-manager does not
    /// own it, or the issuer is not cert-manager's own.
    pub(crate) fn of_secret(key: &Key, meta: &ObjectMeta) -> Option<Self> {
        meta.labels.as_ref()?.get(names::CERT_MANAGER_OWNED)?;
        let annotation = |name: &str| meta.annotations.as_ref()?.get(name).map(String::as_str);
        let [name, kind, group] = names::CERT_MANAGER_ISSUER.map(annotation);
        let group = group.unwrap_or_default();
        if !group.is_empty() && group != GROUP {
            return None;
        }
        let name = name.filter(|name| !name.is_empty())?.to_owned();
        let namespace = match kind.unwrap_or_default() {
            "" | "Issuer" => key.namespace(),
            "ClusterIssuer" => "",
            _ => return None,
        };
        Some(Self { namespace: namespace.to_owned(), name })
    }
}
