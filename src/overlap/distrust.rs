//! Distrusted CAs: those that a Secret lists itself, and those of the whole cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::x509::certs::Fingerprint;

/// The most fingerprints that the setting of one Secret can hold. The others are ignored.
pub const MAX_OWN: usize = 64;
/// The most fingerprints that the list of the cluster can hold. The others are ignored.
pub const MAX_LISTED: usize = 4096;

/// What one Secret distrusts: its own setting, and the list of the cluster. Clones share the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distrust {
    own: Vec<Fingerprint>,
    listed: Arc<DistrustList>,
    /// Only where the keeper looks for what to repair.
    former: Option<FormerDistrust>,
}

/// What was once distrusted, in a namespace or in the cluster. A repair brings none of it back.
/// Clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormerDistrust {
    /// In the namespace.
    pub namespace: Arc<BTreeSet<Fingerprint>>,
    /// On a list of the cluster that another one has replaced.
    pub cluster: Arc<BTreeSet<Fingerprint>>,
}

impl FormerDistrust {
    /// Whether a certificate with this fingerprint was distrusted.
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        self.namespace.contains(fingerprint) || self.cluster.contains(fingerprint)
    }

    /// Whether nothing was distrusted.
    pub fn is_empty(&self) -> bool {
        self.namespace.is_empty() && self.cluster.is_empty()
    }
}

impl Distrust {
    /// Nothing but the list of the cluster.
    pub fn listed(listed: &Arc<DistrustList>) -> Self {
        Self { own: Vec::new(), listed: Arc::clone(listed), former: None }
    }

    /// Adds a fingerprint of the Secret's own setting. Returns whether there was room for it.
    pub fn add(&mut self, fingerprint: Fingerprint) -> bool {
        let has_room = self.own.len() < MAX_OWN;
        if has_room {
            self.own.push(fingerprint);
        }
        has_room
    }

    /// Adds what is distrusted for another reason, without a limit.
    pub(crate) fn extend(&mut self, more: impl IntoIterator<Item = Fingerprint>) {
        self.own.extend(more);
    }

    /// Adds what was once distrusted.
    pub(crate) fn add_former(&mut self, former: &FormerDistrust) {
        self.former = Some(former.clone());
    }

    /// Whether a certificate with this fingerprint is distrusted.
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        self.own.contains(fingerprint)
            || self.listed.contains(fingerprint)
            || self.former.as_ref().is_some_and(|former| former.contains(fingerprint))
    }

    /// Whether nothing is distrusted.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty()
            && self.listed.is_empty()
            && self.former.as_ref().is_none_or(FormerDistrust::is_empty)
    }

    /// The fingerprints of the Secret's own setting.
    pub fn own(&self) -> &[Fingerprint] {
        &self.own
    }
}

/// The CAs that are distrusted in the whole cluster: the ConfigMap `ca-overlap-distrusted`.
///
/// A key that is a fingerprint is an entry, whatever its value says. The value of any other key has
/// an entry in each line, where a comment begins with `#`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistrustList {
    fingerprints: BTreeSet<Fingerprint>,
    ignored: usize,
    sha256: Option<Fingerprint>,
}

impl DistrustList {
    /// Reads the keys and values.
    pub fn read<K: AsRef<str>, V: AsRef<[u8]>>(data: &BTreeMap<K, V>) -> Self {
        let mut list = Self { sha256: Some(sha256(data)), ..Self::default() };
        for (key, value) in data {
            if let Some(fingerprint) = Fingerprint::parse(key.as_ref()) {
                list.add(Some(fingerprint));
                continue;
            }
            let text = String::from_utf8_lossy(value.as_ref());
            let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
            for entry in lines.filter(|line| !line.is_empty()) {
                list.add(Fingerprint::parse(entry));
            }
        }
        list
    }

    fn add(&mut self, entry: Option<Fingerprint>) {
        match entry {
            Some(known) if self.contains(&known) => {}
            Some(new) if self.len() < MAX_LISTED => drop(self.fingerprints.insert(new)),
            _ => self.ignored += 1,
        }
    }

    /// Counts entries that could not even be read.
    #[must_use]
    pub fn and_ignored(self, more: usize) -> Self {
        Self { ignored: self.ignored + more, ..self }
    }

    /// Whether it lists this fingerprint.
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        !self.is_empty() && self.fingerprints.contains(fingerprint)
    }

    /// The fingerprints, sorted.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.fingerprints.iter().copied()
    }

    /// How many fingerprints it lists.
    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }

    /// Whether it lists nothing.
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
    }

    /// How many entries are no fingerprint, or too many.
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    /// The SHA-256 of all keys and values, by which replicas say which list they use. `None` if
    /// there is no list.
    pub fn sha256(&self) -> Option<Fingerprint> {
        self.sha256
    }
}

/// The lengths keep bytes that move from a key to its value from giving the same hash.
fn sha256<K: AsRef<str>, V: AsRef<[u8]>>(data: &BTreeMap<K, V>) -> Fingerprint {
    let mut all = Vec::new();
    for part in data.iter().flat_map(|(key, value)| [key.as_ref().as_bytes(), value.as_ref()]) {
        all.extend_from_slice(&part.len().to_be_bytes());
        all.extend_from_slice(part);
    }
    Fingerprint::of(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[(&str, &str)]) -> DistrustList {
        DistrustList::read(&data.iter().copied().collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn keys_and_lines_are_entries_and_the_rest_is_ignored_and_counted() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Fingerprint::of(text));
        let lines = format!("# stolen\n{b}  # by whom\n\nnonsense\n  {c}\r\n{b}\n");
        let list = read(&[(&a.to_string(), "nonsense, but only a note"), ("more", &lines)]);
        assert_eq!(list.fingerprints().collect::<BTreeSet<_>>(), BTreeSet::from([a, b, c]));
        assert_eq!((list.len(), list.ignored()), (3, 1));
        assert_eq!(list.and_ignored(2).ignored(), 3);
    }

    #[test]
    fn the_list_is_bounded() {
        let text = |number: usize| Fingerprint::of(&number.to_be_bytes()).to_string() + "\n";
        let all: String = (0..MAX_LISTED + 3).map(text).collect();
        let list = read(&[("all", &all)]);
        assert_eq!((list.len(), list.ignored()), (MAX_LISTED, 3));
        let mut own = Distrust::default();
        let added = (0..=MAX_OWN).filter(|_| own.add(Fingerprint::of(b"x"))).count();
        assert_eq!((added, own.own().len()), (MAX_OWN, MAX_OWN));
    }

    #[test]
    fn the_hash_tells_any_two_contents_apart() {
        let contents: [&[(&str, &str)]; 5] =
            [&[], &[("a", "")], &[("a", "b")], &[("ab", "")], &[("a", ""), ("b", "")]];
        let hashes: BTreeSet<_> = contents.iter().map(|data| read(data).sha256()).collect();
        assert_eq!(hashes.len(), contents.len());
        assert_eq!(read(contents[2]), read(contents[2]));
        assert_eq!(DistrustList::default().sha256(), None);
    }

    #[test]
    fn a_secret_distrusts_its_own_entries_and_those_of_the_cluster() {
        let [own, listed, other] = [b"a", b"b", b"c"].map(|text| Fingerprint::of(text));
        let mut distrust = Distrust::listed(&Arc::new(read(&[(&listed.to_string(), "")])));
        assert!(!distrust.is_empty() && distrust.add(own));
        let found = [own, listed, other].map(|fingerprint| distrust.contains(&fingerprint));
        assert_eq!((found, distrust.own()), ([true, true, false], &[own][..]));
        assert!(Distrust::default().is_empty());
    }
}
