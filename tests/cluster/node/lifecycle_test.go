//go:build linux

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Run by `make node-test`, from the repository's root, as root: see docs/testing.md. They need what
// build.sh has built, and an image for the sandbox of a pod.

// A pod runs, and the file says so; then nothing more happens until the signal.
const withPod = `
export PATH="$PWD/target/control-plane/bin:$KUBEBUILDER_ASSETS:$PATH"
kubectl run held --image=localhost/ca-overlap-pause:test --image-pull-policy=Never >/dev/null
kubectl wait --for=condition=Ready --timeout=60s pod/held >/dev/null || exit 9
echo ready >"$0"
exec sleep 3600
`

// What a node has on the machine while it runs, and nothing of it before and after.
func traces(t *testing.T, place *place) []string {
	t.Helper()
	var all []string
	for _, path := range []string{
		runDirectory, place.state, "/sys/class/net/" + hostLink,
		filepath.Join(cgroupMount, "pids", cgroupRoot), filepath.Join(cgroupMount, cgroupRoot),
	} {
		if _, err := os.Stat(path); err == nil {
			all = append(all, path)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, place.state) || strings.Contains(line, runDirectory) {
			all = append(all, "mount "+strings.TrimSpace(line))
		}
	}
	return append(all, processes(place)...)
}

// Those whose command line names the node's directories: daemons, shims, sandboxes.
func processes(place *place) []string {
	var all []string
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		text, _ := os.ReadFile(path)
		// `node run` itself is killed by the test, and known by its flags.
		isRun := bytes.Contains(text, []byte("\x00-state\x00"))
		if !isRun && (bytes.Contains(text, []byte(place.state)) || bytes.Contains(text, []byte(runDirectory))) {
			all = append(all, string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})))
		}
	}
	return all
}

type place struct{ root, program, state, logs string }

func somewhere(t *testing.T) *place {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(root, "target/node/lifecycle")
	place := &place{root: root, program: filepath.Join(root, "target/node/tools/node"), state: base + "/state", logs: base + "/logs"}
	t.Cleanup(func() {
		if output, err := place.command("clean").CombinedOutput(); err != nil {
			t.Errorf("clean: %v: %s", err, output)
		}
		if left := traces(t, place); len(left) > 0 {
			t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		}
		os.RemoveAll(base)
	})
	return place
}

func (place *place) command(arguments ...string) *exec.Cmd {
	command := exec.Command(place.program, arguments...)
	command.Dir = place.root
	return command
}

func (place *place) run(words ...string) *exec.Cmd {
	return place.command(append([]string{"run", "-state", place.state, "-logs", place.logs, "--"}, words...)...)
}

type running struct {
	*exec.Cmd
	output *bytes.Buffer
	ended  chan error
}

// A node with a running pod.
func (place *place) start(t *testing.T) running {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready")
	run := running{place.run("sh", "-c", withPod, ready), &bytes.Buffer{}, make(chan error, 1)}
	run.Stdout, run.Stderr = run.output, run.output
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { run.ended <- run.Wait() }()
	t.Cleanup(func() { run.Process.Kill() })
	for {
		if _, err := os.Stat(ready); err == nil {
			return run
		}
		select {
		case err := <-run.ended:
			t.Fatalf("it ended (%v) before the pod was ready:\n%s", err, run.output)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Its exit status.
func (run running) end(t *testing.T) int {
	t.Helper()
	select {
	case err := <-run.ended:
		var status *exec.ExitError
		if errors.As(err, &status) {
			return status.ExitCode()
		}
		return 0
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
		return 0
	}
}

func TestInterruptLeavesNothing(t *testing.T) {
	place := somewhere(t)
	before := sysctls(t)
	run := place.start(t)
	if len(traces(t, place)) < 5 {
		t.Fatalf("a running node shows too little, so its absence would prove nothing: %q", traces(t, place))
	}
	run.Process.Signal(os.Interrupt)
	if status := run.end(t); status != 130 {
		t.Errorf("exit status %d\n%s", status, run.output)
	}
	if left := traces(t, place); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	if after := sysctls(t); after != before {
		t.Errorf("the machine's settings were %s and are %s", before, after)
	}
	if _, err := os.Stat(place.logs + "/kubelet.log"); err != nil {
		t.Error("logs must stay:", err)
	}
}

func sysctls(t *testing.T) string {
	t.Helper()
	all := ""
	for _, name := range []string{"vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward"} {
		text, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all += name + "=" + strings.TrimSpace(string(text)) + " "
	}
	return all
}

func TestKillEndsAllProcessesAndTheNextRunCleansUp(t *testing.T) {
	place := somewhere(t)
	run := place.start(t)
	run.Process.Kill()
	run.end(t)
	deadline := time.Now().Add(30 * time.Second)
	for len(processes(place)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("still there:\n%s", strings.Join(processes(place), "\n"))
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := os.Stat(remainsFile()); err != nil {
		t.Fatal("nothing says what to clean:", err)
	}
	next := place.run("true")
	output, err := next.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "removing what an earlier run left behind") {
		t.Errorf("the next run: %v\n%s", err, output)
	}
}

func TestASecondRunRefuses(t *testing.T) {
	place := somewhere(t)
	first := place.start(t)
	for _, second := range []*exec.Cmd{place.run("true"), place.command("clean")} {
		output, err := second.CombinedOutput()
		var status *exec.ExitError
		if !errors.As(err, &status) || status.ExitCode() != 1 || !strings.Contains(string(output), "another node runs on this machine, of process") {
			t.Errorf("%v: %v\n%s", second.Args, err, output)
		}
	}
	if len(processes(place)) == 0 {
		t.Error("the second run has ended the first one")
	}
	first.Process.Signal(syscall.SIGTERM)
	first.end(t)
}

func TestTheCommandsExitStatusIsOurs(t *testing.T) {
	place := somewhere(t)
	output, err := place.run("sh", "-c", "exit 7").CombinedOutput()
	var status *exec.ExitError
	if !errors.As(err, &status) || status.ExitCode() != 7 {
		t.Errorf("%v\n%s", err, output)
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	place := somewhere(t)
	nobody := place.run("true")
	nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	// A directory above may be closed to others; the program must not be.
	copied := filepath.Join("/tmp", filepath.Base(t.TempDir())+"-node")
	program, err := os.ReadFile(place.program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, program, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(copied)
	nobody.Path, nobody.Dir = copied, "/"
	unable := exec.Command("setpriv", append([]string{"--bounding-set=-sys_admin,-net_admin"}, place.run("true").Args...)...)
	unable.Dir = place.root
	absent := place.command("run", "-bin", "/nowhere", "-images", "/nowhere")
	for want, command := range map[string]*exec.Cmd{
		"needs root": nobody,
		"root lacks CAP_NET_ADMIN, CAP_SYS_ADMIN":                            unable,
		"no kubelet in /nowhere: run `sh tests/control-plane/build.sh node`": absent,
		"no images in /nowhere":                                              place.command("run", "-images", "/nowhere"),
	} {
		output, err := command.CombinedOutput()
		var status *exec.ExitError
		if !errors.As(err, &status) || status.ExitCode() != 1 || !strings.Contains(string(output), want) {
			t.Errorf("%q is not said (%v):\n%s", want, err, output)
		}
	}
}
