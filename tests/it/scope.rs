//! Which Secrets the commands look at, how they print them, and what they say of wrong input: as
//! kubectl's users expect.

use std::path::Path;
use std::process::Command;

use devtools::certs::{self, Identity, bundle};
use devtools::secrets::{MERGE, Secrets, tls_secret};
use serde_json::{Value, json};

use crate::support::command::{CommandOutput, command, run};
use crate::support::{Cluster, cluster};

/// A namespace in which the Secrets `a`, `b` and `quiet` carry the same CA as `own`; `a` and `quiet`
/// have the label `app=a`, and only the first two were rotated.
struct Scene {
    secrets: Secrets,
    old: Identity,
    new: Identity,
}

impl Scene {
    async fn new(cluster: &Cluster, test: &str) -> Self {
        let secrets = cluster.namespace(test).await;
        let (old, new) = (certs::ca_named("Old CA"), certs::ca_named("New CA"));
        for name in ["a", "b", "quiet"] {
            let mut first = tls_secret(name, &old.pem, &old.leaf("it"));
            if name != "b" {
                first["metadata"]["labels"] = json!({"app": "a"});
            }
            secrets.create(&first).await.ok();
            if name != "quiet" {
                secrets.put(name, &tls_secret(name, &new.pem, &new.leaf("it"))).await.ok();
            }
        }
        let label = json!({"metadata": {"labels": {"app": "a"}}});
        secrets.patch("a", MERGE, "", &label).await.ok();
        Self { secrets, old, new }
    }

    fn run(&self, cluster: &Cluster, arguments: &[&str]) -> CommandOutput {
        let line = [arguments, &["-n", &self.secrets.namespace]].concat();
        run(&cluster.plane.admin_kubeconfig(), &line)
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn labels_and_names_choose_the_secrets_of_every_command() {
    let test = "labels_and_names_choose_the_secrets_of_every_command";
    let Some(cluster) = cluster(test).await else { return };
    let scene = Scene::new(cluster, test).await;
    let namespace = scene.secrets.namespace.as_str();
    let run = |arguments: &[&str]| scene.run(cluster, arguments);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certs::ca_named("Next CA").pem).unwrap();
    let (next, old) = (file.path().to_str().unwrap(), scene.old.sha256());
    let full = format!("{namespace}/b");

    let status = |more: &[&str]| run(&[&["status", "-o", "json"], more].concat()).json();
    assert_eq!(names(&status(&[])["rotations"]), ["a", "b"]);
    assert_eq!(names(&status(&["-l", "app=a"])["rotations"]), ["a"]);
    for name in ["b", "secret/b", &full] {
        assert_eq!(names(&status(&[name])["rotations"]), ["b"], "{name}");
    }
    assert!(run(&["status", "quiet"]).with_code(0).contains("No rotation in flight in these"));
    let missing = run(&["status", "b", "none"]);
    assert!(missing.with_code(2).contains(" b "), "the others are shown: {}", missing.stdout);
    assert!(missing.stderr.contains(&format!("there is no Secret {namespace}/none")));

    let inspected = run(&["inspect", "-l", "app=a", "-o", "json"]).json();
    assert_eq!(names(&inspected["inspected"]), ["a", "quiet"]);
    let table = run(&["inspect"]);
    let rows: Vec<_> = table.stdout.lines().filter(|line| line.starts_with(namespace)).collect();
    assert_eq!(rows.len(), 3, "{}{}", table.stdout, table.stderr);
    let both = run(&["inspect", "a", &full, "-o", "json"]).json();
    assert_eq!(names(&both["inspected"]), ["a", "b"]);

    // Nothing is sent, so nothing tells what the webhook would do.
    let version = scene.secrets.get("a").await.resource_version().to_owned();
    for (line, code, list) in [
        (&["announce", next, "-l", "app=a", "--dry-run=client"][..], 0, ["a", "quiet"]),
        (&["announce", next, "a", "quiet", "--dry-run=client"], 0, ["a", "quiet"]),
        (&["distrust", &old, "-l", "app=a", "--dry-run=client"], 1, ["a", "quiet"]),
        (&["distrust", &old, "a", "quiet", "--dry-run=client"], 1, ["a", "quiet"]),
    ] {
        let done = run(&[line, &["-o", "json"]].concat());
        assert_eq!(done.code, code, "{line:?}: {}{}", done.stdout, done.stderr);
        let report = done.json();
        assert_eq!(names(&report["secrets"]), list, "{line:?}");
        assert_eq!(report["dryRunStrategy"], "client");
        assert_eq!(report["secrets"][0]["results"][0]["result"], "planned", "{report}");
    }
    assert_eq!(scene.secrets.get("a").await.resource_version(), version);
    let trial = run(&["announce", next, "-l", "app=a", "--dry-run", "-o", "json"]).json();
    assert_eq!(trial["dryRunStrategy"], "server");
    assert_eq!(trial["secrets"][0]["results"][0]["result"], "announced", "{trial}");

    let done = run(&["distrust", &old, "-l", "app=a"]);
    assert!(done.with_code(1).contains("Looked at the Secrets with these labels in namespace"));
    assert_eq!(scene.secrets.get("a").await.pem("ca.crt"), scene.new.pem);
    assert_eq!(
        scene.secrets.get("b").await.pem("ca.crt"),
        bundle(&[&scene.new, &scene.old]),
        "b has not the label"
    );
    let drained = run(&["drain", "a", "--dry-run", "-o", "json"]);
    drained.with_code(0);
    assert_eq!((&drained.json()["dryRun"], &drained.json()["waiting"]), (&json!(true), &json!([])));
}

#[tokio::test]
async fn each_output_is_for_its_reader() {
    let test = "each_output_is_for_its_reader";
    let Some(cluster) = cluster(test).await else { return };
    let scene = Scene::new(cluster, test).await;
    let run = |arguments: &[&str]| scene.run(cluster, arguments);
    let old = scene.old.sha256();
    assert_eq!(run(&["status", "-o", "name"]).with_code(0), "secret/a\nsecret/b\n");
    let wide = run(&["status", "-o", "wide"]);
    assert!(wide.with_code(0).contains(&old), "all digits: {}", wide.stdout);
    let usual = run(&["status", "-o", "text"]);
    assert!(!usual.with_code(0).contains(&old) && usual.stdout.contains(&old[..8]));
    assert!(usual.stdout.starts_with("NAMESPACE  NAME  PHASE"), "{}", usual.stdout);

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &scene.old.pem).unwrap();
    let old_file = file.path().to_str().unwrap();
    for line in [
        &["status"][..],
        &["inspect"],
        &["inspect", "a"],
        &["distrust", old_file, "--dry-run"],
        &["announce", old_file, "--dry-run"],
        &["check"],
    ] {
        let line = [line, &["-n", scene.secrets.namespace.as_str()]].concat();
        let mut narrow = command(&cluster.plane.admin_kubeconfig(), &line);
        let shown = String::from_utf8(narrow.env("COLUMNS", "80").output().unwrap().stdout);
        let shown = shown.unwrap();
        let wide = shown.lines().find(|line| line.chars().count() > 80);
        assert!(wide.is_none() && shown.lines().count() > 1, "{line:?}: {shown}");
    }

