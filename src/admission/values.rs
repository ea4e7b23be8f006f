//! The values of a write, decoded once each.

use base64::Engine;

use super::review::Secret;
use crate::overlap::Contents;

/// The decoded values.
pub(super) struct Values {
    anchors: Decoded,
    leaf: Decoded,
}

impl Values {
    /// Stand-ins for two equal values that nobody is going to read.
    pub(super) fn unread(object: &Secret<'_>) -> Self {
        let anchors = object.ca_crt().map(|_| Vec::new());
        Self {
            anchors: Decoded { incoming: anchors, stored: Stored::AsIncoming },
            leaf: Decoded { incoming: None, stored: Stored::AsIncoming },
        }
    }

    pub(super) fn decode(object: &Secret<'_>, old: &Secret<'_>) -> Self {
        Self {
            anchors: Decoded::new(object.ca_crt(), old.ca_crt()),
            leaf: Decoded::new(object.tls_crt(), old.tls_crt()),
        }
    }

    pub(super) fn incoming(&self) -> Contents<'_> {
        Contents {
            ca_crt: self.anchors.incoming.as_deref(),
            tls_crt: self.leaf.incoming.as_deref(),
        }
    }

    pub(super) fn stored(&self) -> Contents<'_> {
        Contents { ca_crt: self.anchors.stored(), tls_crt: self.leaf.stored() }
    }
}

/// One value on both sides of a write.
struct Decoded {
    incoming: Option<Vec<u8>>,
    stored: Stored,
}

enum Stored {
    AsIncoming,
    Other(Option<Vec<u8>>),
}

impl Decoded {
    fn new(incoming: Option<&str>, stored: Option<&str>) -> Self {
        let stored =
            if incoming == stored { Stored::AsIncoming } else { Stored::Other(stored.map(decode)) };
        Self { incoming: incoming.map(decode), stored }
    }

    fn stored(&self) -> Option<&[u8]> {
        match &self.stored {
            Stored::AsIncoming => self.incoming.as_deref(),
            Stored::Other(stored) => stored.as_deref(),
        }
    }
}

/// The API server sends canonical base64. What is not base64 reads as empty, which holds no
/// certificate.
pub(super) fn decode(base64: &str) -> Vec<u8> {
    let decoded = super::BASE64.decode(base64).or_else(|_| {
        let compact: Vec<u8> = base64.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        super::BASE64.decode(compact)
    });
    decoded.unwrap_or_default()
}
