//! What the objects of the cluster say. Most checks are pure; some read one more object.

use std::collections::BTreeSet;

use base64::prelude::*;
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;

use super::report::Line;
use crate::admission::keeper_lease::is_keeper;
use crate::names;
use crate::tools::elsewhere::fingerprints;
use crate::tools::installed::Server;
use crate::tools::plain;
use crate::tools::registration::{self, entries, is_audit};
use crate::tools::text::{age, counted, short};
use crate::x509::certs::Fingerprint;

/// The first version whose API server evaluates the registration's conditions.
const OLDEST: u32 = 30;

pub(super) fn kubernetes(version: &Value) -> Line {
    let text = |key: &str| version[key].as_str().unwrap_or_default();
    let minor = text("minor").trim_end_matches(|c: char| !c.is_ascii_digit()).parse();
    let found = text("gitVersion");
    match (text("major"), minor) {
        ("1", Ok(0..OLDEST)) => {
            Line::bad("kubernetes", found, format!("upgrade to 1.{OLDEST} or later"))
        }
        ("", _) | (_, Err(_)) => Line::unknown("kubernetes", "the API server says no version"),
        _ => Line::good("kubernetes", found),
    }
}

/// The entries of a registration, and whether they fit the flags of the webhook.
pub(super) fn registration(it: &Value, webhook: Option<&Server>) -> Line {
    const NAME: &str = "registration";
    const AGAIN: &str = "apply the manifests again, with the same components for all objects";
    let has = |entry: &Value, operation: &str| {
        let rules = entry["rules"].as_array().into_iter().flatten();
        let mut operations = rules.filter_map(|rule| rule["operations"].as_array()).flatten();
        operations.any(|found| found == operation || found == "*")
    };
    for entry in entries(it) {
        let name = entry["name"].as_str().unwrap_or_default();
        let expected =
            if name == names::WEBHOOK { names::MUTATE_PATH } else { names::STRANGER_PATH };
        let client = &entry["clientConfig"];
        let path = client["service"]["path"].as_str().or(client["url"].as_str());
        if !path.is_some_and(|path| path.ends_with(expected)) {
            return Line::bad(NAME, format!("its entry {name} has not the path {expected}"), AGAIN);
        }
        if !["CREATE", "UPDATE"].iter().all(|operation| has(entry, operation)) {
            return Line::bad(NAME, format!("its entry {name} lacks CREATE or UPDATE"), AGAIN);
        }
    }
    let all: Vec<&Value> = entries(it).collect();
    if let Some(webhook) = webhook {
        let has_stranger = all.iter().any(|entry| entry["name"] == names::STRANGER_WEBHOOK);
        if webhook.is_on("--staged") && !has_stranger {
            let problem = format!(
                "the webhook runs with --staged, and there is no entry {}: who may write a Secret, but \
                 not read it, could see its key",
                names::STRANGER_WEBHOOK
            );
            return Line::bad(NAME, problem, AGAIN);
        }
        if webhook.is_on("--audit") != is_audit(it) {
            let problem =
                format!("its annotation {} is not what --audit of the webhook says", names::AUDIT);
            return Line::bad(NAME, problem, AGAIN);
        }
    }
    let policies: BTreeSet<&str> =
        all.iter().filter_map(|entry| entry["failurePolicy"].as_str()).collect();
    let policies = policies.into_iter().collect::<Vec<_>>().join(" and ");
    let is_opt_in = all.iter().any(|entry| {
        entry["objectSelector"].as_object().is_some_and(|selector| !selector.is_empty())
    });
    let opt_in = if is_opt_in { ", only for Secrets that a selector chooses" } else { "" };
    let audit = if is_audit(it) { ", --audit: nothing is changed" } else { "" };
    let name = it["metadata"]["name"].as_str().unwrap_or_default();
    let number =
        if all.len() == 1 { "1 entry".to_owned() } else { format!("{} entries", all.len()) };
    Line::good(NAME, format!("{name}: {number}, failurePolicy {policies}{opt_in}{audit}"))
}

