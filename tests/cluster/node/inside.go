//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
)

// The first process of the node's PID namespace. When it ends, the kernel ends everything in there,
// and with the last process go the mounts and the network: nothing that a killed run could leave.
const inside = "inside"

// Order is what the outside asks for, a JSON line each on standard input.
type Order struct {
	Name string
	// The program and its arguments; appended to Log is what it says.
	Argv []string
	Log  string
}

// Report is the answer, a JSON line each on standard output.
type Report struct {
	Name string
	// Its process id, inside. 0 if it was not started.
	PID int
	// Set once it has ended.
	Ended string `json:",omitempty"`
}

// Mounts are what the outside says in its first line.
type Mounts struct {
	// Bound to the same place, below an otherwise private /run.
	Run, Holder string
	// Directories that are private: what programs write there at fixed paths stays inside.
	Private []string
	// What the kubelet would set for the whole machine reads as if it were set.
	Sysctls []Sysctl
}

// Sysctl is a file of /proc/sys and the file that stands in for it.
type Sysctl struct{ Path, Instead string }

// Does not return.
func live() {
	input := bufio.NewReader(os.Stdin)
	mounts := Mounts{}
	if err := next(input, &mounts); err != nil {
		os.Exit(1)
	}
	if err := mounts.set(); err != nil {
		answer(Report{Name: inside, Ended: err.Error()})
		os.Exit(1)
	}
	answer(Report{Name: inside, PID: os.Getpid()})
	names := make(chan started, 16)
	go reap(names)
	for {
		order := Order{}
		// The end of the input is the end of the process outside, or its wish.
		if err := next(input, &order); err != nil {
			os.Exit(0)
		}
		pid, err := order.start()
		if err != nil {
			answer(Report{Name: order.Name, Ended: err.Error()})
			continue
		}
		names <- started{pid, order.Name}
		answer(Report{Name: order.Name, PID: pid})
	}
}

func next(input *bufio.Reader, value any) error {
	line, err := input.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, value)
}

func answer(report Report) {
	line, _ := json.Marshal(report)
	// One write each: two goroutines answer.
	os.Stdout.Write(append(line, '\n'))
}

func (order Order) start() (int, error) {
	log, err := os.OpenFile(order.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), log.Fd(), log.Fd()}
	attributes := &syscall.ProcAttr{Dir: "/", Env: os.Environ(), Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	return syscall.ForkExec(order.Argv[0], order.Argv, attributes)
}

type started struct {
	pid  int
	name string
}

// Waits for children, and for the many that containerd's shims leave to the first process.
func reap(names <-chan started) {
	ours, early := map[int]string{}, map[int]string{}
	changes := make(chan os.Signal, 2)
	signal.Notify(changes, syscall.SIGCHLD)
	// For one that has ended before.
	changes <- syscall.SIGCHLD
	for {
		select {
		case child := <-names:
			if end, ended := early[child.pid]; ended {
				answer(Report{Name: child.name, PID: child.pid, Ended: end})
			} else {
				ours[child.pid] = child.name
			}
			clear(early)
		case <-changes:
			for {
				var status syscall.WaitStatus
				pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
				if err != nil || pid <= 0 {
					break
				}
				if name, known := ours[pid]; known {
					delete(ours, pid)
					answer(Report{Name: name, PID: pid, Ended: describe(status)})
				} else {
					early[pid] = describe(status)
				}
			}
		}
	}
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + status.Signal().String()
	}
	return fmt.Sprintf("exit %d", status.ExitStatus())
}

func (mounts Mounts) set() error {
	steps := []func() error{
		// Nothing that is mounted from here on reaches the machine.
		func() error { return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") },
		func() error { return syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV, "") },
		func() error { return syscall.Mount(mounts.Run, mounts.Holder, "", syscall.MS_BIND, "") },
		func() error { return private("/run") },
		func() error { return os.MkdirAll(mounts.Run, 0o755) },
		func() error { return syscall.Mount(mounts.Holder, mounts.Run, "", syscall.MS_MOVE, "") },
		func() error { return os.MkdirAll("/run/netns", 0o755) },
	}
	for _, path := range mounts.Private {
		steps = append(steps, func() error { return private(path) })
	}
	for _, sysctl := range mounts.Sysctls {
		steps = append(steps, func() error { return syscall.Mount(sysctl.Instead, sysctl.Path, "", syscall.MS_BIND, "") })
	}
	// Volumes that the kubelet mounts must show up in containers: both share this namespace's root.
	steps = append(steps, func() error { return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, "") })
	steps = append(steps, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	for number, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("mounts of the node, step %d: %w", number+1, err)
		}
	}
	output, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip link set lo up: %s", strings.TrimSpace(string(output)))
	}
	return nil
}

func private(path string) error {
	return syscall.Mount("tmpfs", path, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755")
}
