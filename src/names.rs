//! The names that form the contract with users, generators and manifests.
//!
//! Each name that appears in a Secret, a manifest or a flag default is defined here once. A test
//! compares the manifests with these constants.

/// Prefix of our labels and annotations.
pub const PREFIX: &str = "ca-overlap.dev/";

/// Label, set by people: `bundle`, `staged` or `off`.
pub const MODE: &str = "ca-overlap.dev/mode";
/// Label, ours: `overlap` while something is carried, `staged` while a new leaf waits.
pub const PHASE: &str = "ca-overlap.dev/phase";

/// A value of [`PHASE`]: something is carried.
pub const PHASE_OVERLAP: &str = "overlap";
/// A value of [`PHASE`]: a new leaf waits.
pub const PHASE_STAGED: &str = "staged";

/// Annotation, ours: the record of the carried certificates (JSON list).
pub const CARRIED: &str = "ca-overlap.dev/carried";
/// Annotation, ours: the state of a staged rotation.
pub const STAGED: &str = "ca-overlap.dev/staged";
/// Annotation, set by people: how many previous CAs to carry, 0–8.
pub const KEEP: &str = "ca-overlap.dev/keep";
/// Annotation, set by people: how long to carry them, such as `24h`, or `none`.
pub const WINDOW: &str = "ca-overlap.dev/window";
/// Annotation, set by people: fingerprints of certificates that must not be carried.
pub const DISTRUST: &str = "ca-overlap.dev/distrust";
/// Annotation, set by people: CAs to trust ahead of time.
pub const ANNOUNCE: &str = "ca-overlap.dev/announce";
/// Label: `true`, by a person: Secrets of other namespaces may trust this one. `issuer`, by the
/// keeper: the Secret of a CA issuer that it follows.
pub const SOURCE: &str = "ca-overlap.dev/source";
/// A value of [`SOURCE`]: a person lets Secrets of other namespaces trust this one.
pub const SOURCE_TRUE: &str = "true";
/// A value of [`SOURCE`]: the Secret of a CA issuer that the keeper follows.
pub const SOURCE_ISSUER: &str = "issuer";
/// Annotation, set by people: the sources whose CAs the readers of this Secret trust as well.
pub const TRUST: &str = "ca-overlap.dev/trust";
/// Annotation, written by the keeper: the uids of the namespaces that [`TRUST`] names, as they were
/// when it was set: `<namespace>=<uid>` with commas.
pub const TRUSTED: &str = "ca-overlap.dev/trusted";
/// Annotation, ours, on a source: the CAs that it held before.
pub const PREVIOUS: &str = "ca-overlap.dev/previous";
/// Annotation, set by people: workloads that the keeper restarts after a change of trust.
pub const RESTART: &str = "ca-overlap.dev/restart";
/// Annotation, set by people: the name of a group of Secrets that rotate together.
pub const GROUP: &str = "ca-overlap.dev/group";
/// Annotation, written by the keeper: the trust that it restarts workloads for, and its progress.
pub const RESTARTED: &str = "ca-overlap.dev/restarted";

/// Annotation prefix on a pod template, written by the keeper: the trust that the pods loaded from
/// a Secret when they started. A hash of the Secret's name follows the prefix.
pub const RESTARTED_FOR: &str = "ca-overlap.dev/restarted-for";
/// Annotation on a pod template, written by the keeper: when it restarted the workload.
pub const RESTARTED_AT: &str = "ca-overlap.dev/restarted-at";
/// Annotation on a workload (not on its pod template), set by people: `true` lets any Secret of the
/// namespace restart it.
pub const ALLOW_RESTART: &str = "ca-overlap.dev/allow-restart";

/// Annotation, written by the keeper: what it asks the webhook to do in the same request. The
/// webhook always removes it, so one that is stored was not seen by the webhook.
pub const ASK: &str = "ca-overlap.dev/ask";

/// All our labels and annotations on Secrets. Other keys with our prefix are never read, restored
/// or removed.
pub const KEYS: [&str; 16] = [
    MODE, SOURCE, PHASE, CARRIED, STAGED, PREVIOUS, KEEP, WINDOW, DISTRUST, ANNOUNCE, TRUST,
    TRUSTED, RESTART, GROUP, RESTARTED, ASK,
];

/// The annotations that people or the keeper set. A generator's PUT drops them, and so do DELETE
/// and CREATE. They are restored.
pub const SETTINGS: [&str; 9] =
    [DISTRUST, KEEP, WINDOW, ANNOUNCE, TRUST, RESTART, GROUP, RESTARTED, TRUSTED];

/// Those of [`SETTINGS`] that the keeper writes.
pub const NOTES: [&str; 2] = [RESTARTED, TRUSTED];

/// The labels that people or the keeper set. They are restored as well.
pub const LABEL_SETTINGS: [&str; 2] = [MODE, SOURCE];

/// The longest value of this key in bytes that is restored: far longer than any useful one.
pub fn max_restored(key: &str) -> usize {
    // These hold certificates.
    if [ANNOUNCE, PREVIOUS].contains(&key) { 16 * 1024 } else { MAX_RESTORED }
}

/// Whether this value is restored where a writer drops it.
pub fn is_restored(key: &str, value: &str) -> bool {
    value.len() <= max_restored(key)
}

