//! The keeper: the real program beside the real webhook on a real API server.

mod election;
mod kills;
mod left;
mod promote;
mod proxy;
mod quiet;
mod repair;
mod restart;
mod retire;
mod rollout;
mod scale;
mod scene;
mod workload;