    let trial = run(&["distrust", &old, "--dry-run", "-o", "wide"]);
    assert!(trial.with_code(1).contains(&format!("{old}  carried")), "{}", trial.stdout);
    let trial = run(&["distrust", &old, "--dry-run", "-o", "name"]);
    assert_eq!(trial.with_code(1), "secret/a\nsecret/b\nsecret/quiet\n");

    for (line, kind) in [
        (&["status"][..], "RotationList"),
        (&["inspect"], "InspectionList"),
        (&["distrust", &old, "--dry-run"], "DistrustReport"),
        (&["drain", "--dry-run"], "DrainReport"),
        (&["check"], "CheckReport"),
    ] {
        let json = run(&[line, &["-o", "json"]].concat()).json();
        assert_eq!(json["apiVersion"], "ca-overlap.dev/v1alpha1", "{line:?}");
        assert_eq!(json["kind"], kind);
        let yaml = run(&[line, &["-o", "yaml"]].concat()).stdout;
        let yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(yaml["kind"], kind);
    }
}

#[tokio::test]
async fn a_user_is_impersonated_with_groups_and_a_silent_api_server_is_given_up() {
    let test = "a_user_is_impersonated_with_groups_and_a_silent_api_server_is_given_up";
    let Some(cluster) = cluster(test).await else { return };
    let scene = Scene::new(cluster, test).await;
    let nobody = scene.run(cluster, &["status", "--as", "nobody"]);
    nobody.with_code(2);
    let admin = ["status", "--as", "nobody", "--as-group", "system:masters"];
    assert!(scene.run(cluster, &admin).with_code(0).contains(" a "));

    // It accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {
            "server": format!("http://{}", silent.local_addr().unwrap()),
        }}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "users": [{"name": "it", "user": {"token": "it"}}],
    });
    std::fs::write(file.path(), config.to_string()).unwrap();
    for line in [
        &["status", "a"][..],
        &["inspect", "n/a"],
        &["announce", "/dev/null"],
        &["distrust", &"5e".repeat(32), "a"],
        &["drain", "a"],
        &["check"],
    ] {
        let ended = run(file.path(), &[line, &["--request-timeout", "100ms"]].concat());
        assert_eq!(ended.code, 2, "{line:?}: {}{}", ended.stdout, ended.stderr);
        let says = ended.stderr.contains("did not answer within 100ms (--request-timeout)");
        assert!(says || line[0] == "announce", "{line:?}: {}", ended.stderr);
    }
}

