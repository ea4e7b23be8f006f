//! Reads manifests: the base from its files, the overlays through kubectl.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

use crate::support::skip::skip;

/// The objects of one kustomization.
pub(crate) struct Manifests {
    /// The path relative to `manifests/`.
    pub(crate) name: String,
    /// In the order of the files, or of kustomize.
    pub(crate) objects: Vec<Value>,
}

impl Manifests {
    /// The base, from the files that its kustomization lists.
    pub(crate) fn base() -> Self {
        let directory = manifests_directory().join("base");
        let read = |file: &str| {
            let path = directory.join(file);
            let yaml = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            parse(&path.display().to_string(), &yaml)
        };
        let kustomization = read("kustomization.yaml").remove(0);
        let files = kustomization["resources"].as_array().expect("resources");
        let objects = files.iter().flat_map(|file| read(text(file))).collect();
        Self { name: "base".to_owned(), objects }
    }

    /// An overlay as kubectl renders it. `None` without a kubectl.
    pub(crate) fn rendered(overlay: &str) -> Option<Self> {
        Self::built(&format!("manifests/{overlay}"))
            .map(|built| Self { name: overlay.to_owned(), ..built })
    }

    /// Any kustomization of this repository as kubectl renders it. `None` without a kubectl.
    pub(crate) fn built(path: &str) -> Option<Self> {
        let kubectl = kubectl()?;
        let output = Command::new(&kubectl)
            .arg("kustomize")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", kubectl.display()));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl kustomize {path}: {errors}");
        assert!(errors.is_empty(), "kubectl kustomize {path} warns: {errors}");
        let yaml = String::from_utf8(output.stdout).expect("UTF-8");
        Some(Self { name: path.to_owned(), objects: parse(path, &yaml) })
    }

    /// The base, and the overlays if there is a kubectl.
    pub(crate) fn all() -> Vec<Self> {
        let overlays = ["overlays/kind", "overlays/opt-in", "overlays/cert-manager"];
        let mut all = vec![Self::base()];
        all.extend(overlays.into_iter().filter_map(Self::rendered));
        all
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The first object of a kind.
    pub(crate) fn some<'a>(&'a self, kind: &'a str) -> Option<&'a Value> {
        self.of_kind(kind).next()
    }

    /// The only object of a kind.
    pub(crate) fn one<'a>(&'a self, kind: &'a str) -> &'a Value {
        let found: Vec<&Value> = self.of_kind(kind).collect();
        assert_eq!(found.len(), 1, "{}: objects of kind {kind}", self.name);
        found[0]
    }

    /// The first object of a kind, to be changed.
    pub(crate) fn one_mut(&mut self, kind: &str) -> &mut Value {
        let object = self.objects.iter_mut().find(|object| object["kind"] == kind);
        object.unwrap_or_else(|| panic!("no {kind}"))
    }

    /// The object of that kind and name.
    pub(crate) fn named<'a>(&'a self, kind: &'a str, name: &str) -> &'a Value {
        self.of_kind(kind)
            .find(|object| object["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("{}: no {kind} {name}", self.name))
    }

    /// The only webhook of the registration.
    pub(crate) fn webhook(&self) -> &Value {
        let [webhook] = self.webhooks() else { panic!("not one webhook") };
        webhook
    }

    /// The webhooks of the registration: staged mode has two.
    pub(crate) fn webhooks(&self) -> &[Value] {
        self.one("MutatingWebhookConfiguration")["webhooks"].as_array().expect("webhooks")
    }

    /// The only container of the Deployment.
    pub(crate) fn container(&self) -> &Value {
        let pod = &self.one("Deployment")["spec"]["template"]["spec"];
        let containers = pod["containers"].as_array().expect("containers");
        let [container] = containers.as_slice() else { panic!("not one container") };
        container
    }

    /// The arguments of that container.
    pub(crate) fn args(&self) -> Vec<&str> {
        self.container()["args"].as_array().expect("args").iter().map(text).collect()
    }

    /// All objects, sorted by kind and name, because kustomize orders them differently.
    pub(crate) fn by_id(&self) -> Vec<(String, &Value)> {
        let mut objects: Vec<_> = self.objects.iter().map(|object| (id(object), object)).collect();
        objects.sort_by(|a, b| a.0.cmp(&b.0));
        objects
    }
}

/// `manifests/` of this repository.
pub(crate) fn manifests_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

/// The documents of a YAML stream.
pub(crate) fn parse(source: &str, yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{source}: {error}"))
}

/// The string in a value. Fails if it is none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

/// The name of an object in messages.
pub(crate) fn id(object: &Value) -> String {
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// Whether a key exists at any depth.
pub(crate) fn has_key(value: &Value, key: &str) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(name, value)| name == key || has_key(value, key)),
        Value::Array(items) => items.iter().any(|item| has_key(item, key)),
        _ => false,
    }
}

/// The kubectl of the control plane's assets, else the one on the path.
fn kubectl() -> Option<PathBuf> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/control-plane/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let found = assets
        .into_iter()
        .chain([built])
        .chain(env::split_paths(&path))
        .map(|directory| directory.join("kubectl"))
        .find(|kubectl| kubectl.is_file());
    found.or_else(|| {
        skip(
            "tests of the overlays",
            "no kubectl: run `make control-plane`, or set KUBEBUILDER_ASSETS",
        )
    })
}
