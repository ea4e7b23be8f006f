//! The `ca-overlap` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Fails only where a provider is installed already: then there is one.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    ca_overlap::cli::main()
}