/// What a person types wrong: the exit code, and words of the one line that says what is wrong.
#[tokio::test]
async fn wrong_input_is_answered_in_one_line() {
    let test = "wrong_input_is_answered_in_one_line";
    let Some(cluster) = cluster(test).await else { return };
    let scene = Scene::new(cluster, test).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &scene.new.pem).unwrap();
    let (ca, sha256) = (file.path().to_str().unwrap(), scene.old.sha256());
    let (space, short) = (format!("{} ", &sha256[1..]), &sha256[1..]);
    let kubeconfig = cluster.plane.admin_kubeconfig();
    let cases: &[(i32, &[&str], &str)] = &[
        (64, &["status", "-A", "a"], "--all-namespaces: does not go with names of Secrets"),
        (64, &["status", "-l", "app=a", "a"], "--selector: does not go with names of Secrets"),
        (64, &["status", "a_b"], "a_b is not the name of a Secret"),
        (64, &["status", "a/b/c"], "expected NAMESPACE/NAME or NAME"),
        (64, &["status", ""], "is not the name of a Secret"),
        (64, &["status", "-n", "a/b"], "expected the name of a namespace"),
        (64, &["status", "-n", ""], "--namespace"),
        (64, &["status", "-w", "-o", "name"], "--output: name does not go with --watch"),
        (64, &["status", "-o", "table"], "invalid value 'table'"),
        (64, &["status", "-o", "diff"], "invalid value 'diff'"),
        (64, &["status", "--as-group", "g"], "required arguments were not provided"),
        (64, &["status", "--request-timeout", "soon"], "--request-timeout"),
        (64, &["status", "--request-timeout", "-1s"], "unexpected argument '-1'"),
        (64, &["status", "--window", "-1h"], "unexpected argument '-1'"),
        (64, &["status", "--default-mode", "on"], "expected bundle, staged or off"),
        (64, &["status", "--ca-overlap-namespace", "A"], "expected the name of a namespace"),
        (2, &["status", "--context", "none"], "cannot load a kubeconfig"),
        (2, &["status", "--kubeconfig", "/none"], "cannot load a kubeconfig"),
        (64, &["review", "--old", ca], "required arguments were not provided"),
        (2, &["review", "--old", "/dev/null", "--new", ca], "a PEM file with certificates"),
        (2, &["simulate", "--svg", "/none/x"], "cannot write /none/x"),
        (2, &["status", "-l", "=,a"], "cannot read the Secrets"),
        (2, &["status", "-l", "app in"], "cannot read the Secrets"),
        (64, &["inspect"], "required arguments were not provided"),
        (64, &["inspect", "a/b/c"], "neither a file nor the NAMESPACE/NAME of a Secret"),
        (64, &["inspect", "a"], "a is neither a file nor the NAMESPACE/NAME of a Secret"),
        (64, &["inspect", "a/b", "-A"], "--all-namespaces: does not go with names of Secrets"),
        (64, &["inspect", "a/b", "--leaf", ca], "--leaf: works only with a PEM file"),
        (64, &["inspect", "-A", "--leaf", ca], "--leaf: works only with a PEM file"),
        (64, &["inspect", ca, "-A"], "--all-namespaces: does not go with a file"),
        (64, &["inspect", ca, "-l", "a=b"], "--selector: does not go with a file"),
        (64, &["inspect", ca, "--at", "noon"], "--at"),
        (64, &["inspect", ca, "-o", "name"], "invalid value 'name'"),
        (2, &["inspect", "none", "-n", "default"], "there is no file none, and no Secret default/"),
        (2, &["inspect", "/"], "cannot read /"),
        (2, &["inspect", "/dev/null"], "expected Secrets as JSON or YAML"),
        (64, &["announce"], "required arguments were not provided"),
        (64, &["announce", ca, "--for", "0s"], "--for: expected at least a second"),
        (64, &["announce", ca, "--for", "30"], "--for"),
        (64, &["announce", ca, "--dry-run=never"], "invalid value 'never'"),
        (2, &["announce", "none.pem"], "cannot read none.pem"),
        (2, &["announce", "/dev/null"], "expected CA certificates, as PEM or DER"),
        (64, &["announce", ca, "a", "-l", "x=y"], "--selector: does not go with names"),
        (1, &["announce", ca, "-l", "x=y"], "None of the Secrets with these labels"),
        (64, &["distrust"], "required arguments were not provided"),
        (64, &["distrust", short], "is neither a SHA-256 fingerprint (64 hex digits) nor a file"),
        (64, &["distrust", &space], "is neither a SHA-256 fingerprint (64 hex digits) nor a file"),
        (64, &["distrust", &sha256, "--timeout", "x"], "--timeout"),
        (2, &["distrust", "/dev/null"], "no certificate in it, as PEM or DER"),
        (2, &["distrust", &sha256, "none"], "there is no Secret "),
        (64, &["drain", "a", "-A"], "--all-namespaces: does not go with names of Secrets"),
        (64, &["drain", "--dry-run=server"], "use --dry-run=client"),
        (64, &["drain", "--lease-namespace", "a/b"], "expected the name of a namespace"),
        (2, &["drain", "none", "--timeout", "1s"], "there is no Secret "),
        (64, &["check", "a"], "unexpected argument 'a'"),
        (64, &["webhook", "--self-managed", "--log-level", "loud"], "--log-level"),
    ];
    let mut wrong = Vec::new();
    for (code, line, words) in cases {
        let has_scope = ["-n", "-A"].iter().any(|flag| line.contains(flag));
        let is_scoped =
            ["status", "announce", "distrust", "drain"].contains(&line[0]) && !has_scope;
        let scope = ["-n", scene.secrets.namespace.as_str()];
        let line = [*line, if is_scoped { &scope[..] } else { &[] }].concat();
        let ended = run(&kubeconfig, &line);
        let about = ended.stderr.lines().filter(|line| line.contains(words)).count();
        let is_said = about == 1 || (*code == 1 && ended.stdout.contains(words));
        let is_quiet = *code != 64 || ended.stdout.is_empty();
        if ended.code != *code || !is_said || !is_quiet {
            wrong.push(format!("{line:?} should end with {code} and say: {words}\n{ended:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn kubectl_completes_namespaces_and_secrets_of_its_plugin() {
    let test = "kubectl_completes_namespaces_and_secrets_of_its_plugin";
    let Some(cluster) = cluster(test).await else { return };
    let scene = Scene::new(cluster, test).await;
    let namespace = scene.secrets.namespace.as_str();
    let directory = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_ca-overlap");
    for name in ["kubectl-ca_overlap", "kubectl_complete-ca_overlap"] {
        std::os::unix::fs::symlink(program, directory.path().join(name)).unwrap();
    }
    let complete = |program: &Path, before: &[&str], words: &[&str], variables: &[(&str, &str)]| {
        let output = Command::new(program)
            .args(before)
            .args(words)
            .envs(variables.iter().copied())
            .env("PATH", directory.path())
            .env("KUBECONFIG", cluster.plane.admin_kubeconfig())
            .output()
            .unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        shown.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let full = format!("{namespace}/");
    let (quiet, begun) = (format!("{namespace}/quiet"), format!("{namespace}/q"));
    let cases: [(&[&str], &str); 7] = [
        (&["stat"], "status"),
        (&["status", "--all-n"], "--all-namespaces"),
        (&["status", "-n", namespace], namespace),
        (&["check", "-n", namespace], namespace),
        (&["status", "-n", namespace, "qu"], "quiet"),
        (&["inspect", &begun], &quiet),
        (&["inspect", namespace], &full),
    ];
    for (words, expected) in cases {
        let before = ["__complete", "ca-overlap"];
        let shown = complete(cluster.plane.kubectl_path(), &before, words, &[]);
        assert!(shown.contains(&expected.to_owned()), "kubectl {words:?}: {shown:?}");
        assert!(shown.last().is_some_and(|last| last.starts_with(':')), "{shown:?}");
        let index = words.len().to_string();
        let variables = [
            ("CA_OVERLAP_COMPLETE", "bash"),
            ("_CLAP_COMPLETE_INDEX", &index),
            ("_CLAP_IFS", "\n"),
        ];
        let shown = complete(Path::new(program), &["--", "ca-overlap"], words, &variables);
        assert!(shown.contains(&expected.to_owned()), "bash {words:?}: {shown:?}");
    }
}
