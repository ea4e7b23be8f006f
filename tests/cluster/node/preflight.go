//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	// Everything that needs a short path (a socket's has 108 bytes at most), and what the next run
	// needs to know about this one. Gone at the next boot, as all that it tells about.
	runDirectory = "/run/ca-overlap-node"
	lockFile     = "/run/ca-overlap-node.lock"
	packages     = "apt-get install -y --no-install-recommends containerd runc containernetworking-plugins nftables iptables conntrack iproute2 util-linux"
)

// Where network plugins are: Debian's directory, and everybody else's.
var pluginDirectories = []string{"/usr/lib/cni", "/opt/cni/bin"}

// What namespaces, mounts, links and containers need. Nothing works without.
var capabilities = []struct {
	bit  uint
	name string
}{
	{0, "CAP_CHOWN"}, {1, "CAP_DAC_OVERRIDE"}, {3, "CAP_FOWNER"}, {5, "CAP_KILL"}, {6, "CAP_SETGID"}, {7, "CAP_SETUID"},
	{8, "CAP_SETPCAP"}, {12, "CAP_NET_ADMIN"}, {18, "CAP_SYS_CHROOT"}, {21, "CAP_SYS_ADMIN"}, {27, "CAP_MKNOD"},
}

// Programs are full paths.
type Programs struct {
	byName  map[string]string
	plugins string
}

func (programs Programs) path(name string) string { return programs.byName[name] }

// Says everything that is missing at once.
func preflight(options Options) (Programs, error) {
	if err := needRoot(); err != nil {
		return Programs{}, err
	}
	var missing []string
	if text := missingCapabilities(); text != "" {
		missing = append(missing, "root lacks "+text+": a container or sandbox that is not privileged cannot run a node")
	}
	filesystems, _ := os.ReadFile("/proc/filesystems")
	if !strings.Contains(string(filesystems), "\toverlay\n") && exec.Command("modprobe", "overlay").Run() != nil {
		missing = append(missing, "the kernel has no overlay filesystem")
	}
	if _, err := cgroups(); err != nil {
		missing = append(missing, err.Error())
	}
	programs, absent := find(options)
	return programs, wanting(append(missing, absent...))
}

func find(options Options) (Programs, []string) {
	programs := Programs{byName: map[string]string{}}
	var missing, debian []string
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"} {
		path := ""
		for _, directory := range filepath.SplitList(options.Bin) {
			if found, err := exec.LookPath(filepath.Join(directory, name)); err == nil && path == "" {
				path, _ = filepath.Abs(found)
			}
		}
		if path == "" {
			missing = append(missing, fmt.Sprintf("no %s in %s: run `sh tests/control-plane/build.sh node`", name, options.Bin))
		}
		programs.byName[name] = path
	}
	// Packages put some of them where PATH of an ordinary user does not look.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "nft", "iptables", "conntrack", "ip", "nsenter"} {
		path, err := exec.LookPath(name)
		if err != nil {
			debian = append(debian, name)
		}
		programs.byName[name] = path
	}
	for _, directory := range pluginDirectories {
		if _, err := os.Stat(directory + "/ptp"); err == nil && programs.plugins == "" {
			programs.plugins = directory
		}
	}
	if programs.plugins == "" {
		debian = append(debian, "the network plugin ptp")
	}
	if len(debian) > 0 {
		missing = append(missing, fmt.Sprintf("not installed: %s; on Debian: %s", strings.Join(debian, ", "), packages))
	}
	if archives, _ := filepath.Glob(options.Images + "/*.tar"); len(archives) == 0 {
		missing = append(missing, fmt.Sprintf("no images in %s: run `make node-images`", options.Images))
	}
	return programs, missing
}

func wanting(missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("a node cannot run here:\n  - %s", strings.Join(missing, "\n  - "))
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root, for namespaces, mounts and cgroups; this is user %d", os.Geteuid())
	}
	return nil
}

// The names of those that root does not have here, or nothing.
func missingCapabilities() string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ""
	}
	var effective uint64
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, "CapEff:"); found {
			effective, _ = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	var missing []string
	for _, capability := range capabilities {
		if effective&(1<<capability.bit) == 0 {
			missing = append(missing, capability.name)
		}
	}
	return strings.Join(missing, ", ")
}

// One node on a machine: its addresses, its cgroup and its directory in /run are fixed. The kernel
// lets go of the lock when this process ends, however it ends.
func lock() (func(), error) {
	file, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(lockFile)
		return nil, fmt.Errorf("another node runs on this machine, of process %s: one at a time", strings.TrimSpace(string(holder)))
	}
	if err := file.Truncate(0); err != nil {
		return nil, err
	}
	fmt.Fprintln(file, os.Getpid())
	return func() { file.Close() }, nil
}
