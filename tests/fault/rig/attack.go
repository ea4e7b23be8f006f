package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// attackMain attacks the webhook and the keeper in the memory that their manifests give them, with
// a victim beside. See docs/reliability.md.
func attackMain(arguments []string) {
	flags := flag.NewFlagSet("attack", flag.ExitOnError)
	o := AttackOptions{}
	flags.StringVar(&o.Product, "product", "target/debug/ca-overlap", "the `program` to attack")
	flags.StringVar(&o.Cluster, "cluster", "target/debug/examples/attacked-cluster", "the `program` that starts an API server and a webhook; it attacks the keeper")
	flags.StringVar(&o.Dir, "dir", "target/attack", "the directory for certificates and logs; emptied first")
	flags.StringVar(&o.Review, "review", "tests/data/reviews/put.json", "a recorded review, whose certificates are replaced")
	flags.StringVar(&o.Manifests, "manifests", "manifests", "the `directory` with the limits and probes")
	flags.BoolVar(&o.Full, "full", false, "hold each attack for longer than all timers, and attack the keeper too")
	only := flags.String("only", "", "run only attacks whose name matches this `regexp`")
	_ = flags.Parse(arguments)
	pattern, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack rig: -only:", err)
		os.Exit(64)
	}
	o.Only = pattern
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	good, err := runAttacks(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack rig:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

// AttackOptions are the flags of attackMain.
type AttackOptions struct {
	Product, Cluster, Dir, Review, Manifests string

	Full bool
	Only *regexp.Regexp
}

// Outcome is what an attack did. Durations of the victim are of its calls, or of its writes.
type Outcome struct {
	Name        string
	Limit, Peak int64 // memory in bytes
	Calm, Busy  []Entry
	Ready       time.Duration   // of the keeper
	Repairs     []time.Duration // by the keeper
	Problems    []string
	Note        string
	Control     string // the problem that a negative control must show; else empty
}

func (o *Outcome) problem(format string, arguments ...any) {
	o.Problems = append(o.Problems, fmt.Sprintf(format, arguments...))
}

// Bars. The noise is that of a machine which also runs the attackers; the fault rig allows the same.
const (
	noise      = 20 * time.Millisecond
	longest    = 100 * time.Millisecond
	repairBar  = 10 * time.Second
	readyBar   = 10 * time.Second
	livezTime  = 3 * time.Second // the timeouts of the manifests' probes
	readyzTime = time.Second
)

// judge compares the outcome with the bars that all attacks have.
func (o *Outcome) judge(cgroup *Cgroup) {
	kills, err := cgroup.Kills()
	switch {
	case err != nil:
		o.problem("%v", err)
	case kills > 0:
		o.problem("killed for want of memory, %d times", kills)
	}
	if o.Peak, err = cgroup.Peak(); err != nil {
		o.problem("%v", err)
	}
	if kills == 0 && o.Peak >= o.Limit {
		o.problem("memory reached its limit")
	}
	if failed := punish(o.Calm) + punish(o.Busy); failed > 0 {
		o.problem("%d of %d calls of the victim failed", failed, len(o.Calm)+len(o.Busy))
	}
	calm, busy := quantile(o.Calm, 0.99), quantile(o.Busy, 0.99)
	switch {
	case len(o.Calm) == 0 || len(o.Busy) == 0:
		if len(o.Problems) == 0 {
			o.problem("the victim made no call")
		}
	case busy > longest:
		o.problem("p99 %s, more than %s", ms(busy), ms(longest))
	case busy > 2*calm+noise:
		o.problem("p99 rises from %s to %s", ms(calm), ms(busy))
	}
	for _, took := range o.Repairs {
		if took > repairBar {
			o.problem("a repair took %s", took.Round(time.Second/10))
		}
	}
	if o.Ready > readyBar {
		o.problem("ready after %s", o.Ready.Round(time.Second/10))
	}
}

// punish counts the calls that failed, and makes each as long as a writer waits at most: a dead
// server refuses calls fast.
func punish(calls []Entry) int {
	failed := 0
	for i := range calls {
		if calls[i].Kind != "" {
			calls[i].Took = callTimeout
			failed++
		}
	}
	return failed
}

func runAttacks(ctx context.Context, options AttackOptions) (bool, error) {
	if err := os.RemoveAll(options.Dir); err != nil {
		return false, err
	}
	if err := os.MkdirAll(options.Dir, 0o700); err != nil {
		return false, err
	}
	RemoveLeftCgroups()
	if try, err := NewCgroup("try", 1<<30); err != nil {
		fmt.Printf("NOT RUN: no attack was run, because there is no cgroup with a memory limit: %v\n", err)
		return false, nil
	} else {
		try.Remove()
	}
	lateness, begin := &Lateness{}, time.Now()
	go lateness.Watch(ctx)
	fmt.Printf("%s; logs are in %s\n", options.Product, options.Dir)
	var outcomes []*Outcome
	for _, part := range []func(context.Context, AttackOptions, func(*Outcome)) error{attackWebhook, attackKeeper} {
		err := part(ctx, options, func(outcome *Outcome) {
			fmt.Printf("%6.1f s  %s: %s\n", time.Since(begin).Seconds(), outcome.Name, outcome.verdict())
			outcomes = append(outcomes, outcome)
		})
		if err != nil {
			return false, err
		}
	}
	if len(outcomes) == 0 {
		return false, errors.New("-only: no attack matches")
	}
	good := attackReport(os.Stdout, outcomes)
	if text := lateness.Between(begin, time.Now()); text != "" {
		fmt.Println(text)
	}
	fmt.Printf("%d attacks in %s\n", len(outcomes), time.Since(begin).Round(time.Second))
	return good, ctx.Err()
}

func (o *Outcome) verdict() string {
	problems := strings.Join(o.Problems, "; ")
	switch {
	case o.Control != "" && strings.Contains(problems, o.Control):
		return "fails as it must: " + problems
	case o.Control != "":
		return fmt.Sprintf("VOID: must fail (%s), but: %s", o.Control, problems)
	case len(o.Problems) > 0:
		return "FAILED: " + problems
	}
	return "holds"
}

// good returns whether the attack did what it must.
func (o *Outcome) good() bool {
	return o.verdict() == "holds" || strings.HasPrefix(o.verdict(), "fails as it must")
}

// attackReport prints the table, at most 100 columns wide, and what else was seen. It returns
// whether all attacks ended as they must.
func attackReport(out io.Writer, outcomes []*Outcome) bool {
	good := true
	fmt.Fprintf(out, "\n%-46s %11s  %17s %6s  %s\n", "attack", "memory MiB", "victim p99, ms", "repair", "")
	fmt.Fprintf(out, "%-46s %11s  %8s %8s %6s\n", "", "peak/limit", "quiet", "attack", "s")
	for _, o := range outcomes {
		verdict, _, _ := strings.Cut(o.verdict(), ":")
		good = good && o.good()
		repair := "-"
		if len(o.Repairs) > 0 {
			longest := time.Duration(0)
			for _, took := range o.Repairs {
				longest = max(longest, took)
			}
			repair = fmt.Sprintf("%.1f", longest.Seconds())
		}
		fmt.Fprintf(out, "%-46s %5d/%5d  %8s %8s %6s  %s\n", o.Name, o.Peak>>20, o.Limit>>20,
			figure(quantile(o.Calm, 0.99)), figure(quantile(o.Busy, 0.99)), repair, verdict)
	}
	fmt.Fprintln(out)
	for _, o := range outcomes {
		fmt.Fprintf(out, "%s: p50 %s → %s ms", o.Name, figure(quantile(o.Calm, 0.5)), figure(quantile(o.Busy, 0.5)))
		for _, text := range []string{o.Note, o.verdict()} {
			if text != "" {
				fmt.Fprintf(out, "; %s", text)
			}
		}
		fmt.Fprintln(out)
	}
	return good
}

func figure(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/1e6) }

