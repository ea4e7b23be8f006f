//! Every form of input, what is shown, and one clear line for each mistake.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::prelude::*;
use ca_overlap::overlap::source::Previous;
use serde_json::{Value, json};

use crate::readers::odd;

use super::secrets::{LEAF, annotated, ca, carrying, secret, tls};
use super::{CANARY, NOW, inspect};
use crate::support;
use devtools::certs::Spec;

#[test]
fn each_certificate_is_shown_with_its_role() {
    let (old, new) = (ca("Root 2025"), ca("Root 2026"));
    let names = ["envoy.gateway.svc", "10.0.0.7"];
    let leaf = Spec { names: &names, ..LEAF }.signed_by(&new);
    let secret = carrying(tls(&[&new, &old], &[&leaf]), &old, Some("2026-03-02T00:00:00Z"));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("it.json"), secret.to_string()).unwrap();
    let ended = inspect(dir.path(), &["it.json"]);
    let text = ended.with_code(0);
    for expected in [
        "Secret    gateway/envoy, kubernetes.io/tls".to_owned(),
        "Webhook   carries previous CAs: mode bundle, keep 1, window none".to_owned(),
        "phase overlap; a previous CA is dropped (2026-03-02T00:00:00Z)".to_owned(),
        "ca.crt: 2 certificates".to_owned(),
        "   1. CN=Root 2026\n      the generator's own; active; the leaf verifies against it; expires \
         2035-01-01, in 3227d\n"
            .to_owned(),
        "   2. CN=Root 2025\n      carried since 2026-02-01T00:00:00Z, until 2026-03-02T00:00:00Z; \
         expires 2035-01-01"
            .to_owned(),
        format!("sha256 {}", old.sha256()),
        "the leaf, for envoy.gateway.svc, 10.0.0.7; expires 2027-01-01".to_owned(),
        "No lint rule fires.".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected} is not in\n{text}");
    }
    let document = inspect(dir.path(), &["it.json", "-o", "json"]).json();
    let one = &document["inspected"][0];
    assert_eq!((&one["namespace"], &one["name"]), (&json!("gateway"), &json!("envoy")));
    assert_eq!((&one["mode"], &one["phase"]), (&json!("bundle"), &json!("overlap")));
    assert_eq!(one["leftAlone"], Value::Null);
    assert_eq!(one["keys"], json!(["ca.crt", "tls.crt", "tls.key"]));
    let (first, second) = (&one["ca.crt"][0], &one["ca.crt"][1]);
    assert_eq!((&first["active"], &first["carried"]), (&json!(true), &json!(false)));
    assert_eq!(first["verifiesLeaf"], true);
    assert_eq!(second["sha256"], old.sha256());
    assert_eq!((&second["active"], &second["carried"]), (&json!(false), &json!(true)));
    assert_eq!(second["until"], "2026-03-02T00:00:00Z");
    assert_eq!(one["tls.crt"][0]["names"], json!(names));
    assert_eq!(one["findings"], json!([]));
    let yaml = inspect(dir.path(), &["it.json", "-o", "yaml"]);
    assert_eq!(serde_saphyr::from_str::<Value>(yaml.with_code(0)).unwrap(), document);
}

#[test]
fn a_source_is_shown_with_its_previous_cas_and_a_follower_with_its_sources() {
    let (old, new) = (ca("Root 2025"), ca("Root 2026"));
    let previous =
        Previous { der: old.der.to_vec(), since: "2026-02-01T00:00:00Z".parse().unwrap() };
    let mut secret = annotated(tls(&[&new], &[&LEAF.signed_by(&new)]), "trust", "shop/root, ca");
    secret = annotated(secret, "previous", &previous.to_string());
    let dir = tempfile::tempdir().unwrap();
    let text = |secret: &Value, arguments: &[&str]| {
        fs::write(dir.path().join("it.json"), secret.to_string()).unwrap();
        inspect(dir.path(), &[&["it.json"], arguments].concat())
    };
    let shown = text(&secret, &[]);
    assert!(shown.stdout.contains("\nTrusts    shop/root, ca\n"), "{}", shown.stdout);
    assert!(!shown.stdout.contains("Source"), "{}", shown.stdout);
    secret["metadata"]["labels"]["ca-overlap.dev/source"] = "true".into();
    let shown = text(&secret, &[]);
    for expected in [
        "\nSource    other Secrets may trust its CAs; previous ones: 1\n".to_owned(),
        "CN=Root 2025, since 2026-02-01T00:00:00Z\n".to_owned(),
        format!("sha256 {}\n", old.sha256()),
    ] {
        assert!(shown.stdout.contains(&expected), "{expected} is not in\n{}", shown.stdout);
    }
    let document = text(&secret, &["-o", "json"]).json();
    let one = &document["inspected"][0];
    assert_eq!((&one["trust"], &one["isSource"]), (&json!(["shop/root", "ca"]), &json!(true)));
    assert_eq!(one["previous"][0]["sha256"], old.sha256());
}

