package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Names of src/names.rs.
const (
	modeLabel          = "ca-overlap.dev/mode"
	phaseLabel         = "ca-overlap.dev/phase"
	groupAnnotation    = "ca-overlap.dev/group"
	distrustAnnotation = "ca-overlap.dev/distrust"
	windowAnnotation   = "ca-overlap.dev/window"
)

// settle is the keeper's --settle in the attacks, instead of five minutes.
const settle = 3 * time.Second

// keeperAttack is what a tenant does with Secrets of a namespace of his own.
type keeperAttack struct {
	name string
	// prepare makes the tenant's Secrets. It is not measured.
	prepare func(*tenant) error
	// stopped stops the keeper before that, and starts it again afterwards.
	stopped bool
	// during repeats until the context ends, while the victim is measured. Several writers do it.
	during  func(*tenant) error
	writers int
	// group has 8 Secrets in mode staged rotate in the tenant's namespace: they must be promoted.
	group bool
	// stranger distrusts the victim's CA in the tenant's namespace before each repair.
	stranger bool
}

var keeperAttacks = []keeperAttack{
	{name: "keeper: no attack", group: true},
	{name: "keeper: 150 labelled Secrets of 1 MB at start", stopped: true, prepare: func(t *tenant) error {
		return t.create(150, labelled, nil, filler(1_000_000))
	}},
	{name: "keeper: 200 unlabelled of 1 MB beside a group", group: true, prepare: func(t *tenant) error {
		return t.create(200, nil, nil, filler(1_000_000))
	}},
	{name: "keeper: 250 with 250 KB of fingerprints", stopped: true, prepare: func(t *tenant) error {
		return t.create(250, labelled, map[string]string{distrustAnnotation: fingerprints(250_000)}, nil)
	}, during: func(t *tenant) error {
		return t.cluster.Annotate(t.ctx, t.secret(t.next(250), nil, nil, nil), "touch", newUID())
	}, writers: 1},
	{name: "keeper: 300 deletions", prepare: func(t *tenant) error {
		if err := t.create(300, labelled, nil, nil); err != nil {
			return err
		}
		pause(t.ctx, time.Second) // the keeper sees them before they go
		return t.cluster.Empty(t.ctx, t.namespace)
	}},
	{name: "keeper: 36 MiB of ca.crt", prepare: func(t *tenant) error {
		large := strings.Repeat(string(t.authority.pem), 61_000/len(t.authority.pem))
		if err := t.create(600, labelled, nil, map[string]any{"ca.crt": base64Of(large)}); err != nil {
			return err
		}
		// Small ones take what is left.
		t.prefix = "small"
		return t.create(100, labelled, nil, nil)
	}},
	{name: "keeper: distrust of a stranger's CA", stranger: true},
	{name: "keeper: a group member touched in a loop", group: true, during: func(t *tenant) error {
		return t.cluster.Annotate(t.ctx, t.member(0), "touch", newUID())
	}, writers: 1},
	{name: "keeper: 2,000 retirements and Events at start", stopped: true, prepare: func(t *tenant) error {
		window := map[string]string{windowAnnotation: "1s"}
		if err := t.create(2000, labelled, window, nil); err != nil {
			return err
		}
		authority, err := NewAuthority()
		if err != nil {
			return err
		}
		rotated, err := data(authority, 0)
		if err != nil {
			return err
		}
		return t.each(2000, func(name string) error {
			return t.cluster.Put(t.ctx, t.secret(name, labelled, window, rotated))
		})
	}},
	{name: "keeper: rotations in a loop, an Event each", prepare: func(t *tenant) error {
		return t.create(50, labelled, nil, nil)
	}, during: func(t *tenant) error {
		authority, err := NewAuthority()
		if err != nil {
			return err
		}
		return t.cluster.Put(t.ctx, t.secret(t.next(50), labelled, nil, map[string]any{"ca.crt": base64Of(string(authority.pem))}))
	}, writers: 1},
}

var labelled = map[string]string{modeLabel: "bundle"}

func filler(size int) map[string]any {
	return map[string]any{"ballast": base64Of(strings.Repeat("x", size))}
}

func fingerprints(size int) string {
	var list strings.Builder
	for n := 0; list.Len() < size-65; n++ {
		fmt.Fprintf(&list, "%x,", sha256.Sum256(fmt.Append(nil, n)))
	}
	return strings.TrimSuffix(list.String(), ",")
}

