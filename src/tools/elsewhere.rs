//! Finds the certificates in other objects than Secrets, which ca-overlap never changes.

use std::cell::Cell;
use std::fmt::Write as _;

use base64::prelude::*;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde_json::Value;

use crate::kubernetes::list::{self, Namespaces, Unread};
use crate::tools::progress_line;
use crate::tools::table::{Column, Row, Table, paragraph};
use crate::tools::text::counted;
use crate::x509::certs::Fingerprint;
use crate::x509::pem;

/// How many objects one page has. Each can be a megabyte.
const PAGE: u32 = 25;

/// A place where a certificate stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Place {
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// The path in the object, such as `data.ca.crt`.
    pub(crate) field: String,
    pub(crate) sha256: String,
}

/// Searches the cluster, a page at a time. Returns where the certificates stand, and what could not
/// be read.
pub(crate) async fn search(client: &Client, wanted: &[Fingerprint]) -> (Vec<Place>, Vec<Unread>) {
    let kinds = [
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<MutatingWebhookConfiguration>(&()),
        ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
        ApiResource::erase::<CustomResourceDefinition>(&()),
        ApiResource::erase::<APIService>(&()),
    ];
    let seen = Cell::new(0_usize);
    let work = async {
        let (mut places, mut unread) = (Vec::new(), Vec::new());
        for kind in &kinds {
            let each = |object: DynamicObject| {
                seen.set(seen.get() + 1);
                for place in found(kind, &object, wanted) {
                    // A list that expires on the way can show an object twice.
                    if !places.contains(&place) {
                        places.push(place);
                    }
                }
            };
            unread.extend(read(client, kind, each).await);
        }
        (places, unread)
    };
    progress_line::during(|| format!("searching other objects, {} so far", seen.get()), work).await
}

async fn read(
    client: &Client,
    kind: &ApiResource,
    mut each: impl FnMut(DynamicObject),
) -> Vec<Unread> {
    let page = ListParams::default().limit(PAGE);
    let all = || Api::<DynamicObject>::all_with(client.clone(), kind);
    if kind.group.is_empty() {
        let api = |namespaces: &Namespaces| match namespaces {
            Namespaces::All => all(),
            Namespaces::One(name) => Api::namespaced_with(client.clone(), name, kind),
        };
        return list::read_each(client, &Namespaces::All, &page, api, each).await;
    }
    match list::read(&all(), &page, &mut each).await {
        // The cluster does not know the kind.
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        read => read.err().map(|error| list::unread(Namespaces::All, &error)).into_iter().collect(),
    }
}

/// The places in one object.
fn found(kind: &ApiResource, object: &DynamicObject, wanted: &[Fingerprint]) -> Vec<Place> {
    let mut places = Vec::new();
    let mut look = |field: &str, value: &[u8]| {
        for sha256 in wanted.iter().filter(|wanted| holds(value, **wanted)) {
            places.push(Place {
                kind: kind.kind.clone(),
                namespace: object.namespace(),
                name: object.name_any(),
                field: field.to_owned(),
                sha256: sha256.to_string(),
            });
        }
    };
    if kind.kind == "ConfigMap" {
        for (field, is_binary) in [("data", false), ("binaryData", true)] {
            for (key, value) in object.data[field].as_object().into_iter().flatten() {
                let text = value.as_str().unwrap_or_default();
                let bytes = if is_binary { decoded(text) } else { text.as_bytes().to_vec() };
                look(&format!("{field}.{key}"), &bytes);
            }
        }
    } else {
        ca_bundles(&object.data, "", &mut look);
    }
    places
}

/// Calls `look` with each `caBundle` at any depth, and its path.
fn ca_bundles(value: &Value, path: &str, look: &mut impl FnMut(&str, &[u8])) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().filter(|_| key == "caBundle") {
                    Some(text) => look(&below(key), &decoded(text)),
                    None => ca_bundles(value, &below(key), look),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                ca_bundles(item, &format!("{path}[{index}]"), look);
            }
        }
        _ => {}
    }
}

fn decoded(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).unwrap_or_default()
}

/// Whether a value is this certificate as DER, or holds it as PEM. In YAML or JSON inside of a
/// value, the PEM can be indented, or have `\n` for its ends of line.
fn holds(value: &[u8], wanted: Fingerprint) -> bool {
    if Fingerprint::of(value) == wanted {
        return true;
    }
    let Ok(text) = str::from_utf8(value) else {
        return fingerprints(value).any(|found| found == wanted);
    };
    if !text.contains("-----BEGIN") {
        return false;
    }
    let plain = text.replace("\\n", "\n").replace(['"', '\''], "\n");
    let lines: Vec<&str> = plain.lines().map(str::trim).collect();
    fingerprints(lines.join("\n").as_bytes()).any(|found| found == wanted)
}

