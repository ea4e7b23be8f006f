//! The cluster of the attack rig (tests/fault/rig): an API server with the manifests and a webhook.
//! It prints one line of JSON that says how to reach them, and ends with its standard input.

#![allow(clippy::unwrap_used, reason = "part of a test")]

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;

use ca_overlap::names;
use clap::Parser;
use devtools::control_plane::{
    Assets, ControlPlane, Options, Patches, Webhook, WebhookOptions, can_listen,
};
use serde_json::json;

#[derive(Parser)]
struct Arguments {
    /// The program to run as the webhook
    #[arg(long)]
    product: PathBuf,
    /// The kustomization to install
    #[arg(long, default_value = "manifests/overlays/staged")]
    overlay: PathBuf,
    /// More arguments for the webhook
    webhook: Vec<String>,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let plane = ControlPlane::start(Options::new(Assets::find(None).unwrap())).await.unwrap();
    let address = plane.next_cluster_ip().unwrap();
    let listen = SocketAddr::from((address, 443));
    can_listen(listen).unwrap();
    let patches = Patches { cluster_ip: Some(address), url: None };
    plane.install(&arguments.overlay, patches).await.unwrap();
    let options = WebhookOptions {
        program: arguments.product.canonicalize().unwrap(),
        name: "webhook".into(),
        listen,
        admin: (address, 8081).into(),
        arguments: arguments.webhook,
    };
    let mut webhook = Webhook::start(&plane, options).await.unwrap();
    webhook.ready().await.unwrap();
    plane.registration_in_force().await.unwrap();
    let keeper = plane.service_account_kubeconfig(names::NAMESPACE, names::KEEPER_SERVICE_ACCOUNT);
    println!("{}", json!({"admin": plane.admin_kubeconfig(), "keeper": keeper.await.unwrap()}));
    // An error ends it as well.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