func attackKeeper(ctx context.Context, options AttackOptions, done func(*Outcome)) error {
	limit, err := memoryLimit(filepath.Join(options.Manifests, "components/keeper/deployment.yaml"))
	if err != nil {
		return err
	}
	var cluster *Cluster
	for number, attack := range keeperAttacks {
		if !options.Full || !options.Only.MatchString(attack.name) {
			continue
		}
		if cluster == nil {
			log, err := os.Create(filepath.Join(options.Dir, "cluster.log"))
			if err != nil {
				return err
			}
			defer log.Close()
			if cluster, err = StartCluster(ctx, options.Cluster, options.Product, log); err != nil {
				return err
			}
			defer cluster.Stop()
		}
		outcome := &Outcome{Name: attack.name, Limit: limit}
		if err := attack.run(ctx, options, cluster, number, outcome); err != nil {
			outcome.problem("%v", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		done(outcome)
	}
	return nil
}

func (k keeperAttack) run(ctx context.Context, options AttackOptions, cluster *Cluster, number int, outcome *Outcome) error {
	dir, err := attackDir(options, k.name)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "keeper.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	tenant, err := newTenant(ctx, cluster, fmt.Sprintf("tenant-%d", number))
	if err != nil {
		return err
	}
	defer cluster.Empty(context.WithoutCancel(ctx), tenant.namespace)
	other, err := newTenant(ctx, cluster, fmt.Sprintf("victim-%d", number))
	if err != nil {
		return err
	}
	defer cluster.Empty(context.WithoutCancel(ctx), other.namespace)
	victim := &victim{tenant: other}
	cgroup, err := NewCgroup("keeper", outcome.Limit)
	if err != nil {
		return err
	}
	defer cgroup.Remove()
	keeper, err := startKeeper(ctx, options, cluster, cgroup, log)
	if err != nil {
		return err
	}
	defer func() { keeper.Kill() }()
	outcome.Ready = keeper.ready
	if k.group {
		for n := range groupSize {
			if err := cluster.Create(ctx, tenant.member(n)); err != nil {
				return err
			}
		}
	}
	calls := &CallLog{}
	writing, stop := context.WithCancel(ctx)
	defer stop()
	if err := victim.write(writing, calls); err != nil {
		return err
	}
	pause(ctx, time.Second)
	begin := time.Now()
	if _, err := victim.repair(nil); err != nil {
		return fmt.Errorf("before the attack: %w", err)
	}
	pause(ctx, time.Until(begin.Add(5*time.Second)))
	attacked := time.Now()
	if k.stopped {
		keeper.Kill()
	}
	if k.prepare != nil {
		if err := k.prepare(tenant); err != nil {
			return fmt.Errorf("to prepare: %w", err)
		}
	}
	if k.stopped {
		again, err := startKeeper(ctx, options, cluster, cgroup, log)
		if err != nil {
			outcome.judge(cgroup)
			return err
		}
		keeper = again
		outcome.Ready = max(outcome.Ready, keeper.ready)
	}
	probes := watchProbes(ctx, keeper.admin)
	settled := time.Now()
	err = k.measure(writing, tenant, victim, outcome)
	pause(ctx, time.Until(settled.Add(10*time.Second)))
	stop()
	outcome.Problems = append(outcome.Problems, probes.stop()...)
	outcome.Calm, outcome.Busy = calls.Between(begin, attacked), calls.Between(settled, time.Now())
	outcome.judge(cgroup)
	return err
}

// measure lets the tenant attack until all repairs of the victim are done.
func (k keeperAttack) measure(ctx context.Context, tenant *tenant, victim *victim, outcome *Outcome) error {
	attacking, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer stop()
	var writes atomic.Int64
	for range k.writers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for pause(attacking, 20*time.Millisecond) {
				if err := k.during(tenant); err == nil {
					writes.Add(1)
				}
			}
		}()
	}
	var distrust func(*Authority) error
	if k.stranger {
		distrust = func(authority *Authority) error {
			fingerprint := fmt.Sprintf("%x", sha256.Sum256(authority.certificate.Raw))
			annotations := map[string]string{distrustAnnotation: fingerprint}
			return tenant.cluster.Create(ctx, tenant.secret(tenant.next(1000), labelled, annotations, nil))
		}
	}
	if k.group {
		if err := tenant.rotate(); err != nil {
			return err
		}
	}
	for range 3 {
		took, err := victim.repair(distrust)
		if err != nil {
			outcome.problem("%v", err)
			continue
		}
		outcome.Repairs = append(outcome.Repairs, took)
	}
	if k.group {
		took, err := tenant.promoted(settle + repairBar)
		if err != nil {
			outcome.problem("%v", err)
		} else {
			outcome.Note = fmt.Sprintf("promoted %s after the repairs", took.Round(time.Millisecond))
		}
	}
	stop()
	wait.Wait()
	events, err := tenant.cluster.Events(ctx, tenant.namespace)
	outcome.Note = strings.TrimPrefix(fmt.Sprintf("%s; the tenant has %d Events, and wrote %d times during the attack",
		outcome.Note, events, writes.Load()), "; ")
	return err
}

// keeperProcess is a running keeper that leads.
type keeperProcess struct {
	admin   string
	ready   time.Duration
	command *exec.Cmd
	ended   chan struct{}
}

func startKeeper(ctx context.Context, options AttackOptions, cluster *Cluster, cgroup *Cgroup, log io.Writer) (*keeperProcess, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	admin := free.Addr().String()
	_ = free.Close()
	argv := cgroup.Wrap([]string{options.Product, "keeper", "--log-format", "json", "--namespace", "ca-overlap",
		"--identity", newUID(), "--lease-duration", "3s", "--settle", settle.String(), "--admin-listen", admin})
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Env = append(os.Environ(), "KUBECONFIG="+cluster.KeeperConfig)
	command.SysProcAttr = ownChild()
	command.Stderr = log
	if err := command.Start(); err != nil {
		return nil, err
	}
	k := &keeperProcess{admin: admin, command: command, ended: make(chan struct{})}
	begin := time.Now()
	go func() { _ = command.Wait(); close(k.ended) }()
	for probe(ctx, admin, "/readyz", readyzTime) != nil {
		select {
		case <-k.ended:
			return nil, fmt.Errorf("the keeper ended before it was ready: %s", command.ProcessState)
		case <-ctx.Done():
			k.Kill()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(begin) > time.Minute {
			k.Kill()
			return nil, errors.New("the keeper is not ready after a minute")
		}
	}
	k.ready = time.Since(begin)
	return k, nil
}

// Kill kills the keeper and waits for its end.
func (k *keeperProcess) Kill() {
	_ = k.command.Process.Kill()
	<-k.ended
}
