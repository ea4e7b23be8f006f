//! The helm that `make helm` builds.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use super::skip::skip;

/// The image of the kustomizations, as values of the chart, which names none.
pub const IMAGE: &str = "image.repository=ca-overlap,image.tag=dev";

/// The helm to use. Without one skips the test; fails in CI (`CI=true`).
pub fn find() -> Option<PathBuf> {
    let named = env::var_os("CA_OVERLAP_TEST_HELM").map(PathBuf::from);
    let found = named.or_else(newest_built);
    found.or_else(|| {
        skip("tests of the chart", "no helm: run `make helm`, or set CA_OVERLAP_TEST_HELM")
    })
}

fn newest_built() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let of_helm = |path: &PathBuf| {
        path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("helm-v"))
    };
    let entries = fs::read_dir(tools).into_iter().flatten();
    let directories = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(of_helm);
    directories.map(|path| path.join("helm")).filter(|path| path.is_file()).max()
}

/// A command of helm without the user's settings and caches.
pub fn command(helm: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(helm);
    command.arg(subcommand).envs(clean_environment()).env_remove("KUBECONFIG");
    command
}

/// An environment in which helm has neither settings nor caches.
pub fn clean_environment() -> [(&'static str, PathBuf); 3] {
    ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"]
        .map(|name| (name, Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm")))
}

/// The chart of this repository.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/chart")
}

/// Standard output and standard error of a command.
pub fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