/// Whether each entry trusts the CAs of the webhook.
pub(super) async fn ca_bundle(
    client: &Client,
    namespace: &str,
    registration: &Value,
    webhook: Option<&Server>,
) -> Line {
    const NAME: &str = "caBundle";
    let webhook = webhook.filter(|it| it.is_on("--self-managed"));
    let mut fewest = usize::MAX;
    let mut bundles = Vec::new();
    for entry in entries(registration) {
        let name = entry["name"].as_str().unwrap_or_default();
        let trusted = trusted(entry);
        if trusted.is_empty() {
            let advice = match webhook {
                Some(_) => "the webhook writes it: its log says what it lacks",
                None => {
                    "who makes the certificate writes it, as cert-manager's cainjector does: its log \
                         says why it does not"
                }
            };
            return Line::bad(
                NAME,
                format!("it is empty in the entry {name}, so that each call fails"),
                advice,
            );
        }
        fewest = fewest.min(trusted.len());
        bundles.push((name, trusted));
    }
    let Some(webhook) = webhook else {
        return Line::good(NAME, format!("{} in each entry", counted(fewest, "CA")));
    };
    let secret = webhook.named("--ca-secret", names::CA_SECRET);
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{secret}");
    let own = match plain::get(client, &path).await {
        Err(error) => return Line::unread(NAME, &error),
        Ok(found) => own_cas(&found.unwrap_or_default()),
    };
    if own.is_empty() {
        let advice =
            "apply the manifests again, and look at the log of the webhook, which fills it";
        return Line::bad(
            NAME,
            format!("the Secret {secret} is not there, or holds no CA"),
            advice,
        );
    }
    for (name, trusted) in bundles {
        if let Some(missing) = own.iter().find(|ca| !trusted.contains(ca)) {
            return Line::bad(
                NAME,
                format!("the entry {name} lacks the CA {} of the Secret {secret}", short(*missing)),
                "the webhook puts it back within a minute; if it does not stay, something else writes \
                 the registration: see docs/gitops.md",
            );
        }
    }
    Line::good(
        NAME,
        format!("each entry has the {} of the Secret {secret}", counted(own.len(), "CA")),
    )
}

fn trusted(entry: &Value) -> Vec<Fingerprint> {
    let bundle = registration::ca_bundle(entry).unwrap_or_default();
    fingerprints(&BASE64_STANDARD.decode(bundle).unwrap_or_default()).collect()
}

/// The CAs of the webhook. The keys beside them are not looked at.
fn own_cas(secret: &Value) -> Vec<Fingerprint> {
    let values = secret["data"].as_object().into_iter().flatten();
    let decoded = values.filter_map(|(_, value)| BASE64_STANDARD.decode(value.as_str()?).ok());
    let lists = decoded.filter_map(|text| serde_json::from_slice::<Value>(&text).ok());
    let mut found = Vec::new();
    for list in lists {
        for ca in list.as_array().into_iter().flatten() {
            found.extend(fingerprints(ca["certificate"].as_str().unwrap_or_default().as_bytes()));
        }
    }
    found
}

/// Whether the Service that the API server calls leads to a replica.
pub(super) async fn endpoints(client: &Client, registration: &Value) -> Line {
    const NAME: &str = "endpoints";
    let service = entries(registration).map(|entry| &entry["clientConfig"]["service"]).next();
    let text = |key: &str| service.and_then(|service| service[key].as_str()).unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    if name.is_empty() {
        return Line::good(NAME, "the webhook is called by its URL, without a Service");
    }
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
    );
    let slices = match plain::list(client, &path).await {
        Ok(slices) => slices,
        Err(error) => return Line::unread(NAME, &error),
    };
    let all = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
    let ready = all.filter(|endpoint| endpoint["conditions"]["ready"] != false).count();
    if ready == 0 {
        return Line::bad(
            NAME,
            format!(
                "the Service {namespace}/{name} has no ready endpoint, so that each call fails"
            ),
            format!(
                "kubectl -n {namespace} get pods: a replica is ready when the caBundle verifies it"
            ),
        );
    }
    Line::good(
        NAME,
        format!("{} behind the Service {namespace}/{name}", counted(ready, "ready replica")),
    )
}

pub(super) fn deployment(name: &'static str, server: &Server, namespace: &str) -> Line {
    let Server { wanted, ready, image, .. } = server;
    let found = format!("{ready} of {wanted} replicas ready and up to date, {image}");
    if *wanted > 0 && ready >= wanted {
        return Line::good(name, found);
    }
    let advice =
        format!("kubectl -n {namespace} describe pods -l app.kubernetes.io/component={name}");
    Line::bad(name, found, advice)
}

