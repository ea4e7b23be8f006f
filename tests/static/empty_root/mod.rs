//! The static program in an empty root and a separate network, with the user of the image. A DNS
//! server of the test answers at the address in resolv.conf.
//!
//! Needs the static program, root, and unshare(1) and ip(8) of Linux: `make test-static`.

mod dns;
mod root;

use std::net::Ipv4Addr;

use rustls::server::Acceptor;
use tokio::net::TcpListener;
use tokio_rustls::LazyConfigAcceptor;

use crate::support::program::{Files, Program};
use crate::support::server::within;
use dns::Dns;
use root::{Root, ran_in_own_network};

/// As the kubelet writes it into a pod, but with a local name server.
const RESOLV_CONF: &str = "search ca-overlap.svc.cluster.local svc.cluster.local cluster.local\n\
                           nameserver 127.0.0.1\noptions ndots:5\n";
const HOSTS: &str = "127.0.0.1\tlocalhost\n127.0.0.3\tapi.test\n";

#[tokio::test]
#[ignore = "needs the static program and root: make test-static"]
async fn the_webhook_needs_only_its_certificate() {
    if ran_in_own_network("the_webhook_needs_only_its_certificate") {
        return;
    }
    let (root, files) = (Root::new(), Files::new());
    root.write("tls.crt", &std::fs::read_to_string(files.cert()).unwrap());
    root.write("tls.key", &std::fs::read_to_string(files.key()).unwrap());
    let arguments = ["--tls-cert=/tls.crt", "--tls-key=/tls.key"];
    let program = Program::spawn_by(root.command(), files, &arguments, &[]).await;
    let answer = within(program.client().await.get("/")).await.unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(program.admin("/livez").await.0, 200);
}

#[tokio::test]
#[ignore = "needs the static program and root: make test-static"]
async fn a_service_name_is_resolved_by_dns() {
    if ran_in_own_network("a_service_name_is_resolved_by_dns") {
        return;
    }
    let address = Ipv4Addr::new(127, 0, 0, 2);
    let dns = Dns::start(&[("kubernetes.default.svc.cluster.local", address)]);
    let root = pod_root();
    let (program, asked_for) = dialled(&root, "kubernetes.default.svc", address).await;
    assert_eq!(asked_for, "kubernetes.default.svc", "{}", program.stop().await);
    // The resolver tries the search list in order.
    let asked = dns.asked();
    let wrong = "kubernetes.default.svc.ca-overlap.svc.cluster.local";
    let place = |name: &str| asked.iter().position(|asked| asked == name);
    assert!(place(wrong) < place("kubernetes.default.svc.cluster.local"), "{asked:?}");
    assert!(place(wrong).is_some(), "{asked:?}");
}

#[tokio::test]
#[ignore = "needs the static program and root: make test-static"]
async fn a_host_alias_is_resolved_without_dns() {
    if ran_in_own_network("a_host_alias_is_resolved_without_dns") {
        return;
    }
    let dns = Dns::start(&[]);
    let root = pod_root();
    let (program, asked_for) = dialled(&root, "api.test", Ipv4Addr::new(127, 0, 0, 3)).await;
    assert_eq!(asked_for, "api.test", "{}", program.stop().await);
    assert!(dns.asked().is_empty(), "{:?}", dns.asked());
}

#[tokio::test]
#[ignore = "needs the static program and root: make test-static"]
async fn an_unknown_host_name_is_reported() {
    if ran_in_own_network("an_unknown_host_name_is_reported") {
        return;
    }
    let dns = Dns::start(&[("kubernetes.default.svc.cluster.local", Ipv4Addr::LOCALHOST)]);
    let root = pod_root();
    let mut program = self_managed(&root, "absent.default.svc", 6443).await;
    let log = program.wait_for_log("failed to lookup address information").await;
    assert!(log.contains("Name or service not known"), "{log}");
    assert_eq!(program.admin("/readyz").await.0, 503);
    assert!(dns.asked().iter().any(|name| name == "absent.default.svc"), "{:?}", dns.asked());
}

/// A root with the files that the kubelet mounts into every pod.
fn pod_root() -> Root {
    let root = Root::new();
    root.write("etc/resolv.conf", RESOLV_CONF);
    root.write("etc/hosts", HOSTS);
    root
}

/// Starts the program with an API server of this name, waits until it dials `address`, and returns
/// the server name in its TLS handshake.
async fn dialled(root: &Root, name: &str, address: Ipv4Addr) -> (Program, String) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let program = self_managed(root, name, listener.local_addr().unwrap().port()).await;
    let (connection, _) = within(listener.accept()).await.unwrap();
    let handshake = LazyConfigAcceptor::new(Acceptor::default(), connection);
    let handshake = within(handshake).await.unwrap();
    let asked_for = handshake.client_hello().server_name().unwrap_or_default().to_owned();
    (program, asked_for)
}

async fn self_managed(root: &Root, name: &str, port: u16) -> Program {
    let (server, files) = (format!("https://{name}:{port}"), Files::new());
    root.write("kubeconfig", &root::kubeconfig(&server, &files.ca.pem));
    let environment = [("KUBECONFIG", "/kubeconfig")];
    Program::spawn_by(root.command(), files, &["--self-managed"], &environment).await
}
