//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A root of our own: another kubelet on the machine would take our pods for orphans.
const (
	cgroupRoot  = "ca-overlap-node"
	cgroupMount = "/sys/fs/cgroup"
)

// The hierarchies of the machine; one is version 2.
func cgroups() ([]string, error) {
	if isVersion2() {
		return []string{cgroupMount}, nil
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		return nil, fmt.Errorf("no cgroups: %w", err)
	}
	var all []string
	for _, entry := range entries {
		path := filepath.Join(cgroupMount, entry.Name())
		if _, err := os.Stat(path + "/cgroup.procs"); err == nil {
			all = append(all, path)
		}
	}
	for _, need := range []string{"cpu", "memory", "pids"} {
		if _, err := os.Stat(filepath.Join(cgroupMount, need, "cgroup.procs")); err != nil {
			return nil, fmt.Errorf("no cgroup %s below %s", need, cgroupMount)
		}
	}
	return all, nil
}

func isVersion2() bool {
	_, err := os.Stat(cgroupMount + "/cgroup.controllers")
	return err == nil
}

func makeCgroups() error {
	all, err := cgroups()
	if err != nil {
		return err
	}
	for _, parent := range all {
		own := filepath.Join(parent, cgroupRoot)
		if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cannot make a cgroup: %w", err)
		}
		if isVersion2() {
			if err := delegate(parent); err != nil {
				return err
			}
			continue
		}
		// Version 1 leaves these empty, and nothing can run with an empty set.
		for _, name := range []string{"cpuset.mems", "cpuset.cpus"} {
			if value, err := os.ReadFile(filepath.Join(parent, name)); err == nil {
				if err := os.WriteFile(filepath.Join(own, name), value, 0); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// The kubelet turns controllers on from its own root downwards; ours must offer them.
func delegate(parent string) error {
	var on []string
	for _, name := range []string{"cpuset", "cpu", "io", "memory", "pids", "hugetlb"} {
		on = append(on, "+"+name)
	}
	err := os.WriteFile(parent+"/cgroup.subtree_control", []byte(strings.Join(on, " ")), 0)
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%s holds processes itself, so no controller can be handed down: run on the machine, or in a container with the host's cgroup namespace", parent)
	}
	return err
}

// Only what is ours and empty can go: a cgroup with a process in it cannot be removed.
func removeCgroups() error {
	all, err := cgroups()
	if err != nil {
		return nil
	}
	var failed []error
	for _, parent := range all {
		if err := removeTree(filepath.Join(parent, cgroupRoot)); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func removeTree(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(path, entry.Name())); err != nil {
				return err
			}
		}
	}
	// Who has just ended may be counted for a moment longer.
	for range 100 {
		err = syscall.Rmdir(path)
		if !errors.Is(err, syscall.EBUSY) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cgroup %s: %w", path, err)
	}
	return nil
}
