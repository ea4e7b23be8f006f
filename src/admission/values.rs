//! The certificates of a write, each value decoded once.

use base64::Engine;

use super::review::ReviewedSecret;
use crate::overlap::Contents;

/// `ca.crt` and `tls.crt` of both objects.
pub(super) struct Values {
    anchors: DecodedValue,
    leaf: DecodedValue,
}

impl Values {
    /// Empty values, for a write whose certificates are not read.
    pub(super) fn unread(object: &ReviewedSecret<'_>) -> Self {
        let anchors = object.ca_crt().map(|_| Vec::new());
        Self {
            anchors: DecodedValue { incoming: anchors, stored: StoredValue::AsIncoming },
            leaf: DecodedValue { incoming: None, stored: StoredValue::AsIncoming },
        }
    }

    pub(super) fn decode(object: &ReviewedSecret<'_>, old: &ReviewedSecret<'_>) -> Self {
        Self {
            anchors: DecodedValue::new(object.ca_crt(), old.ca_crt()),
            leaf: DecodedValue::new(object.tls_crt(), old.tls_crt()),
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

/// One value, in the incoming and in the stored object.
struct DecodedValue {
    incoming: Option<Vec<u8>>,
    stored: StoredValue,
}

enum StoredValue {
    AsIncoming,
    Other(Option<Vec<u8>>),
}

impl DecodedValue {
    fn new(incoming: Option<&str>, stored: Option<&str>) -> Self {
        let stored = if incoming == stored {
            StoredValue::AsIncoming
        } else {
            StoredValue::Other(stored.map(decode))
        };
        Self { incoming: incoming.map(decode), stored }
    }

    fn stored(&self) -> Option<&[u8]> {
        match &self.stored {
            StoredValue::AsIncoming => self.incoming.as_deref(),
            StoredValue::Other(stored) => stored.as_deref(),
        }
    }
}

/// Decodes base64. The API server sends it without line breaks, a file may hold some. A text that
/// is not base64 gives no bytes, hence no certificate.
pub(super) fn decode(base64: &str) -> Vec<u8> {
    let decoded = super::BASE64.decode(base64).or_else(|_| {
        let compact: Vec<u8> = base64.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        super::BASE64.decode(compact)
    });
    decoded.unwrap_or_default()
}
