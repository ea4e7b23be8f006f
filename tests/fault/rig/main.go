// The fault rig: shows that the webhook loses no call under faults that made other webhooks lose
// calls. With the argument attack it attacks webhook and keeper. See docs/reliability.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "attack":
			attackMain(os.Args[2:])
			return
		case "attacker":
			attackerMain(os.Args[2:])
			return
		}
	}
	options := Options{}
	flag.StringVar(&options.Product, "product", "target/debug/ca-overlap", "the `program` to test")
	flag.StringVar(&options.ClockProduct, "clock-product", "", "the `program` for clock jumps, linked dynamically for libfaketime; default: the product")
	flag.StringVar(&options.Faulty, "faulty", "target/debug/examples/faulty-webhook", "the `program` with faults")
	flag.StringVar(&options.Dir, "dir", "target/fault", "the directory for certificates and logs; emptied first")
	flag.StringVar(&options.FakeTime, "faketime", fakeTime(), "libfaketime, a shared `object`; without it, clock jumps are not run")
	flag.StringVar(&options.Review, "review", "tests/data/reviews/put.json", "a recorded review, whose certificates are replaced")
	flag.BoolVar(&options.Full, "full", false, "run the full totals (20 minutes)")
	flag.Uint64Var(&options.Seed, "seed", uint64(time.Now().UnixNano()), "the seed of random delays")
	only := flag.String("only", "", "run only scenarios whose name matches this `regexp`")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fault rig: -only:", err)
		os.Exit(64)
	}
	options.Only = pattern
	if options.ClockProduct == "" {
		options.ClockProduct = options.Product
	}

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	good, err := run(ctx, options)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fault rig:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

// Options are the flags.
type Options struct {
	Product, ClockProduct, Faulty, Dir, FakeTime, Review string

	Full bool
	Seed uint64
	Only *regexp.Regexp
}

// Scenario is one kind of fault or load.
type Scenario struct {
	Name string
	// Control is the kind of failure that a negative control must show. It is empty if no call may
	// fail.
	Control string
	Run     func(*Env) (*Result, error)
}

// Env is the environment of a scenario.
type Env struct {
	Options
	ctx    context.Context
	Log    io.Writer
	Random *rand.Rand

	dir      string
	services int
}

// Dir returns a new directory for a Service.
func (e *Env) Dir() string {
	e.services++
	return filepath.Join(e.dir, fmt.Sprintf("service-%d", e.services))
}

// Result is the result of a scenario.
type Result struct {
	CallLog  *CallLog
	Excused  int      // failed calls that the scenario cannot avoid; each is checked
	Problems []string // problems other than failed calls
	Note     string   // the measurements
	NotRun   string   // why the scenario was not run
	Took     time.Duration
}

// Problem records a problem.
func (r *Result) Problem(format string, arguments ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, arguments...))
}

func run(ctx context.Context, options Options) (bool, error) {
	for _, program := range []string{options.Product, options.ClockProduct, options.Faulty} {
		if _, err := os.Stat(program); err != nil {
			return false, fmt.Errorf("%s is missing: run make fault-test, which builds it", program)
		}
	}
	limit := 10 * time.Minute
	if options.Full {
		limit = 45 * time.Minute
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("the run takes too long"))
	defer cancel()
	if err := os.RemoveAll(options.Dir); err != nil {
		return false, err
	}
	lateness := &Lateness{}
	go lateness.Watch(ctx)
	tracks, begin := selected(options), time.Now()
	if len(tracks) == 0 {
		return false, errors.New("-only: no scenario matches")
	}
	fmt.Printf("seed %d; logs are in %s\n", options.Seed, options.Dir)
	lines := make([][]line, len(tracks))
	var wait sync.WaitGroup
	for i, track := range tracks {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for _, scenario := range track {
				lines[i] = append(lines[i], play(ctx, options, scenario, begin))
			}
		}()
	}
	wait.Wait()
	good := report(os.Stdout, lines, time.Since(begin))
	if text := lateness.Between(begin, time.Now()); text != "" {
		fmt.Println(text)
	}
	return good, context.Cause(ctx)
}

// selected returns the tracks with the scenarios to run. Tracks run in parallel, the scenarios of
// one track one after the other.
func selected(options Options) [][]Scenario {
	var tracks [][]Scenario
	for _, track := range plan(options.Full) {
		var chosen []Scenario
		for _, scenario := range track {
			if options.Only.MatchString(scenario.Name) {
				chosen = append(chosen, scenario)
			}
		}
		if len(chosen) > 0 {
			tracks = append(tracks, chosen)
		}
	}
	return tracks
}

func play(ctx context.Context, options Options, scenario Scenario, begin time.Time) line {
	progress := func(text string) {
		fmt.Printf("%6.1f s  %-44s %s\n", time.Since(begin).Seconds(), scenario.Name, text)
	}
	if err := ctx.Err(); err != nil {
		return line{scenario: scenario, err: context.Cause(ctx)}
	}
	progress("begins")
	start := time.Now()
	result, err := perform(ctx, options, scenario)
	if result != nil {
		result.Took = time.Since(start)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	line := line{scenario, result, err}
	progress(line.verdict())
	return line
}

func perform(ctx context.Context, options Options, scenario Scenario) (*Result, error) {
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-", r) {
			return r
		}
		return '-'
	}, strings.ToLower(scenario.Name))
	dir := filepath.Join(options.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "replicas.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	seed := rand.NewPCG(options.Seed, uint64(len(name)))
	return scenario.Run(&Env{
		Options: options, ctx: ctx, Log: &syncWriter{to: log}, Random: rand.New(seed), dir: dir,
	})
}

// syncWriter lets several replicas write whole lines to one log.
type syncWriter struct {
	mu sync.Mutex
	to io.Writer
}

func (w *syncWriter) Write(text []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(text)
}
