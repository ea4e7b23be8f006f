//! Reads the pairs of a review, for a Secret that is staged or may become so.
//!
//! This parses the body a second time, so that the first parse, which every request needs, skips
//! all private keys. Here they are borrowed as text, and never decoded.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{AdmissionRequest, Text};
use crate::names;
use crate::overlap::staged::TlsPair;
use crate::x509::pem::decoded_len;

/// The pairs of both objects.
#[derive(Default)]
pub struct Pairs<'a> {
    object: PairsData<'a>,
    old: PairsData<'a>,
}

impl<'a> AdmissionRequest<'a> {
    /// Reads the pairs. They are empty if a value is not a string, which no API server sends.
    pub fn pairs(&self) -> Pairs<'a> {
        let review: Option<PairsReview<'a>> = super::parse(self.body).ok();
        let Some(request) = review.and_then(|review| review.request) else {
            return Pairs::default();
        };
        let data =
            |object: Option<PairsObject<'a>>| object.and_then(|o| o.data).unwrap_or_default();
        Pairs { object: data(request.object), old: data(request.old_object) }
    }
}

impl Pairs<'_> {
    /// The stored `tls.*`.
    pub fn served(&self) -> TlsPair<'_> {
        self.old.pair(names::TLS_CRT, names::TLS_KEY)
    }

    /// The stored `pending.*`.
    pub fn waiting(&self) -> TlsPair<'_> {
        self.old.pair(names::PENDING_TLS_CRT, names::PENDING_TLS_KEY)
    }

    /// The incoming `tls.*`.
    pub fn written(&self) -> TlsPair<'_> {
        self.object.pair(names::TLS_CRT, names::TLS_KEY)
    }

    /// The incoming `pending.*`.
    pub fn written_waiting(&self) -> TlsPair<'_> {
        self.object.pair(names::PENDING_TLS_CRT, names::PENDING_TLS_KEY)
    }

    /// Whether the incoming pairs are the stored ones.
    pub fn are_as_stored(&self) -> bool {
        self.written() == self.served() && self.written_waiting() == self.waiting()
    }

    /// Whether the incoming object has values beside `ca.crt` and the pairs.
    pub fn has_other_keys(&self) -> bool {
        self.object.has_others
    }

    /// The decoded size of both incoming pairs, in bytes.
    pub fn incoming_size(&self) -> usize {
        self.object.values.iter().map(|(_, text)| decoded_len(text)).sum()
    }
}

#[derive(Deserialize)]
struct PairsReview<'a> {
    #[serde(borrow, default)]
    request: Option<PairsRequest<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PairsRequest<'a> {
    #[serde(borrow, default)]
    object: Option<PairsObject<'a>>,
    #[serde(borrow, default)]
    old_object: Option<PairsObject<'a>>,
}

#[derive(Deserialize)]
struct PairsObject<'a> {
    #[serde(borrow, default)]
    data: Option<PairsData<'a>>,
}

/// The `data` map: the values of the pairs, and whether there are other keys.
#[derive(Default)]
struct PairsData<'a> {
    values: Vec<(&'static str, Cow<'a, str>)>,
    has_others: bool,
}

impl PairsData<'_> {
    fn pair(&self, crt: &str, key: &str) -> TlsPair<'_> {
        let value = |name: &str| {
            self.values.iter().rev().find(|(key, _)| *key == name).map(|(_, text)| text.as_ref())
        };
        TlsPair { crt: value(crt), key: value(key) }
    }
}

/// The keys of both pairs.
const KEYS: [&str; 4] =
    [names::TLS_CRT, names::TLS_KEY, names::PENDING_TLS_CRT, names::PENDING_TLS_KEY];

impl<'de: 'a, 'a> Deserialize<'de> for PairsData<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsDataVisitor;
        impl<'de> Visitor<'de> for PairsDataVisitor {
            type Value = PairsData<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of base64 strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut data = PairsData::default();
                while let Some(Text(key)) = map.next_key()? {
                    if let Some(key) = KEYS.into_iter().find(|known| *known == key) {
                        let value = map.next_value::<Option<Text<'de>>>()?;
                        data.values.push((key, value.map(|text| text.0).unwrap_or_default()));
                    } else {
                        data.has_others |= key != names::CA_CRT;
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(data)
            }
        }
        deserializer.deserialize_map(PairsDataVisitor)
    }
}
