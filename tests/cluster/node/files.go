//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

const (
	containerdSocket = runDirectory + "/containerd.sock"
	sandboxImage     = "localhost/ca-overlap-pause:test"
)

// The configuration files of containerd, its network, kubelet and kube-proxy.
func writeFiles(options Options, programs Programs, addresses Addresses, major int) error {
	conf := func(name string) string { return filepath.Join(options.State, "conf", name) }
	network, text := networkConfiguration(addresses, options.State)
	for path, text := range map[string]string{
		network:                               text,
		conf("resolv.conf"):                   "",
		conf("containerd.toml"):               containerdConfiguration(options.State, programs.plugins, major),
		conf("kubelet.yaml"):                  kubeletConfiguration(options, addresses),
		conf("kube-proxy.yaml"):               proxyConfiguration(options.State, addresses),
		filepath.Join(options.Logs, "README"): "Logs of the last node that tests/cluster/node has run; pods' are below pods/.\n",
	} {
		if err := write(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Of the two formats, containerd 1.x reads version 2, and 2.x version 3.
func containerdConfiguration(state, plugins string, major int) string {
	common := fmt.Sprintf(`root = "%s/containerd"
state = "%s/containerd"
`, state, runDirectory)
	grpc := fmt.Sprintf(`
[grpc]
  address = "%s"
[plugins."io.containerd.internal.v1.opt"]
  path = "%s/opt"
`, containerdSocket, state)
	// The score of 998 below zero that a sandbox would get needs CAP_SYS_RESOURCE, which root in a
	// container often lacks.
	const restrict = "restrict_oom_score_adj = true\n"
	if major >= 2 {
		disabled := disable("io.containerd.snapshotter.v1.", "blockfile", "btrfs", "devmapper", "erofs", "zfs") +
			`, "io.containerd.nri.v1.nri"`
		return "version = 3\n" + common + "disabled_plugins = [" + disabled + "]\n" + grpc + fmt.Sprintf(`
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "%s"
[plugins."io.containerd.cri.v1.runtime"]
  %s  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["%s"]
    conf_dir = "%s/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
`, sandboxImage, restrict, plugins, state)
	}
	disabled := disable("io.containerd.snapshotter.v1.", "aufs", "btrfs", "devmapper", "zfs") +
		`, "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"`
	return "version = 2\n" + common + "disabled_plugins = [" + disabled + "]\n" + grpc + fmt.Sprintf(`
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%s"
  %s  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%s"
    conf_dir = "%s/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`, sandboxImage, restrict, plugins, state)
}

func disable(prefix string, names ...string) string {
	var all []string
	for _, name := range names {
		all = append(all, fmt.Sprintf("%q", prefix+name))
	}
	return strings.Join(all, ", ")
}

func kubeletConfiguration(options Options, addresses Addresses) string {
	sync := ""
	if options.Sync > 0 {
		sync = fmt.Sprintf("syncFrequency: %s\n", options.Sync.Round(time.Second))
	}
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /%[1]s
containerRuntimeEndpoint: unix://%[2]s
address: %[3]s
healthzBindAddress: 127.0.0.1
readOnlyPort: 0
tlsCertFile: %[4]s/pki/kubelet.crt
tlsPrivateKeyFile: %[4]s/pki/kubelet.key
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %[4]s/pki/ca.crt}}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: [%[5]s]     # nothing listens there; without it each pod gets a warning
resolvConf: %[4]s/conf/resolv.conf
podLogsDir: %[6]s/pods
volumePluginDir: %[4]s/flexvolume
failSwapOn: false
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100     # what is collected cannot be pulled again
evictionHard: {memory.available: "0%%", nodefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.available: "0%%", imagefs.inodesFree: "0%%"}
nodeStatusUpdateFrequency: 2s
%[7]s`, cgroupRoot, containerdSocket, addresses.Node, options.State, addresses.DNS, options.Logs, sync)
}

// The sysctls of connection tracking belong to the machine: 0 leaves them alone.
func proxyConfiguration(state string, addresses Addresses) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: %s
hostnameOverride: %s
clientConnection: {kubeconfig: %s/pki/proxy.kubeconfig}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
`, addresses.Pods, nodeName, state)
}