/// Whether a pod of the keeper holds the Lease, by the clock of this machine.
pub(super) async fn lease(client: &Client, namespace: &str, keeper: &Server) -> Line {
    const NAME: &str = "lease";
    let lease = keeper.named("--lease", names::KEEPER_LEASE);
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{lease}");
    let log = format!("kubectl -n {namespace} logs -l app.kubernetes.io/component=keeper");
    let spec = match plain::get(client, &path).await {
        Err(error) => return Line::unread(NAME, &error),
        Ok(None) => {
            return Line::bad(NAME, format!("there is no Lease {lease}: no keeper acts"), log);
        }
        Ok(Some(mut found)) => found["spec"].take(),
    };
    let holder = spec["holderIdentity"].as_str().unwrap_or_default();
    if holder.is_empty() {
        return Line::bad(NAME, format!("nobody holds the Lease {lease}: no keeper acts"), log);
    }
    if !is_keeper(holder, true) {
        let advice = "wait until that command ends; if it was killed, the Lease ends within 15 s";
        return Line::bad(NAME, "ca-overlap drain holds it, so that no keeper acts", advice);
    }
    let renewed = spec["renewTime"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let renewed = renewed.unwrap_or(Timestamp::UNIX_EPOCH).as_second();
    let valid = spec["leaseDurationSeconds"].as_i64().unwrap_or_default();
    let passed = Timestamp::now().as_second() - renewed;
    if passed > valid {
        let found = format!(
            "{holder} renewed it {} ago, and it is valid for {}: no keeper acts",
            age(passed),
            age(valid)
        );
        return Line::bad(NAME, found, format!("{log} (or the clock of this machine is wrong)"));
    }
    let audited = holder.strip_prefix(names::AUDIT_HOLDER).and_then(|rest| rest.strip_prefix('-'));
    let pod = audited.unwrap_or(holder);
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods?labelSelector=app.kubernetes.io%2Fcomponent%3Dkeeper"
    );
    match plain::list(client, &path).await {
        Err(error) => Line::unread(NAME, &error),
        Ok(pods) if pods.iter().any(|it| it["metadata"]["name"] == pod) => {
            let audit = if audited.is_some() { ", --audit: it changes nothing" } else { "" };
            Line::good(NAME, format!("{pod} renewed it {} ago{audit}", age(passed.max(0))))
        }
        Ok(_) if keeper.named("--identity", "") == pod => {
            Line::good(NAME, format!("{pod} renewed it {} ago", age(passed.max(0))))
        }
        Ok(_) => Line::bad(
            NAME,
            format!("{holder} holds it, which is no pod of the keeper"),
            "another keeper runs somewhere: end it, or give it another --lease",
        ),
    }
}

pub(super) fn versions(webhook: &Server, keeper: &Server) -> Line {
    const NAME: &str = "versions";
    let own = env!("CARGO_PKG_VERSION");
    if webhook.image == keeper.image {
        return Line::good(
            NAME,
            format!("webhook and keeper have one image; this program is {own}"),
        );
    }
    let found = format!("the webhook has {}, the keeper {}", webhook.image, keeper.image);
    Line::bad(NAME, found, "apply the manifests of one version to both")
}

/// The flags that webhook and keeper must get alike: their names for both, the default, and whether
/// the webhook uses it only with `--staged`.
const ALIKE: [(&str, &str, &str, bool); 6] = [
    ("--default-mode", "--default-mode", "bundle", false),
    ("--keep", "--keep", "1", false),
    ("--window", "--window", "none", false),
    ("--distrusted", "--distrusted", "", false),
    ("--settle", "--settle", "300s", true),
    ("--keeper-lease", "--lease", names::KEEPER_LEASE, true),
];

/// Whether the flags of both servers fit.
pub(super) fn flags(webhook: &Server, keeper: Option<&Server>) -> Line {
    const NAME: &str = "flags";
    const SAME: &str = "give both the same";
    let is_staged = webhook.is_on("--staged");
    let (mut alike, mut unknown) = (Vec::new(), Vec::new());
    for (flag, of_keeper, default, only_staged) in ALIKE {
        if only_staged && !is_staged {
            continue;
        }
        let left = webhook.normal(flag, default);
        let right = keeper.map_or_else(|| left.clone(), |it| it.normal(of_keeper, default));
        let (Some(left), Some(right)) = (left, right) else {
            unknown.push(flag);
            continue;
        };
        if left != right {
            let show =
                |value: &str| if value.is_empty() { "none".into() } else { value.to_owned() };
            let (left, right) = (show(&left), show(&right));
            let found =
                format!("{flag}={left} for the webhook, {of_keeper}={right} for the keeper");
            return Line::bad(NAME, found, SAME);
        }
        if !["--distrusted", "--keeper-lease"].contains(&flag) {
            alike.push(format!("{flag}={left}"));
        }
    }
    if webhook.normal("--default-mode", "bundle").as_deref() == Some("staged") && !is_staged {
        let problem = "the webhook has --default-mode=staged without --staged: nothing is staged";
        return Line::bad(NAME, problem, "add components/staged, or take the default mode back");
    }
    let is_audit = webhook.is_on("--audit");
    if keeper.is_some_and(|keeper| keeper.is_on("--audit") != is_audit) {
        let who = if is_audit { "webhook" } else { "keeper" };
        return Line::bad(NAME, format!("only the {who} runs with --audit"), SAME);
    }
    if !unknown.is_empty() {
        let why = format!("{} cannot be read in the Deployments", unknown.join(", "));
        return Line::unknown(NAME, why);
    }
    Line::good(NAME, alike.join(" "))
}
