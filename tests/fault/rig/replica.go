package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Replica is one process of the webhook: the product, or the program with a fault.
type Replica struct {
	Name    string
	Address string // the webhook's port
	Admin   string

	mount   *Mount
	command *exec.Cmd
	ended   chan struct{} // closed once the process has ended
	last    string        // its last log line
	cut     bool          // it logged that connections were open when it ended
	reading sync.Mutex    // who holds it keeps the rig from reading the log, so that its pipe fills
}

// StartReplica starts a process and waits until it logs its addresses. The process gets SIGKILL
// when ctx ends.
func StartReplica(ctx context.Context, name string, mount *Mount, argv, environment []string, log io.Writer) (*Replica, error) {
	arguments := append(argv[1:len(argv):len(argv)],
		"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--tls-cert", mount.dir+"/tls.crt", "--tls-key", mount.dir+"/tls.key",
		"--tls-reload-interval", "20ms")
	command := exec.CommandContext(ctx, argv[0], arguments...)
	command.Env = append(os.Environ(), environment...)
	command.SysProcAttr = ownChild()
	stderr, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	replica := &Replica{Name: name, mount: mount, command: command, ended: make(chan struct{})}
	listening := make(chan [2]string, 1)
	go replica.follow(stderr, log, listening)
	select {
	case addresses := <-listening:
		replica.Address, replica.Admin = addresses[0], addresses[1]
		return replica, nil
	case <-replica.ended:
		return nil, fmt.Errorf("%s ended at once: %s", name, replica.last)
	case <-time.After(20 * time.Second):
		return nil, fmt.Errorf("%s does not listen", name)
	}
}

// follow reads the log, keeps all lines except those of single reviews, and reaps the process.
func (r *Replica) follow(stderr io.Reader, log io.Writer, listening chan<- [2]string) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		r.reading.Lock()
		r.reading.Unlock() //nolint:staticcheck // only waits
		line := lines.Bytes()
		if bytes.Contains(line, []byte(`"reviewed"`)) {
			continue
		}
		r.last = string(line)
		_, _ = fmt.Fprintf(log, "%s %s\n", r.Name, line)
		var entry struct{ Message, Webhook, Admin string }
		if json.Unmarshal(line, &entry) != nil {
			continue
		}
		r.cut = r.cut || strings.HasPrefix(entry.Message, "still open")
		if entry.Message == "listening" {
			listening <- [2]string{entry.Webhook, entry.Admin}
		}
	}
	_ = r.command.Wait()
	close(r.ended)
}

// Ready waits until /readyz returns 200 or, if really is false, any status.
func (r *Replica) Ready(ctx context.Context, really bool) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		status, err := r.probe(ctx)
		if err == nil && (status == http.StatusOK || !really) {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%s does not become ready (status %d, %v)", r.Name, status, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// probe requests /readyz as a kubelet does, on a new connection.
func (r *Replica) probe(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Admin+"/readyz", nil)
	if err != nil {
		return 0, err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return 0, err
	}
	_ = response.Body.Close()
	return response.StatusCode, nil
}

// Serves waits until new connections get this leaf.
func (r *Replica) Serves(ctx context.Context, pair *Pair) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		shown, err := r.leaf()
		if err == nil && bytes.Equal(shown, pair.der) {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%s does not serve the new certificate (%v)", r.Name, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *Replica) leaf() ([]byte, error) {
	config := &tls.Config{InsecureSkipVerify: true, ServerName: serverName} // only reads the leaf
	conn, err := tls.Dial("tcp", r.Address, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Raw, nil
}

// Signal sends a signal to this process alone.
func (r *Replica) Signal(signal syscall.Signal) error {
	return r.command.Process.Signal(signal)
}

// Ended waits until the process has ended, and returns an error if it failed.
func (r *Replica) Ended(ctx context.Context) error {
	select {
	case <-r.ended:
	case <-ctx.Done():
		return errors.New("interrupted")
	}
	if !r.command.ProcessState.Success() {
		return fmt.Errorf("%s: %s: %s", r.Name, r.command.ProcessState, r.last)
	}
	return nil
}

// Kill kills the process and waits for its end.
func (r *Replica) Kill() {
	_ = r.Signal(syscall.SIGKILL)
	<-r.ended
}
