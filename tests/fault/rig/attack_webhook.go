package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// webhookAttack is an attack on the webhook's ports.
type webhookAttack struct {
	name        string
	attack      string // the name in holds; empty for none
	connections int
	peers       int
	blocksLog   bool // nobody reads its standard error
	arguments   []string
	control     string // what a negative control must show
}

// The webhook has 1,024 places for connections by default. One peer and many peers are different
// attacks: a share for each peer answers the first only.
var webhookAttacks = []webhookAttack{
	{name: "no attack"},
	{name: "bodies of 8 MiB less a byte, one peer", attack: "bodies", connections: 48, peers: 1},
	{name: "bodies of 8 MiB less a byte, 40 peers", attack: "bodies", connections: 80, peers: 40},
	{
		name: "no budget for bodies", attack: "bodies", connections: 48, peers: 1,
		arguments: []string{"--body-memory", "65536MiB"}, control: "killed for want of memory",
	},
	{name: "chunked bodies without an end, 40 peers", attack: "chunked", connections: 80, peers: 40},
	{name: "slow bodies of 8 MiB, 300 connections", attack: "slow", connections: 300, peers: 40},
	{name: "all places asked once, one peer", attack: "asked", connections: 1200, peers: 1},
	{name: "all places asked once, 40 peers", attack: "asked", connections: 1200, peers: 40},
	{name: "2,100 silent connections", attack: "silent", connections: 2100, peers: 40},
	{name: "1,200 half handshakes", attack: "handshake", connections: 1200, peers: 40},
	{name: "pipelined, never read, 200 connections", attack: "unread", connections: 200, peers: 1},
	{name: "admin port held, one peer", attack: "admin", connections: 200, peers: 1},
	{name: "admin port held, 40 peers", attack: "admin", connections: 200, peers: 40},
	{name: "standard error blocked", attack: "reviews", connections: 4, peers: 1, blocksLog: true},
	{name: "hostile reviews of 7 MiB in a loop", attack: "hostile", connections: 4, peers: 2},
}

func attackWebhook(ctx context.Context, options AttackOptions, done func(*Outcome)) error {
	limit, err := memoryLimit(filepath.Join(options.Manifests, "base/deployment.yaml"))
	if err != nil {
		return err
	}
	for _, attack := range webhookAttacks {
		if !options.Only.MatchString(attack.name) {
			continue
		}
		outcome := &Outcome{Name: attack.name, Limit: limit, Control: attack.control}
		if err := attack.run(ctx, options, outcome); err != nil {
			outcome.problem("%v", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		done(outcome)
	}
	return nil
}

func (w webhookAttack) run(ctx context.Context, options AttackOptions, outcome *Outcome) error {
	dir, err := attackDir(options, w.name)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "webhook.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	authority, err := NewAuthority()
	if err != nil {
		return err
	}
	pair, err := authority.Leaf()
	if err != nil {
		return err
	}
	mount, err := NewMount(filepath.Join(dir, "certificate"), pair)
	if err != nil {
		return err
	}
	cgroup, err := NewCgroup("webhook", outcome.Limit)
	if err != nil {
		return err
	}
	defer cgroup.Remove()
	replica, err := StartReplica(ctx, "webhook", mount, cgroup.Wrap(append(webhook(options.Product), w.arguments...)), nil, log)
	if err != nil {
		return err
	}
	defer replica.Kill()
	if err := replica.Ready(ctx, true); err != nil {
		return err
	}
	review, err := NewReview(options.Review, 0)
	if err != nil {
		return err
	}
	calls := &CallLog{}
	victim := NewLoad(ctx, review)
	// Half of the calls use kept connections, half dial. Both come from an address of their own.
	kept := NewAPIServer(Bundle(authority), calls, replica.Address)
	dialling := NewAPIServer(Bundle(authority), calls, replica.Address)
	dialling.current.Load().transport.DisableKeepAlives = true
	victim.Steady(kept, 25)
	victim.Steady(dialling, 25)
	probes := watchProbes(ctx, replica.Admin)
	pause(ctx, time.Second/2) // first dials
	begin := time.Now()
	pause(ctx, pick(options.Full, 10*time.Second, 3*time.Second))
	attacked, settled := time.Now(), time.Now()
	var attacker *attackerProcess
	if w.blocksLog {
		replica.reading.Lock()
	}
	if w.attack != "" {
		if attacker, err = startAttacker(ctx, "-name", w.attack, "-webhook", replica.Address, "-admin", replica.Admin,
			"-review", options.Review, "-peers", strconv.Itoa(w.peers), "-connections", strconv.Itoa(w.connections)); err == nil {
			settled = time.Now()
		}
	}
	if err == nil {
		pause(ctx, pick(options.Full, 30*time.Second, 5*time.Second))
	}
	over := time.Now()
	victim.Stop()
	kept.Close()
	if attacker != nil {
		outcome.Note = attacker.Stop()
	}
	if w.blocksLog {
		replica.reading.Unlock()
	}
	// While the attack opens its connections the whole machine is busy: those calls may be slow, but
	// none may fail.
	outcome.Calm, outcome.Busy = calls.Between(begin, attacked), calls.Between(settled, over)
	opening := calls.Between(attacked, settled)
	failed := 0
	for _, entry := range opening {
		if entry.Kind != "" {
			failed++
		}
	}
	if failed > 0 {
		outcome.problem("%d of %d calls failed while the attack began", failed, len(opening))
	}
	outcome.Problems = append(outcome.Problems, probes.stop()...)
	outcome.judge(cgroup)
	if failures := calls.Failures(); len(failures) > 0 {
		outcome.Note = strings.TrimPrefix(outcome.Note+"; "+kinds(failures), "; ")
	}
	return err
}

// probes requests /livez and /readyz twice a second as a kubelet does.
type probes struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup
	asked  map[string]int
	failed map[string]int
	mu     sync.Mutex
}

func watchProbes(ctx context.Context, admin string) *probes {
	ctx, cancel := context.WithCancel(ctx)
	p := &probes{cancel: cancel, asked: map[string]int{}, failed: map[string]int{}}
	for path, limit := range map[string]time.Duration{"/livez": livezTime, "/readyz": readyzTime} {
		p.wait.Add(1)
		go func() {
			defer p.wait.Done()
			for pause(ctx, time.Second/2) {
				err := probe(ctx, admin, path, limit)
				if ctx.Err() != nil {
					return
				}
				p.mu.Lock()
				p.asked[path]++
				if err != nil {
					p.failed[path]++
				}
				p.mu.Unlock()
			}
		}()
	}
	return p
}

// stop ends the probes and returns the problems.
func (p *probes) stop() []string {
	p.cancel()
	p.wait.Wait()
	var problems []string
	for _, path := range []string{"/livez", "/readyz"} {
		if p.failed[path] > 0 || p.asked[path] == 0 {
			problems = append(problems, fmt.Sprintf("%s failed %d of %d times", path, p.failed[path], p.asked[path]))
		}
	}
	return problems
}

// probe requests a path of the admin port on a new connection.
func probe(ctx context.Context, admin, path string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+path, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}
