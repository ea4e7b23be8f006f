package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Cgroup limits the memory of one process, as a container's limit does.
type Cgroup struct {
	dir     string
	version int
	limit   int64
}

const cgroupMount = "/sys/fs/cgroup"

// NewCgroup makes a cgroup below the rig's own, so that it stays within what the rig was given. With
// version 2 it is made below the nearest parent that hands the memory controller down.
func NewCgroup(name string, limit int64) (*Cgroup, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root")
	}
	parent, version, err := memoryParent()
	if err != nil {
		return nil, err
	}
	c := &Cgroup{filepath.Join(parent, fmt.Sprintf("attack-rig-%d-%s", os.Getpid(), name)), version, limit}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return nil, err
	}
	file := pick(version == 2, "memory.max", "memory.limit_in_bytes")
	if err := c.write(file, strconv.FormatInt(limit, 10)); err != nil {
		c.Remove()
		return nil, err
	}
	// Swap would hide what the process takes. Not every kernel has these files.
	_ = c.write("memory.swap.max", "0")
	_ = c.write("memory.memsw.limit_in_bytes", strconv.FormatInt(limit, 10))
	return c, nil
}

func memoryParent() (string, int, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", 0, err
	}
	own := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if parts := strings.SplitN(line, ":", 3); len(parts) == 3 {
			own[parts[1]] = parts[2]
		}
	}
	if path, ok := own["memory"]; ok {
		dir := filepath.Join(cgroupMount, "memory", path)
		if _, err := os.Stat(dir); err != nil {
			dir = filepath.Join(cgroupMount, "memory") // a container sees its own as the root
		}
		return dir, 1, nil
	}
	for path := own[""]; path != ""; path = filepath.Dir(path) {
		dir := filepath.Join(cgroupMount, path)
		handed, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
		if strings.Contains(string(handed), "memory") {
			return dir, 2, nil
		}
		if path == "/" {
			break
		}
	}
	return "", 0, errors.New("no cgroup hands the memory controller down")
}

// Wrap returns the command that enters the cgroup and then becomes argv.
func (c *Cgroup) Wrap(argv []string) []string {
	enter := `echo $$ >"$0" && exec "$@"`
	return append([]string{"/bin/sh", "-c", enter, filepath.Join(c.dir, "cgroup.procs")}, argv...)
}

// Peak is the most memory that the process has had, in bytes. Version 1 does not count the buffers
// of sockets.
func (c *Cgroup) Peak() (int64, error) {
	return c.number(pick(c.version == 2, "memory.peak", "memory.max_usage_in_bytes"))
}

// Kills is the number of processes that were killed for want of memory.
func (c *Cgroup) Kills() (int, error) {
	file := pick(c.version == 2, "memory.events", "memory.oom_control")
	text, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.Atoi(count)
		}
	}
	return 0, fmt.Errorf("%s has no oom_kill", file)
}

// Remove removes the cgroup. Its process must have ended; it may be counted for a moment longer.
func (c *Cgroup) Remove() {
	for range 100 {
		if err := os.Remove(c.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "attack rig: cannot remove", c.dir)
}

// RemoveLeftCgroups removes the cgroups of rigs that were killed.
func RemoveLeftCgroups() {
	parent, _, err := memoryParent()
	if err != nil {
		return
	}
	left, _ := filepath.Glob(filepath.Join(parent, "attack-rig-*"))
	for _, dir := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), "attack-rig-"), "-")
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
			_ = os.Remove(dir) // fails while a process is in it
		}
	}
}

func (c *Cgroup) number(file string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

func (c *Cgroup) write(file, value string) error {
	return os.WriteFile(filepath.Join(c.dir, file), []byte(value), 0)
}
