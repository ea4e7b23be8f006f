//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Machine is the outside of the node's namespaces.
type Machine struct {
	first *exec.Cmd
	input io.WriteCloser
	logs  string

	guard sync.Mutex
	ended map[string]string
	// What came up or ended last; closed when the first process ends.
	reports chan Report
}

// What the kubelet wants to see, and would set for the whole machine: see Mounts.
var kubeletSysctls = map[string]string{
	"vm/overcommit_memory": "1",
	"vm/panic_on_oom":      "0",
	"kernel/panic":         "10",
	"kernel/panic_on_oops": "1",
}

// Starts the first process, in namespaces of its own.
func startMachine(options Options) (*Machine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	mounts, err := prepareMounts(options)
	if err != nil {
		return nil, err
	}
	machine := &Machine{logs: options.Logs, ended: map[string]string{}, reports: make(chan Report, 64)}
	machine.first = exec.Command(self, inside)
	machine.first.Stderr = os.Stderr
	machine.first.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
		// Not in the terminal's group: Ctrl-C is for us, who then end it.
		Setsid: true,
	}
	if machine.input, err = machine.first.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := machine.first.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := machine.first.Start(); err != nil {
		return nil, fmt.Errorf("cannot make namespaces for mounts, processes and network: %w", err)
	}
	go machine.listen(output)
	if err := machine.tell(mounts); err != nil {
		return machine, err
	}
	_, err = machine.started(inside)
	return machine, err
}

func prepareMounts(options Options) (Mounts, error) {
	mounts := Mounts{Run: runDirectory, Holder: options.State + "/run"}
	if err := os.MkdirAll(mounts.Holder, 0o755); err != nil {
		return mounts, err
	}
	for _, path := range fixedDirectories {
		mounts.Private = append(mounts.Private, path)
	}
	for name, value := range kubeletSysctls {
		instead := filepath.Join(options.State, "sysctl", name)
		if err := write(instead, value+"\n", 0o644); err != nil {
			return mounts, err
		}
		mounts.Sysctls = append(mounts.Sysctls, Sysctl{"/proc/sys/" + name, instead})
	}
	return mounts, nil
}

func (machine *Machine) listen(output io.Reader) {
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		report := Report{}
		if json.Unmarshal(lines.Bytes(), &report) != nil {
			continue
		}
		if report.Ended != "" {
			machine.guard.Lock()
			machine.ended[report.Name] = report.Ended
			machine.guard.Unlock()
		}
		machine.reports <- report
	}
	close(machine.reports)
}

func (machine *Machine) tell(value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = machine.input.Write(append(line, '\n'))
	return err
}

// Waits until one is started; gives its process id inside.
func (machine *Machine) started(name string) (int, error) {
	for report := range machine.reports {
		if report.Name == name {
			if report.PID == 0 {
				return 0, fmt.Errorf("%s: %s", name, report.Ended)
			}
			return report.PID, nil
		}
	}
	return 0, fmt.Errorf("%s: the node's first process has ended", name)
}

// Starts a program inside; its log is of its name.
func (machine *Machine) start(name string, argv ...string) error {
	order := Order{Name: name, Argv: argv, Log: machine.log(name)}
	if err := machine.tell(order); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, err := machine.started(name)
	return err
}

func (machine *Machine) log(name string) string { return filepath.Join(machine.logs, name+".log") }

// Those that have ended, with how, and the end of their logs.
func (machine *Machine) failures() error {
	machine.guard.Lock()
	defer machine.guard.Unlock()
	var all []error
	for name, how := range machine.ended {
		all = append(all, fmt.Errorf("%s has ended (%s):\n%s", name, how, tail(machine.log(name), 15)))
	}
	return errors.Join(all...)
}

// Runs a program in the node's network, with the machine's own mounts.
func (machine *Machine) innet(programs Programs, argv ...string) error {
	pid := machine.first.Process.Pid
	return command(programs.path("nsenter"), append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", pid), "--"}, argv...)...)
}

// Ends every process of the node.
func (machine *Machine) stop() error {
	if machine.first.Process == nil {
		return nil
	}
	machine.first.Process.Kill()
	go func() {
		for range machine.reports {
		}
	}()
	ended := make(chan struct{})
	go func() {
		// Returns when the namespace is empty: the kernel ends the others before their first.
		machine.first.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("process %d does not end", machine.first.Process.Pid)
	}
}

func command(name string, arguments ...string) error {
	output, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(arguments, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}

func tail(path string, count int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "  no log: " + err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-count):], "\n  ")
}

func write(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), mode)
}
