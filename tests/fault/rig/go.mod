// The fault rig: a client that behaves like the API server, and faults for the webhook. It is in
// Go, because the API server's client is Go's net/http, and uses only the standard library.
module ca-overlap.dev/fault-rig

go 1.24