#[test]
fn pem_der_yaml_and_lists_are_read_alike() {
    let (root, other) = (ca("Root 1"), ca("Root 2"));
    let leaf = LEAF.signed_by(&root);
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).unwrap();
    write("ca.pem", root.pem.as_bytes());
    write("ca.der", &root.der);
    write("leaf.pem", leaf.pem.as_bytes());
    write("leaf.der", &leaf.der);
    write("other.pem", other.pem.as_bytes());
    let literal = |pem: &str| pem.trim_end().replace('\n', "\n    ");
    let yaml = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: it\nstringData:\n  tls.key: {CANARY}\n  ca.crt: |\n    \
         {}\n",
        literal(&root.pem)
    );
    write("secret.yaml", yaml.as_bytes());
    write("two.yaml", format!("{yaml}---\n{yaml}").as_bytes());
    let list = json!({"apiVersion": "v1", "kind": "List",
        "items": [tls(&[&root], &[&leaf]), tls(&[&other], &[&leaf])]});
    write("list.json", list.to_string().as_bytes());

    for (arguments, code, count) in [
        (&["ca.pem"][..], 0, 1),
        (&["ca.der"], 0, 1),
        (&["ca.pem", "--leaf", "leaf.pem"], 0, 1),
        (&["ca.der", "--leaf", "leaf.der"], 0, 1),
        (&["other.pem", "--leaf", "leaf.pem"], 1, 1),
        (&["leaf.pem"], 1, 1),
        (&["secret.yaml"], 0, 1),
        (&["two.yaml"], 0, 2),
        (&["list.json"], 1, 2),
    ] {
        let document = inspect(dir.path(), &[arguments, &["-o", "json"]].concat());
        document.with_code(code);
        let inspected = document.json()["inspected"].as_array().unwrap().clone();
        assert_eq!(inspected.len(), count, "{arguments:?}");
        inspect(dir.path(), arguments).with_code(code);
    }
    let list = inspect(dir.path(), &["list.json", "-o", "json"]).json();
    assert_eq!(list["inspected"][0]["findings"], json!([]));
    assert_eq!(list["inspected"][1]["findings"][0]["rule"], "leaf-not-chained");
}

#[test]
fn standard_input_is_read() {
    let secret = tls(&[&ca("Root")], &[]);
    let mut child = Command::new(crate::support::binary::path())
        .args(["inspect", "-", "--at", NOW])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(secret.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("CN=Root"));
}

