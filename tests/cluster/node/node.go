//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// Node is one that is up, or on its way.
type Node struct {
	options   Options
	programs  Programs
	addresses Addresses
	machine   *Machine
	remains   Remains
	pki       *PKI
}

// Brings a node up. What it has begun is in the answer also when it fails.
func up(ctx context.Context, options Options, programs Programs) (*Node, error) {
	node := &Node{options: options, programs: programs}
	steps := []func(context.Context) error{
		node.prepare, node.startStore, node.importImages, node.startControllers, node.waitReady,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return node, errors.New("interrupted")
			}
			if node.machine != nil {
				err = errors.Join(err, node.machine.failures())
			}
			return node, err
		}
	}
	return node, nil
}

func (node *Node) state(name string) string { return filepath.Join(node.options.State, name) }
func (node *Node) kubeconfig() string       { return node.pki.path("admin.kubeconfig") }

func (node *Node) prepare(context.Context) error {
	if err := emptyLogs(node.options.Logs); err != nil {
		return err
	}
	var err error
	if node.remains, err = newRemains(node.options); err != nil {
		return err
	}
	if node.addresses, err = chooseAddresses(); err != nil {
		return err
	}
	if node.pki, err = makePKI(node.state("pki"), node.addresses); err != nil {
		return err
	}
	major, err := containerdMajor(node.programs.path("containerd"))
	if err != nil {
		return err
	}
	if err := writeFiles(node.options, node.programs, node.addresses, major); err != nil {
		return err
	}
	if err := makeCgroups(); err != nil {
		return err
	}
	node.machine, err = startMachine(node.options)
	if err != nil {
		return err
	}
	if err := node.remains.of(node.machine.first.Process.Pid); err != nil {
		return err
	}
	return connect(node.machine, node.programs, node.addresses)
}

// Only what a node has written there.
func emptyLogs(directory string) error {
	if _, err := os.Stat(directory + "/README"); err == nil {
		return os.RemoveAll(directory)
	}
	if entries, err := os.ReadDir(directory); err == nil && len(entries) > 0 {
		return fmt.Errorf("-logs %s is not empty, and not a node's", directory)
	}
	return nil
}

func containerdMajor(program string) (int, error) {
	output, err := exec.Command(program, "--version").Output()
	match := regexp.MustCompile(` v?(\d+)\.\d+`).FindSubmatch(output)
	if err != nil || match == nil {
		return 0, fmt.Errorf("%s --version says %q", program, output)
	}
	return strconv.Atoi(string(match[1]))
}

func (node *Node) startStore(ctx context.Context) error {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	pki, machine, programs := node.pki.path, node.machine, node.programs.path
	steps := []error{
		machine.start("etcd", programs("etcd"), "--data-dir", node.state("etcd"),
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", "default="+peer, "--unsafe-no-fsync"),
		machine.start("kube-apiserver", programs("kube-apiserver"), "--etcd-servers", client,
			"--bind-address", "0.0.0.0", "--advertise-address", node.addresses.Node.String(), "--secure-port", "6443",
			"--tls-cert-file", pki("apiserver.crt"), "--tls-private-key-file", pki("apiserver.key"),
			"--client-ca-file", pki("ca.crt"), "--token-auth-file", pki("tokens.csv"),
			"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
			"--service-cluster-ip-range", node.addresses.Services.String(), "--allow-privileged",
			"--service-account-issuer", "https://kubernetes.default.svc",
			"--service-account-signing-key-file", pki("sa.key"), "--service-account-key-file", pki("sa.key"),
			"--kubelet-client-certificate", pki("kubelet-client.crt"), "--kubelet-client-key", pki("kubelet-client.key"),
			"--kubelet-certificate-authority", pki("ca.crt"), "--kubelet-preferred-address-types", "InternalIP",
			"--profiling=false"),
		machine.start("containerd", programs("containerd"), "-c", node.state("conf/containerd.toml")),
	}
	return errors.Join(steps...)
}

// Under the names that their index gives them. Nothing is pulled: the node has no way out.
func (node *Node) importImages(ctx context.Context) error {
	ctr := func(words ...string) *exec.Cmd {
		return exec.CommandContext(ctx, node.programs.path("ctr"), append([]string{"-a", containerdSocket, "-n", "k8s.io"}, words...)...)
	}
	err := node.poll(ctx, "containerd", 30*time.Second, func() error { return ctr("version").Run() })
	if err != nil {
		return err
	}
	archives, err := filepath.Glob(node.options.Images + "/*.tar")
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if output, err := ctr("images", "import", archive).CombinedOutput(); err != nil {
			return fmt.Errorf("cannot import %s: %w: %s", archive, err, output)
		}
	}
	return nil
}

