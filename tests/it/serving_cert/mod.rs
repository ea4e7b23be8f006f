//! Rotations of the webhook's own certificate. Most tests use a real API server with
//! `failurePolicy: Fail`, so each failed call is a rejected write. Others use certificate files and
//! clients that resume sessions.

mod crash;
mod damage;
mod files;
mod load;
mod rollouts;
mod setup;