#[test]
fn a_secret_that_the_webhook_leaves_alone_is_reported() {
    let root = ca("Root");
    let object = |change: &dyn Fn(&mut Value)| {
        let mut secret = tls(&[&root], &[&LEAF.signed_by(&root)]);
        change(&mut secret);
        secret
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("it.json");
    for (secret, said) in [
        (object(&|s| s["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "off"})), "mode off"),
        (
            object(&|s| s["metadata"]["labels"] = json!({"strimzi.io/kind": "Kafka"})),
            "previous CAs itself",
        ),
        (
            object(&|s| s["metadata"]["annotations"] = json!({"secret-data-hash": "17"})),
            "its writer compares it",
        ),
        (
            object(&|s| {
                s["metadata"]["ownerReferences"] =
                    json!([{"apiVersion": "secrets.hashicorp.com/v1"}]);
            }),
            "its writer compares it",
        ),
        (object(&|s| s["immutable"] = json!(true)), "immutable"),
        (object(&|s| s["metadata"]["namespace"] = json!("ca-overlap")), "own namespace"),
        (object(&|s| s["type"] = json!("kubernetes.io/service-account-token")), "ServiceAccount"),
        (tls(&[&root], &[&root]), "signing Secret"),
    ] {
        fs::write(&file, secret.to_string()).unwrap();
        let ended = inspect(dir.path(), &["it.json", "--ignore", "leaf-without-names"]);
        assert!(ended.with_code(0).contains(said), "{said} is not in {}", ended.stdout);
    }
}

#[test]
fn a_secret_without_ca_crt_is_explained_too() {
    let root = ca("Root");
    let dir = tempfile::tempdir().unwrap();
    for (key, said) in [("blob", "nothing to overlap"), ("ca-cert.pem", "may be under ca-cert.pem")]
    {
        let leaf = LEAF.signed_by(&root);
        let secret = secret(&[(key, root.pem.as_bytes()), ("tls.crt", leaf.pem.as_bytes())]);
        fs::write(dir.path().join("it.json"), secret.to_string()).unwrap();
        let ended = inspect(dir.path(), &["it.json"]);
        let text = ended.with_code(0);
        assert!(text.contains(said) && text.contains("the leaf, for leaf.gateway.svc"), "{text}");
    }
}

#[test]
fn control_characters_and_long_names_do_not_reach_the_terminal() {
    let subject = format!("a\u{1b}[2J{}", "x".repeat(250));
    let root = Spec { subject: &subject, ..super::secrets::CA }.self_signed();
    let mut secret = tls(&[&root], &[&LEAF.signed_by(&root)]);
    secret["metadata"]["name"] = json!(format!("{}\u{1b}[31m", "n".repeat(250)));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("it.json"), secret.to_string()).unwrap();
    let ended = inspect(dir.path(), &["it.json"]);
    assert!(!ended.with_code(0).contains('\u{1b}'));
}

#[test]
fn errors_are_one_line_that_names_the_cause() {
    let root = ca("Root");
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
    write("ca.pem", &root.pem);
    write("secret.json", &tls(&[&root], &[]).to_string());
    write("junk", &format!("{CANARY}: ["));
    write("pod.json", r#"{"kind": "Pod", "apiVersion": "v1"}"#);
    write("empty.json", r#"{"kind": "List", "items": []}"#);
    let mut bad = tls(&[&root], &[]);
    bad["data"]["tls.crt"] = json!(format!("{CANARY} %"));
    write("bad.json", &bad.to_string());
    let shadowed = BASE64_STANDARD.encode(CANARY);
    for (arguments, code, names) in [
        (&["missing.pem"][..], 64, "missing.pem"),
        (&["a/b/c"], 64, "a/b/c"),
        (&["gateway/envoy"], 2, "KUBECONFIG"),
        (&["gateway/envoy", "--leaf", "ca.pem"], 64, "--leaf"),
        (&["junk"], 2, "junk"),
        (&["pod.json"], 2, "pod.json"),
        (&["empty.json"], 2, "empty.json"),
        (&["bad.json"], 2, "tls.crt"),
        (&["."], 2, "cannot read"),
        (&["ca.pem", "--leaf", "junk"], 2, "junk"),
        (&["ca.pem", "--leaf", "missing"], 2, "missing"),
        (&["secret.json", "--leaf", "ca.pem"], 64, "--leaf"),
        (&["ca.pem", "-o", "xml"], 64, "xml"),
        (&["ca.pem", "--settle", "soon"], 64, "--settle"),
        (&["ca.pem", "--window", "soon"], 64, "--window"),
        (&["ca.pem", "missing.pem"], 64, "missing.pem"),
        (&["ca.pem", "-A"], 64, "--all-namespaces"),
        (&[], 64, "FILE"),
    ] {
        let ended = inspect(dir.path(), arguments);
        assert_eq!(ended.code, code, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(names), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains(&shadowed) && ended.stdout.is_empty());
        assert!(code == 64 || ended.stderr.lines().count() == 1, "{}", ended.stderr);
    }
}

#[test]
fn colour_is_only_for_terminals_and_obeys_no_color() {
    let test = "colour_is_only_for_terminals_and_obeys_no_color";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), ca("Root").pem).unwrap();
    let shown = |variable: &str| {
        let program = crate::support::binary::path();
        let command = format!("{} inspect --at {NOW} ca.pem", program.display());
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &command, "/dev/null"]).current_dir(dir.path());
        terminal.env("NO_COLOR", variable).stdin(Stdio::null());
        terminal.output().ok().map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let Some(coloured) = shown("") else {
        return support::skip::skip(test, "no script(1)").unwrap_or(());
    };
    assert!(coloured.contains("\u{1b}[32mNo lint rule fires"), "{coloured}");
    assert!(!shown("1").unwrap().contains('\u{1b}'));
    assert!(!inspect(dir.path(), &["ca.pem"]).stdout.contains('\u{1b}'), "no terminal");
}

#[test]
fn an_entry_of_another_object_does_not_count() {
    let (old, new) = (ca("Root 2025"), ca("Root 2026"));
    let leaf = LEAF.signed_by(&new);
    let dir = tempfile::tempdir().unwrap();
    for (uid, carried) in [("1", true), ("2", false)] {
        let mut secret = carrying(tls(&[&new, &old], &[&leaf]), &old, None);
        secret["metadata"]["uid"] = "1".into();
        let record = &mut secret["metadata"]["annotations"]["ca-overlap.dev/carried"];
        let mut entries: Value = serde_json::from_str(record.as_str().unwrap()).unwrap();
        entries[0]["uid"] = uid.into();
        *record = entries.to_string().into();
        fs::write(dir.path().join("it.json"), secret.to_string()).unwrap();
        let document = inspect(dir.path(), &["it.json", "-o", "json"]).json();
        assert_eq!(document["inspected"][0]["ca.crt"][1]["carried"], carried, "{uid}");
    }
}

#[test]
fn names_that_are_no_text_are_shown_as_far_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), odd::pem("latin-1-in-utf8")).unwrap();
    let shown = inspect(dir.path(), &["ca.pem"]);
    assert!(shown.with_code(1).contains("CN=M?ller"), "{}", shown.stdout);
    let json = inspect(dir.path(), &["ca.pem", "-o", "json"]).json().to_string();
    assert!(!json.contains("X509Error"), "{json}");
}

#[test]
fn a_byte_order_mark_at_the_start_hides_no_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let marked = format!("\u{feff}{}", odd::pem("p256"));
    fs::write(dir.path().join("ca.pem"), marked).unwrap();
    let shown = inspect(dir.path(), &["ca.pem"]);
    let text = shown.with_code(1);
    assert!(text.contains("1 certificate") && text.contains("byte order mark"), "{text}");
}
