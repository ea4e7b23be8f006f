// What `make node-test` and the suite of this directory need besides Kubernetes itself: a node
// without a container engine, images without a registry, and the peers whose handshakes are logged.
// The standard library alone.
module ca-overlap.dev/cluster-tests

go 1.25
