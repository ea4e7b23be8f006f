package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The node's process id of a container's first process.
func find(container string) (int, error) {
	if len(container) < 12 {
		return 0, fmt.Errorf("%q is not a container id", container)
	}
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	first := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(text, []byte(container)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && (first == 0 || pid < first) {
			first = pid
		}
	}
	if first == 0 {
		return 0, fmt.Errorf("container %s has no process", container)
	}
	return first, nil
}

func status(container string) error {
	pid, err := find(container)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, ":")
		switch name {
		case "Name", "Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
			fmt.Print(line)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		// The fifth field is the mount point, the sixth its options (proc(5)).
		if fields := strings.Fields(line); len(fields) > 5 && fields[4] == "/" {
			how, _, _ := strings.Cut(fields[5], ",")
			fmt.Printf("Root:\t%s\n", how)
		}
	}
	return nil
}

func kill(container string) error {
	pid, err := find(container)
	if err != nil {
		return err
	}
	fmt.Println("kill -9 of process", pid)
	return syscall.Kill(pid, syscall.SIGKILL)
}