/// The fingerprints of all blocks that a reader may take for a certificate.
pub(crate) fn fingerprints(pem: &[u8]) -> impl Iterator<Item = Fingerprint> {
    let blocks = pem::blocks(pem).filter(pem::Block::is_certificate_to_some);
    blocks.filter_map(|block| block.contents()).map(|der| Fingerprint::of(&der))
}

/// The places that are no Secrets.
pub(crate) fn to_text(places: &[Place]) -> String {
    if places.is_empty() {
        return String::new();
    }
    let mut table = Table::new(vec![
        Column { head: "ELSEWHERE", max_width: 40 },
        Column { head: "CA", max_width: 8 },
        Column { head: "FIELD", max_width: 28 },
    ]);
    for place in places {
        let namespace = place.namespace.as_ref().map(|name| format!("{name}/"));
        let name = format!("{} {}{}", place.kind, namespace.unwrap_or_default(), place.name);
        let sha256 = place.sha256.chars().take(8).collect();
        table.push(Row::new(vec![vec![name], vec![sha256], vec![place.field.clone()]]));
    }
    let mut out = format!("\n{}", table.render());
    let _ = writeln!(out, "\nElsewhere: {}", counted(places.len(), "place"));
    paragraph(
        &mut out,
        "  ",
        "ca-overlap does not write there. Remove the CA at its source: cert-manager's cainjector, for \
         one, adds each new CA to a caBundle, and never removes an old one.",
    );
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn places<K>(object: &Value, wanted: &[Fingerprint]) -> Vec<String>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let places = found(&ApiResource::erase::<K>(&()), &object, wanted);
        places.into_iter().map(|place| place.field).collect()
    }

    #[test]
    fn a_certificate_is_found_in_any_key_of_a_config_map() {
        let (stolen, other) = (devtools::certs::ca(), devtools::certs::ca());
        let wanted = [Fingerprint::of(&stolen.der)];
        let indented = stolen.pem.replace('\n', "\n    ");
        let map = json!({
            "metadata": {"name": "m", "namespace": "n"},
            "data": {
                "ca.crt": format!("{}{}", other.pem, stolen.pem),
                "mesh": format!("ca: |\n    {indented}"),
                "mesh.json": json!({"ca": stolen.pem}).to_string(),
                "other.pem": other.pem,
                "words": stolen.sha256(),
            },
            "binaryData": {
                "ca.der": BASE64_STANDARD.encode(&stolen.der),
                "ca.pem": BASE64_STANDARD.encode(&stolen.pem),
                "jks": BASE64_STANDARD.encode(b"\xfe\xed\xfe\xed"),
            },
        });
        let found = places::<ConfigMap>(&map, &wanted);
        let expected = [
            "data.ca.crt",
            "data.mesh",
            "data.mesh.json",
            "binaryData.ca.der",
            "binaryData.ca.pem",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_certificate_is_found_in_ca_bundles() {
        let stolen = devtools::certs::ca();
        let wanted = [Fingerprint::of(&stolen.der)];
        let bundle = BASE64_STANDARD.encode(&stolen.pem);
        let client = json!({"caBundle": bundle, "url": "https://x"});
        let registration =
            json!({"metadata": {"name": "r"}, "webhooks": [{}, {"clientConfig": client}]});
        let expected = ["webhooks[1].clientConfig.caBundle"];
        assert_eq!(places::<MutatingWebhookConfiguration>(&registration, &wanted), expected);
        // A schema can have a property of this name.
        let schema = json!({"properties": {"caBundle": {"type": "string"}}});
        let definition = json!({"metadata": {"name": "d"}, "spec": {
            "conversion": {"webhook": {"clientConfig": client}},
            "versions": [{"schema": {"openAPIV3Schema": schema}}],
        }});
        let expected = ["spec.conversion.webhook.clientConfig.caBundle"];
        assert_eq!(places::<CustomResourceDefinition>(&definition, &wanted), expected);
        let service = json!({"metadata": {"name": "s"}, "spec": client});
        assert_eq!(places::<APIService>(&service, &wanted), ["spec.caBundle"]);
    }
}
