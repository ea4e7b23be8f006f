//go:build linux

// A Kubernetes node without a container engine: etcd, the control plane, containerd, kubelet and
// kube-proxy in namespaces of their own, for as long as one command runs. See docs/testing.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const usage = `usage:
  node run [flags] [-- COMMAND …]   bring a node up, run COMMAND (without one: wait for Ctrl-C), take it down
  node clean                        remove what a killed run left behind; run does that too
flags of run:
`

// Options are the flags of run.
type Options struct {
	// Where the programs of Kubernetes are, as in PATH.
	Bin string
	// OCI archives to import: *.tar.
	Images string
	// What the node writes; removed afterwards. And its logs, which stay.
	State, Logs string
	// The kubelet's syncFrequency; none: its default, 1 minute.
	Sync time.Duration
	// What COMMAND is.
	Command []string
}

func init() {
	// The kernel kills what this thread has started when the thread ends (Pdeathsig).
	runtime.LockOSThread()
}

func main() {
	arguments := os.Args[1:]
	if len(arguments) == 0 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(64)
	}
	switch arguments[0] {
	case "run":
		os.Exit(report(run(parse(arguments[1:]))))
	case "clean":
		os.Exit(report(clean(arguments[1:])))
	case inside:
		live()
	default:
		fmt.Fprintf(os.Stderr, "node: there is no command %q\n%s", arguments[0], usage)
		os.Exit(64)
	}
}

func parse(arguments []string) Options {
	options := Options{}
	flags := flag.NewFlagSet("node run", flag.ContinueOnError)
	flags.StringVar(&options.Bin, "bin", programDirectories(), "`directories` with the programs of Kubernetes")
	flags.StringVar(&options.Images, "images", "target/node/images", "a `directory` with OCI archives to import")
	flags.StringVar(&options.State, "state", "target/node/state", "a `directory` for what the node writes; removed afterwards")
	flags.StringVar(&options.Logs, "logs", "target/node/logs", "a `directory` for logs, which stay until the next run")
	flags.DurationVar(&options.Sync, "sync", 5*time.Second, "the kubelet's syncFrequency, after which Secret volumes are read again; 0: its default")
	flags.Usage = func() {
		fmt.Fprint(os.Stderr, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(arguments); err != nil {
		os.Exit(64)
	}
	options.Command = flags.Args()
	for _, path := range []*string{&options.Images, &options.State, &options.Logs} {
		*path, _ = filepath.Abs(*path)
	}
	if strings.Count(options.State, "/") < 3 {
		fmt.Fprintf(os.Stderr, "node: -state %s is removed afterwards: name a directory further down\n", options.State)
		os.Exit(64)
	}
	return options
}

// Where build.sh leaves them.
func programDirectories() string {
	const built = "target/control-plane/"
	directories := []string{built + "bin", built + "controllers", built + "node"}
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		directories[0] = assets
	}
	return strings.Join(directories, ":")
}

// The exit status of the command, or an error of the node itself.
func run(options Options) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	programs, err := preflight(options)
	if err != nil {
		return err
	}
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := removeRemains(); err != nil {
		return err
	}
	begin := time.Now()
	node, err := up(ctx, options, programs)
	if err != nil {
		return errors.Join(err, node.down())
	}
	say("ready after %.1f s: KUBECONFIG=%s", time.Since(begin).Seconds(), node.kubeconfig())
	result := node.attend(ctx, options.Command)
	begin = time.Now()
	err = node.down()
	say("down after %.1f s; logs are in %s", time.Since(begin).Seconds(), options.Logs)
	return errors.Join(result, err)
}

func clean(arguments []string) error {
	if len(arguments) > 0 {
		fmt.Fprintf(os.Stderr, "node: clean takes no argument\n")
		os.Exit(64)
	}
	if err := needRoot(); err != nil {
		return err
	}
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	return removeRemains()
}

// ExitStatus is what the command ended with.
type ExitStatus int

func (status ExitStatus) Error() string { return fmt.Sprintf("the command ended with %d", int(status)) }

func report(err error) int {
	if err == nil {
		return 0
	}
	say("error: %v", err)
	var status ExitStatus
	if errors.As(err, &status) && status != 0 {
		return int(status)
	}
	return 1
}

func say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "node: "+format+"\n", arguments...)
}