// memoryLimit reads the memory limit in the manifest of a Deployment.
func memoryLimit(manifest string) (int64, error) {
	text, err := os.ReadFile(manifest)
	if err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`(?s)limits:\s+memory: (\d+)Mi`).FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("%s has no memory limit in Mi", manifest)
	}
	mebi, err := strconv.ParseInt(string(found[1]), 10, 64)
	return mebi << 20, err
}

// attackerProcess is a running attack.
type attackerProcess struct {
	command *exec.Cmd
	stdin   io.Closer
	out     *bufio.Reader
}

// startAttacker starts an attack and waits until it is fully on.
func startAttacker(ctx context.Context, arguments ...string) (*attackerProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, "nice", append([]string{"-n", "19", self, "attacker"}, arguments...)...)
	command.SysProcAttr = ownChild()
	command.Stderr = os.Stderr
	stdin, stdout, err := startPiped(command)
	if err != nil {
		return nil, err
	}
	process := &attackerProcess{command, stdin, stdout}
	if line, err := process.out.ReadString('\n'); line != "on\n" {
		process.Stop()
		return nil, fmt.Errorf("the attacker did not begin: %q, %v", line, err)
	}
	return process, nil
}

// startPiped starts a command that ends with its standard input, and returns that and its output.
func startPiped(command *exec.Cmd) (io.Closer, *bufio.Reader, error) {
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	return stdin, bufio.NewReader(stdout), command.Start()
}

// Stop ends the attack and returns what it counted.
func (p *attackerProcess) Stop() string {
	_ = p.stdin.Close()
	text, _ := io.ReadAll(p.out)
	_ = p.command.Wait()
	return strings.TrimSpace(string(text))
}

// attackDir makes the directory of an attack.
func attackDir(options AttackOptions, name string) (string, error) {
	dir := filepath.Join(options.Dir, regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"))
	return dir, os.MkdirAll(dir, 0o700)
}
