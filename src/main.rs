//! The `ca-overlap` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Fails only if a provider is installed already, which is good enough.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    ca_overlap::cli::main()
}
