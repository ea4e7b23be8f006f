//! Finds the binaries of the control plane.

use std::path::{Path, PathBuf};

use super::Error;

/// The environment variable of envtest that names the directory with the binaries.
const KUBEBUILDER_ASSETS: &str = "KUBEBUILDER_ASSETS";
/// Where `make control-plane` puts them, relative to the repository's root.
const BUILT: &str = "target/control-plane/bin";
/// Where `make control-plane` puts kube-controller-manager, which envtest does not have.
const BUILT_CONTROLLERS: &str = "target/control-plane/controllers";
const CONTROLLER_MANAGER: &str = "kube-controller-manager";

/// etcd, kube-apiserver and kubectl of one version.
#[derive(Clone, Debug)]
pub struct Assets {
    /// The etcd server.
    pub etcd: PathBuf,
    /// The API server.
    pub kube_apiserver: PathBuf,
    /// kubectl, which includes kustomize.
    pub kubectl: PathBuf,
    /// Needed only for a control plane with controllers.
    pub kube_controller_manager: Option<PathBuf>,
}

impl Assets {
    /// Finds the binaries in `explicit` if given, else in `KUBEBUILDER_ASSETS` if set, else where
    /// `make control-plane` puts them, below the working directory or one of its parents.
    pub fn find(explicit: Option<&Path>) -> Result<Self, Error> {
        if let Some(directory) = explicit {
            return Self::in_directory(directory);
        }
        if let Some(directory) = std::env::var_os(KUBEBUILDER_ASSETS).filter(|v| !v.is_empty()) {
            return Self::in_directory(Path::new(&directory));
        }
        let here = std::env::current_dir().map_err(Error::file("."))?;
        here.ancestors()
            .find_map(|directory| Self::in_directory(&directory.join(BUILT)).ok())
            .ok_or_else(|| Error::NoAssets {
                missing: "etcd, kube-apiserver and kubectl",
                searched: BUILT.into(),
            })
    }

    fn in_directory(directory: &Path) -> Result<Self, Error> {
        let find = |name: &'static str| {
            let path = directory.join(name);
            if path.is_file() {
                // Absolute, because components run in another directory.
                std::path::absolute(&path).map_err(Error::file(&path))
            } else {
                Err(Error::NoAssets { missing: name, searched: directory.display().to_string() })
            }
        };
        Ok(Self {
            etcd: find("etcd")?,
            kube_apiserver: find("kube-apiserver")?,
            kubectl: find("kubectl")?,
            kube_controller_manager: find(CONTROLLER_MANAGER).ok().or_else(built_controllers),
        })
    }

    pub(super) fn controller_manager(&self) -> Result<&Path, Error> {
        self.kube_controller_manager.as_deref().ok_or_else(|| Error::NoAssets {
            missing: CONTROLLER_MANAGER,
            searched: BUILT_CONTROLLERS.into(),
        })
    }
}

fn built_controllers() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let built = |directory: &Path| directory.join(BUILT_CONTROLLERS).join(CONTROLLER_MANAGER);
    here.ancestors().map(built).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_directory_is_named_with_the_missing_binary() {
        let scratch = super::super::Scratch::create().unwrap();
        std::fs::write(scratch.path().join("etcd"), "").unwrap();
        let error = Assets::find(Some(scratch.path())).unwrap_err().to_string();
        assert!(error.starts_with("no kube-apiserver in "), "{error}");
        assert!(error.ends_with("run make control-plane or set KUBEBUILDER_ASSETS"), "{error}");
    }
}
