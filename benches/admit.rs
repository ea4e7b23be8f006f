//! The hot path, from the body of a request to the bytes of the answer.

use ca_overlap::admission::review::ReadReviewError;
use ca_overlap::admission::{handler, respond, review};
use ca_overlap::overlap::policy::Defaults;
use jiff::Timestamp;

/// What the handler does with a body, without the clock, the metrics and the log line.
#[inline(never)]
pub(crate) fn admit(body: &[u8]) -> Result<Vec<u8>, ReadReviewError> {
    let request = review::read(body)?;
    let answer = respond::respond(&request, &Defaults::default(), OWN_NAMESPACE, NOW);
    Ok(handler::render(&request.uid, &answer))
}

const OWN_NAMESPACE: &str = "ca-overlap";

/// 2030-01-01T00:00:00Z; the certificates of all cases are valid then.
const NOW: Timestamp = Timestamp::constant(1_893_456_000, 0);
