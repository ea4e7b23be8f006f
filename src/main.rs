//! The `ca-overlap` command.

fn main() {}
