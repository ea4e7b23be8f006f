//! Follows the list of distrusted CAs: the directory of `--distrusted`.
//!
//! It is a mounted ConfigMap, so it is polled, as mounted certificates are.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use crate::overlap::distrust::DistrustList;
use crate::serving_cert::files::{every, read};

/// How often the directory is read. The kubelet takes a minute or so to update it.
const INTERVAL: Duration = Duration::from_secs(2);
/// The most files that are read, and the most bytes of all of them: what a ConfigMap can hold.
const MAX_FILES: usize = 20_000;
const MAX_BYTES: usize = 1 << 20;

/// Publishes the list at once, and the returned future publishes each change. Without a directory
/// the list stays empty.
pub(super) fn follow<P: FnMut(Arc<DistrustList>)>(
    directory: Option<PathBuf>,
    registry: &mut Registry,
    publish: P,
) -> impl Future<Output = Infallible> + use<P> {
    let mut reader = directory.map(|directory| Reader::new(directory, publish, registry));
    reader.iter_mut().for_each(Reader::poll);
    async move {
        match reader {
            Some(mut reader) => every(INTERVAL, &Notify::new(), || reader.poll()).await,
            None => pending().await,
        }
    }
}

struct Reader<P> {
    directory: PathBuf,
    publish: P,
    list: Arc<DistrustList>,
    /// The link by which the kubelet swaps the files, when they were last read.
    version: Option<PathBuf>,
    /// Whether the last attempt failed, so that each failure is logged once.
    has_failed: bool,
    entries: Family<[(&'static str, String); 1], Gauge>,
    ignored: Gauge,
}

impl<P: FnMut(Arc<DistrustList>)> Reader<P> {
    fn new(directory: PathBuf, publish: P, registry: &mut Registry) -> Self {
        let (entries, ignored) = (Family::default(), Gauge::default());
        registry.register(
            "distrusted",
            "CAs on the list of distrusted CAs, by the SHA-256 of the list",
            entries.clone(),
        );
        registry.register(
            "distrusted_ignored",
            "Entries of the list of distrusted CAs that cannot be read, or are too many",
            ignored.clone(),
        );
        let list = Arc::default();
        Self { directory, publish, list, version: None, has_failed: false, entries, ignored }
    }

    /// The directory with the files, by the kubelet's link; `None` if nothing is mounted.
    fn current(&self) -> Option<PathBuf> {
        fs::read_link(self.directory.join("..data")).ok()
    }

    /// Reads the directory, and publishes the list if it has changed. The last list stays in use
    /// while the directory cannot be read.
    fn poll(&mut self) {
        // In a mounted ConfigMap no file changes without this link.
        let version = self.current();
        if version.is_some() && version == self.version {
            return;
        }
        let files = version.as_ref().map(|version| self.directory.join(version));
        let read = contents(files.as_ref().unwrap_or(&self.directory));
        if self.current() != version {
            // The files were swapped meanwhile, and may be removed. The next poll reads again.
            return;
        }
        let list = match read {
            Ok((data, ignored)) => DistrustList::read(&data).and_ignored(ignored),
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    let directory = self.directory.display();
                    tracing::warn!(%directory, %error, "--distrusted cannot be read, the last list stays in use");
                }
                self.ignored.set(1);
                return;
            }
        };
        self.has_failed = false;
        self.version = version;
        self.ignored.set(list.ignored().try_into().unwrap_or(i64::MAX));
        if *self.list == list {
            return;
        }
        let sha256 = list.sha256().map(|sha256| sha256.to_string()).unwrap_or_default();
        // `ca-overlap distrust` waits for the hash in this line.
        tracing::warn!(cas = list.len(), %sha256, "using this list of distrusted CAs");
        if list.ignored() > 0 {
            let ignored = list.ignored();
            tracing::warn!(
                ignored,
                "the list of distrusted CAs has entries that are no SHA-256 fingerprint, or too many"
            );
        }
        self.entries.clear();
        let count = list.len().try_into().unwrap_or(i64::MAX);
        self.entries.get_or_create(&[("sha256", sha256)]).set(count);
        self.list = Arc::new(list);
        (self.publish)(Arc::clone(&self.list));
    }
}

