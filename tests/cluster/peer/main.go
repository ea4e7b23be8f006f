// The program in the pods of the suite: peers that do mutual TLS handshakes and record each one,
// the collector of their records, and commands that inspect processes of the node.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `usage:
  peer run       a peer: serves, dials the others, and tells the collector; by environment:
                 NAME, CERTS (directory), TARGETS ("name/certificate=host:port …"), COLLECTOR (URL),
                 AT_START: "" (reads files again), "ca" (reads ca.crt only at start), "all"
  peer collect   the collector: POST /records, GET /records?from=N; listens on :8080
  peer status    CONTAINER   the lines of /proc/PID/status that tell what its first process may do
  peer kill      CONTAINER   kill -9 of its first process
  peer pause     holds the namespaces of a pod
status and kill need the node's process ids.
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	command := ""
	if len(arguments) > 0 {
		command = arguments[0]
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	switch {
	case command == "run" && len(arguments) == 1:
		peer, err := newPeer()
		if err != nil {
			return err
		}
		return peer.live(ctx)
	case command == "collect" && len(arguments) == 1:
		return serve(ctx, ":8080", &Collector{}, 0)
	case command == "status" && len(arguments) == 2:
		return status(arguments[1])
	case command == "kill" && len(arguments) == 2:
		return kill(arguments[1])
	case command == "pause" && len(arguments) == 1:
		pause()
		return nil
	}
	fmt.Fprint(os.Stderr, usage)
	os.Exit(64)
	return nil
}

// Serves plain HTTP until ctx ends, and for a while after it.
func serve(ctx context.Context, address string, handler http.Handler, after time.Duration) error {
	server := http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		time.Sleep(after)
		server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
