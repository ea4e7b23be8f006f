// A TLS server on Go's standard library, with the ways in which Go programs exchange certificates.
module ca-overlap.dev/probe-server

go 1.24
