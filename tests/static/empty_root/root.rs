//! A root directory with the program and the files of a test, and a network with loopback alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use crate::support::binary;

/// The user of the image.
const UID: &str = "65532";
/// Set in the process that runs in the separate network.
const INSIDE: &str = "CA_OVERLAP_TEST_INSIDE";

/// Runs `test` again in a separate network namespace and returns true, or returns false if this is
/// that process. In the namespace port 53 is free and no real DNS server answers.
pub(crate) fn ran_in_own_network(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([&format!("empty_root::{test}"), "--exact", "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare (util-linux)");
    // The output is shown only after a failure, so that no test is counted twice.
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "inside: {}\n{out}{err}", output.status);
    true
}

/// A root directory, removed when dropped.
pub(crate) struct Root(TempDir);

impl Root {
    pub(crate) fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        fs::copy(binary::path(), root.path("ca-overlap")).unwrap();
        let world = fs::Permissions::from_mode(0o755);
        fs::set_permissions(root.0.path(), world).unwrap();
        root
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// A command that runs the program in this root, without an environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("unshare");
        command
            .arg("--root")
            .arg(self.0.path())
            .args(["--setgid", UID, "--setuid", UID, "/ca-overlap"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .stdin(Stdio::null());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A kubeconfig with the CA of the API server, because an empty root has no trusted CAs.
pub(crate) fn kubeconfig(server: &str, ca_pem: &str) -> String {
    let ca = BASE64_STANDARD.encode(ca_pem);
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster":
            {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": "x", "user": {"token": "x"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    })
    .to_string()
}