/// The files of the directory by name, and how many could not be read.
fn contents(directory: &Path) -> io::Result<(BTreeMap<String, Vec<u8>>, usize)> {
    let (mut data, mut ignored, mut bytes) = (BTreeMap::new(), 0, 0);
    for file in fs::read_dir(directory)?.take(MAX_FILES) {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        // The kubelet keeps the values in directories of its own, and swaps them by a link.
        if name.starts_with("..") {
            continue;
        }
        match read(&file.path()) {
            Ok(value) if bytes + name.len() + value.len() <= MAX_BYTES => {
                bytes += name.len() + value.len();
                data.insert(name, value);
            }
            // A link of the kubelet, just removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => ignored += 1,
        }
    }
    Ok((data, ignored))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use prometheus_client::encoding::text::encode;
    use tokio::sync::watch;

    use super::*;
    use crate::x509::certs::Fingerprint;

    /// A directory as the kubelet mounts a ConfigMap.
    struct Mount(tempfile::TempDir, usize);

    impl Mount {
        fn update(&mut self, data: &[(&str, &str)]) {
            self.1 += 1;
            let (directory, version) = (self.0.path(), format!("..v{}", self.1));
            fs::create_dir(directory.join(&version)).unwrap();
            for (key, value) in data {
                fs::write(directory.join(&version).join(key), value).unwrap();
            }
            let (new, link) = (directory.join("..data_tmp"), directory.join("..data"));
            symlink(&version, &new).unwrap();
            fs::rename(new, link).unwrap();
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                if !entry.file_name().to_str().unwrap().starts_with("..") {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
            for (key, _) in data {
                symlink(Path::new("..data").join(key), directory.join(key)).unwrap();
            }
        }
    }

    #[test]
    fn the_files_are_read_again_only_after_the_kubelet_swapped_them() {
        let mut mount = Mount(tempfile::tempdir().unwrap(), 0);
        let (sender, lists) = watch::channel(Arc::default());
        let publish = |list| drop(sender.send_replace(list));
        let mut registry = crate::metrics::registry();
        let mut reader = Reader::new(mount.0.path().to_owned(), publish, &mut registry);
        let [a, b] = [b"a", b"b"].map(|it| Fingerprint::of(it).to_string());
        mount.update(&[(&a, "")]);
        reader.poll();
        fs::write(mount.0.path().join("..data").join(&b), "").unwrap();
        reader.poll();
        assert_eq!(lists.borrow().len(), 1);
        mount.update(&[(&a, ""), (&b, "")]);
        // The kubelet adds the names of new files after the swap.
        fs::remove_file(mount.0.path().join(&b)).unwrap();
        reader.poll();
        assert_eq!(lists.borrow().len(), 2);
    }

    #[test]
    fn a_change_is_published_and_a_failure_keeps_the_last_list() {
        let mut mount = Mount(tempfile::tempdir().unwrap(), 0);
        let mut registry = crate::metrics::registry();
        let (sender, mut lists) = watch::channel(Arc::default());
        let publish = |list| drop(sender.send_replace(list));
        let mut reader = Reader::new(mount.0.path().to_owned(), publish, &mut registry);
        reader.poll();
        assert!(lists.borrow_and_update().is_empty(), "an optional ConfigMap may be missing");

        let (a, b) = (Fingerprint::of(b"a"), Fingerprint::of(b"b"));
        mount.update(&[(&a.to_string(), "stolen"), ("nonsense", "?")]);
        reader.poll();
        assert!(lists.has_changed().unwrap());
        let first = lists.borrow_and_update().clone();
        assert!(first.contains(&a) && !first.contains(&b));
        let expected = BTreeMap::from([(a.to_string(), "stolen"), ("nonsense".to_owned(), "?")]);
        assert_eq!(first.sha256(), DistrustList::read(&expected).sha256(), "as the command says");
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let line = format!("ca_overlap_distrusted{{sha256=\"{}\"}} 1", first.sha256().unwrap());
        for line in [line.as_str(), "ca_overlap_distrusted_ignored 1"] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        reader.poll();
        assert!(!lists.has_changed().unwrap());

        mount.update(&[(&b.to_string(), "")]);
        reader.poll();
        let second = lists.borrow_and_update().clone();
        assert!(!second.contains(&a) && second.contains(&b));
        drop(mount);
        reader.poll();
        assert!(!lists.has_changed().unwrap() && lists.borrow().contains(&b));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let series = text.lines().filter(|line| line.starts_with("ca_overlap_distrusted{"));
        assert_eq!(series.count(), 1, "one hash at a time\n{text}");
    }
}