/// [`max_restored`] of most keys.
pub const MAX_RESTORED: usize = 4096;

/// The annotation by which cert-manager marks a Secret that it owns.
pub const CERT_MANAGER_CERTIFICATE: &str = "cert-manager.io/certificate-name";
/// Label of the Secrets that cert-manager owns.
pub const CERT_MANAGER_OWNED: &str = "controller.cert-manager.io/fao";
/// Annotations of these Secrets: the name, kind and API group of the issuer.
pub const CERT_MANAGER_ISSUER: [&str; 3] =
    ["cert-manager.io/issuer-name", "cert-manager.io/issuer-kind", "cert-manager.io/issuer-group"];

/// Data key of the trust anchors.
pub const CA_CRT: &str = "ca.crt";
/// Data key of the leaf certificate and its chain.
pub const TLS_CRT: &str = "tls.crt";
/// Data key of the leaf's private key. Only staged mode reads it, as an opaque string.
pub const TLS_KEY: &str = "tls.key";
/// Data key of the waiting leaf and its chain while a rotation is staged.
pub const PENDING_TLS_CRT: &str = "pending.tls.crt";
/// Data key of the waiting leaf's private key while a rotation is staged.
pub const PENDING_TLS_KEY: &str = "pending.tls.key";

/// The data keys of the waiting pair.
pub const PENDING: [&str; 2] = [PENDING_TLS_CRT, PENDING_TLS_KEY];

/// Default namespace of the installation.
pub const NAMESPACE: &str = "ca-overlap";
/// The namespace that the registration leaves out, besides that of the installation.
pub const UNCALLED_NAMESPACE: &str = "kube-system";
/// Default name of the webhook's Service.
pub const SERVICE: &str = "ca-overlap-webhook";
/// Default name of the Secret that holds our own CA.
pub const CA_SECRET: &str = "ca-overlap-ca";
/// The ConfigMap with the list of distrusted CAs.
pub const DISTRUSTED_CONFIG_MAP: &str = "ca-overlap-distrusted";
/// Default name of the `MutatingWebhookConfiguration`.
pub const WEBHOOK_CONFIGURATION: &str = "ca-overlap";
/// Name of the webhook in that configuration.
pub const WEBHOOK: &str = "secrets.ca-overlap.dev";
/// Name of its second entry, for writers who may not read the Secret. Only with `--staged`.
pub const STRANGER_WEBHOOK: &str = "strangers.secrets.ca-overlap.dev";
/// `ServiceAccount` of the webhook.
pub const WEBHOOK_SERVICE_ACCOUNT: &str = "ca-overlap-webhook";
/// `ServiceAccount` of the keeper.
pub const KEEPER_SERVICE_ACCOUNT: &str = "ca-overlap-keeper";
/// Lease of the keeper's leader election. The webhook watches it with `--staged`.
pub const KEEPER_LEASE: &str = "ca-overlap-keeper";
/// How the holder of that Lease is named, with a suffix, while `drain` keeps the keeper from acting.
/// The webhook then stages nothing.
pub const DRAIN_HOLDER: &str = "ca-overlap-drain";
/// How the holder of that Lease is named, with a suffix, if it is a keeper with `--audit`. It promotes
/// nothing, so a webhook without `--audit` stages nothing.
pub const AUDIT_HOLDER: &str = "ca-overlap-audit";
/// Annotation on the `MutatingWebhookConfiguration`, by the manifests: `true` with `--audit`.
pub const AUDIT: &str = "ca-overlap.dev/audit";
/// Path of the admission endpoint.
pub const MUTATE_PATH: &str = "/mutate";
/// Path of the admission endpoint for writers who may not read the Secret.
pub const STRANGER_PATH: &str = "/mutate/stranger";

/// Parses `NAMESPACE/NAME` or `NAME`, or `secret/NAME` as kubectl prints it. The names must be valid
/// by the API server's rules.
pub(crate) fn parse_secret(text: &str) -> Option<(Option<&str>, &str)> {
    let (namespace, name) = match text.split_once('/') {
        Some(("secret", name)) => (None, name),
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    (is_name(name) && namespace.is_none_or(is_namespace)).then_some((namespace, name))
}

/// Whether this can be the name of a namespace: a DNS label (RFC 1123).
pub(crate) fn is_namespace(text: &str) -> bool {
    text.len() <= 63 && is_label(text)
}

/// Whether this can be the name of most objects: a DNS subdomain (RFC 1123).
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    let is_known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty() && text.bytes().all(is_known) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_not_parsed_as_the_name_of_a_secret() {
        assert_eq!(parse_secret("gateway/envoy"), Some((Some("gateway"), "envoy")));
        assert_eq!(parse_secret("a-1/b.c-d"), Some((Some("a-1"), "b.c-d")));
        assert_eq!(parse_secret("b.c-d"), Some((None, "b.c-d")));
        assert_eq!(parse_secret("secret/b"), Some((None, "b")));
        for path in [
            "./a", "a/b/c", "/a", "a/", "A/b", "a.b/c", "-a/b", "a/.b", "a/b..c", "", "/", "a_b",
            "a/b-",
        ] {
            assert_eq!(parse_secret(path), None, "{path}");
        }
    }
}
