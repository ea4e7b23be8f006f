//! The build of the program that the tests start.

use std::path::PathBuf;

/// The program that `CA_OVERLAP_TEST_PROGRAM` names (`make test-static`: the shipped one), else the
/// one that cargo built. Absolute, because some tests change the working directory.
pub(crate) fn path() -> PathBuf {
    let Some(given) = std::env::var_os("CA_OVERLAP_TEST_PROGRAM") else {
        return env!("CARGO_BIN_EXE_ca-overlap").into();
    };
    let given = PathBuf::from(given);
    std::fs::canonicalize(&given)
        .unwrap_or_else(|e| panic!("CA_OVERLAP_TEST_PROGRAM={}: {e}", given.display()))
}
