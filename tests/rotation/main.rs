//! Rotations of the webhook's own certificate: on a real API server with `failurePolicy: Fail`,
//! where a call that fails is a write that is rejected; and from files, with clients that resume.
#![allow(unreachable_pub)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails here"
)]

#[path = "../support/rig.rs"]
mod rig;
#[path = "../support/mod.rs"]
mod support;

mod crash;
mod damage;
mod files;
mod load;
mod rollouts;
mod scene;
