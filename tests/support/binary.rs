//! Which build of the program the tests start.

use std::path::PathBuf;

/// What cargo built for this test, or the program that `CA_OVERLAP_TEST_PROGRAM` names
/// (`make test-static`: the one that is shipped). Absolute, since tests change directories.
pub(crate) fn path() -> PathBuf {
    let Some(given) = std::env::var_os("CA_OVERLAP_TEST_PROGRAM") else {
        return env!("CARGO_BIN_EXE_ca-overlap").into();
    };
    let given = PathBuf::from(given);
    std::fs::canonicalize(&given)
        .unwrap_or_else(|e| panic!("CA_OVERLAP_TEST_PROGRAM={}: {e}", given.display()))
}
