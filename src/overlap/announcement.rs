//! An announcement: a CA that a person or the keeper announces. A person lists them in the annotation
//! `ca-overlap.dev/announce`, the keeper in an ask; both have the same form.

use std::fmt;

use base64::prelude::*;
use jiff::Timestamp;

use crate::names;

/// The most CAs that are announced in one Secret.
pub const MAX_ANNOUNCED: usize = 16;

/// A CA to trust ahead of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The certificate.
    pub der: Vec<u8>,
    /// When it ends, unless it is taken back earlier.
    pub until: Option<Timestamp>,
}

/// What the keeper announces after a write. What the annotation lists is announced as well.
#[derive(Clone, Copy, Debug, Default)]
pub enum Announcing<'a> {
    /// What it has asked for earlier.
    #[default]
    AsBefore,
    /// What it asks for now: these and no others. Only a write that does not change `ca.crt` asks.
    Asked(&'a [Announcement]),
    /// Nothing, and nothing of the annotation either: the annotations have no room, or the record
    /// came with a copy. What is announced then goes only when it ends.
    Nothing,
}

impl Announcement {
    /// Reads `<base64 DER>` or `<base64 DER>@<until>`.
    pub(super) fn parse(word: &str) -> Option<Self> {
        let (der, until) = match word.split_once('@') {
            Some((der, until)) => (der, Some(until.parse().ok()?)),
            None => (word, None),
        };
        let der = BASE64_STANDARD.decode(der).ok().filter(|der| !der.is_empty())?;
        Some(Self { der, until })
    }

    /// Reads the annotation `announce`: announcements with commas between them. Also says whether
    /// all of them could be read.
    pub fn parse_list(text: &str) -> (Vec<Self>, bool) {
        if !names::is_restored(names::ANNOUNCE, text) {
            return (Vec::new(), false);
        }
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let read: Vec<_> = words.map(Self::parse).collect();
        let is_readable = !read.contains(&None);
        (read.into_iter().flatten().collect(), is_readable)
    }
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(&self.der))?;
        self.until.map_or(Ok(()), |until| write!(f, "@{until}"))
    }
}
