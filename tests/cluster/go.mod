// Programs for `make node-test` and the suite in this directory: a node without a container engine,
// and peers that log their handshakes. They use only the standard library.
module ca-overlap.dev/cluster-tests

go 1.25
