//! Rotations of the webhook's own certificate: on a real API server with `failurePolicy: Fail`,
//! where a call that fails is a write that is rejected; and from files, with clients that resume.

mod crash;
mod damage;
mod files;
mod load;
mod rollouts;
mod setup;
