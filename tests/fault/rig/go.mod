// The fault rig: a client that behaves like the API server, and what makes the webhook's life hard.
// Go, because the API server's own client is Go's net/http; the standard library alone.
module ca-overlap.dev/fault-rig

go 1.24
