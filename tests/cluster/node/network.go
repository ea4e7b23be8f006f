//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	hostLink = "ca-overlap-h"
	nodeLink = "ca-overlap-n"
	// What CNI names its results by.
	networkName = "ca-overlap-node"
)

// Addresses of the machine's end of the cable, the node's end, and what is behind it.
type Addresses struct {
	Host, Node, API, DNS netip.Addr
	Pods, Services       netip.Prefix
}

// A network of 2^16 addresses that the machine has no route to.
func chooseAddresses() (Addresses, error) {
	output, err := exec.Command("ip", "-4", "route", "show", "table", "all").Output()
	if err != nil {
		return Addresses{}, fmt.Errorf("ip route: %w", err)
	}
	taken := routes(string(output))
	for second := 76; second < 256; second += 20 {
		all := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(second), 0, 0}), 16)
		if !overlapsAny(all, taken) {
			return addresses(byte(second)), nil
		}
	}
	return Addresses{}, fmt.Errorf("no free network for the node: routes cover 10.0.0.0/8")
}

func routes(text string) []netip.Prefix {
	var all []netip.Prefix
	for line := range strings.Lines(text) {
		for _, word := range strings.Fields(line) {
			if prefix, err := netip.ParsePrefix(word); err == nil {
				all = append(all, prefix)
			} else if address, err := netip.ParseAddr(word); err == nil {
				all = append(all, netip.PrefixFrom(address, address.BitLen()))
			}
		}
	}
	return all
}

func overlapsAny(one netip.Prefix, others []netip.Prefix) bool {
	for _, other := range others {
		if one.Overlaps(other) {
			return true
		}
	}
	return false
}

func addresses(second byte) Addresses {
	at := func(third, fourth byte) netip.Addr { return netip.AddrFrom4([4]byte{10, second, third, fourth}) }
	return Addresses{
		Host: at(0, 1), Node: at(0, 2), API: at(2, 1), DNS: at(2, 10),
		Pods: netip.PrefixFrom(at(1, 0), 24), Services: netip.PrefixFrom(at(2, 0), 24),
	}
}

// Joins the node's network to the machine's. The machine gets two routes and nothing else: no
// forwarding, no rule of a firewall. The node gets no default route: what it does not have, it
// cannot pull.
func connect(machine *Machine, programs Programs, addresses Addresses) error {
	pid := strconv.Itoa(machine.first.Process.Pid)
	node, host := addresses.Node.String(), addresses.Host.String()
	ip := programs.path("ip")
	outside := func(words string) error { return command(ip, strings.Fields(words)...) }
	within := func(words string) error {
		return machine.innet(programs, append([]string{ip}, strings.Fields(words)...)...)
	}
	steps := []struct {
		run   func(string) error
		words string
	}{
		{outside, fmt.Sprintf("link add %s type veth peer name %s netns %s", hostLink, nodeLink, pid)},
		{outside, fmt.Sprintf("addr add %s/30 dev %s", host, hostLink)},
		{outside, fmt.Sprintf("link set %s up", hostLink)},
		{within, fmt.Sprintf("addr add %s/30 dev %s", node, nodeLink)},
		{within, fmt.Sprintf("link set %s up", nodeLink)},
		// A packet to a Service needs some route before kube-proxy's rules see it.
		{within, fmt.Sprintf("route add %s via %s", addresses.Services, host)},
		{outside, fmt.Sprintf("route add %s via %s", addresses.Pods, node)},
		{outside, fmt.Sprintf("route add %s via %s", addresses.Services, node)},
	}
	for _, step := range steps {
		if err := step.run(step.words); err != nil {
			return err
		}
	}
	return nil
}

// It goes with the node's network; a link is left only if something outlives the node.
func disconnect() error {
	if _, err := os.Stat("/sys/class/net/" + hostLink); err != nil {
		return nil
	}
	return command("ip", "link", "del", hostLink)
}

// What its plugin ptp does: every packet is routed, so no bridge and no hairpin is needed.
func networkConfiguration(addresses Addresses, state string) (string, string) {
	return filepath.Join(state, "cni", "10-ptp.conflist"), fmt.Sprintf(`{
  "cniVersion": "0.4.0", "name": %q,
  "plugins": [{
    "type": "ptp", "ipMasq": false, "mtu": 1500,
    "ipam": {
      "type": "host-local", "dataDir": %q,
      "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]
    }
  }]
}
`, networkName, runDirectory+"/ipam", addresses.Pods)
}
