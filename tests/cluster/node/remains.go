//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Fixed directories, in which programs of the node write: private, but they have to exist.
var fixedDirectories = []string{"/var/log", "/var/lib/cni", "/var/lib/kubelet"}

// Remains is what the next run must know if this one is killed.
type Remains struct {
	// Removed.
	State string
	// Directories that were made to mount over; removed if empty.
	Made []string
	// The first process and when it started, in the kernel's ticks: numbers are used again.
	PID     int
	Started string
}

func remainsFile() string { return runDirectory + "/remains.json" }

func (remains Remains) write() error {
	text, err := json.Marshal(remains)
	if err != nil {
		return err
	}
	return write(remainsFile(), string(text), 0o600)
}

// Before anything is started: whatever happens from here on, the next run knows.
func newRemains(options Options) (Remains, error) {
	remains := Remains{State: options.State}
	for _, path := range fixedDirectories {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			remains.Made = append(remains.Made, path)
		}
	}
	// What stands there and is not a node's is nobody's to remove.
	marker := filepath.Join(options.State, ".node")
	entries, err := os.ReadDir(options.State)
	if err == nil && len(entries) > 0 {
		if _, err := os.Stat(marker); err != nil {
			return remains, fmt.Errorf("-state %s is not empty, and not a node's", options.State)
		}
	}
	if err := remains.write(); err != nil {
		return remains, err
	}
	for _, path := range remains.Made {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return remains, err
		}
	}
	return remains, write(marker, "made by tests/cluster/node, and removed by it\n", 0o644)
}

func (remains *Remains) of(pid int) error {
	remains.PID, remains.Started = pid, startOf(pid)
	return remains.write()
}

// Field 22 of the process's stat, behind the name, which may hold blanks.
func startOf(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	_, behind, _ := strings.Cut(string(text), ") ")
	if fields := strings.Fields(behind); len(fields) > 19 {
		return fields[19]
	}
	return ""
}

// Removes what an earlier run has left, by what it wrote down. Only called under the lock.
func removeRemains() error {
	text, err := os.ReadFile(remainsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	remains := Remains{}
	if err == nil {
		err = json.Unmarshal(text, &remains)
	}
	if err != nil {
		return fmt.Errorf("%s: %w; look at it and remove it", remainsFile(), err)
	}
	say("removing what an earlier run left behind")
	if remains.PID > 0 && remains.Started != "" && startOf(remains.PID) == remains.Started {
		syscall.Kill(remains.PID, syscall.SIGKILL)
		for deadline := time.Now().Add(30 * time.Second); startOf(remains.PID) == remains.Started; {
			if time.Now().After(deadline) {
				return fmt.Errorf("process %d of an earlier run does not end", remains.PID)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return remains.remove()
}

// With no process of the node alive, nothing is mounted below these directories.
func (remains Remains) remove() error {
	failed := []error{disconnect(), removeCgroups()}
	if _, err := os.Stat(filepath.Join(remains.State, ".node")); err == nil {
		failed = append(failed, os.RemoveAll(remains.State))
	}
	for _, path := range remains.Made {
		// Not ours any more if somebody else has put something there.
		if err := os.Remove(path); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("not everything could be removed: %w", err)
	}
	return os.RemoveAll(runDirectory)
}