func (node *Node) startControllers(ctx context.Context) error {
	err := node.poll(ctx, "the API server", time.Minute, func() error { return node.ask("/readyz", nil) })
	if err != nil {
		return err
	}
	pki, machine, programs := node.pki.path, node.machine, node.programs.path
	steps := []error{
		machine.start("kube-controller-manager", programs("kube-controller-manager"),
			"--kubeconfig", pki("controller-manager.kubeconfig"), "--leader-elect=false",
			"--use-service-account-credentials", "--kube-api-qps", "500", "--kube-api-burst", "1000",
			"--root-ca-file", pki("ca.crt"), "--service-account-private-key-file", pki("sa.key"),
			"--cluster-signing-cert-file", pki("ca.crt"), "--cluster-signing-key-file", pki("ca.key"),
			"--bind-address", "127.0.0.1"),
		machine.start("kube-scheduler", programs("kube-scheduler"), "--kubeconfig", pki("scheduler.kubeconfig"),
			"--leader-elect=false", "--bind-address", "127.0.0.1"),
		machine.start("kubelet", programs("kubelet"), "--config", node.state("conf/kubelet.yaml"),
			"--kubeconfig", pki("kubelet.kubeconfig"), "--hostname-override", nodeName,
			"--node-ip", node.addresses.Node.String(), "--root-dir", node.state("kubelet"), "--cert-dir", node.state("pki")),
		machine.start("kube-proxy", programs("kube-proxy"), "--config", node.state("conf/kube-proxy.yaml")),
	}
	return errors.Join(steps...)
}

// A pod can run: the node is ready and untainted, and pods get a token.
func (node *Node) waitReady(ctx context.Context) error {
	return node.poll(ctx, "the node", time.Minute, func() error {
		if err := node.nodeReady(); err != nil {
			return err
		}
		return node.ask("/api/v1/namespaces/default/serviceaccounts/default", nil)
	})
}

// Runs the command, or waits for a signal. A daemon that ends by itself is an error.
func (node *Node) attend(ctx context.Context, words []string) error {
	if len(words) == 0 {
		say("press Ctrl-C to take it down")
		<-ctx.Done()
		return node.machine.failures()
	}
	// To the command a signal is ours to send: in its own group, Ctrl-C does not reach it.
	command := exec.Command(words[0], words[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Env = append(os.Environ(), "KUBECONFIG="+node.kubeconfig(), "CA_OVERLAP_TEST_KUBECONFIG="+node.kubeconfig())
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- command.Wait() }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		say("interrupted")
		syscall.Kill(-command.Process.Pid, syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
			<-done
		}
		return ExitStatus(130)
	}
	// What it may have left running.
	syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		err = ExitStatus(max(1, ended.ExitCode()))
	}
	return errors.Join(err, node.machine.failures())
}

// Ends all processes, then removes what they have left on the machine.
func (node *Node) down() error {
	if node.machine != nil {
		if err := node.machine.stop(); err != nil {
			return err
		}
	}
	if node.remains.State == "" {
		return nil
	}
	return node.remains.remove()
}
