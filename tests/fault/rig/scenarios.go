package main

import (
	"fmt"
	"slices"
	"time"
)

// plan returns the tracks of a run, which run in parallel.
//
// Scenarios that test the product's own time limits mostly wait, so they run in parallel with those
// that need the processor.
func plan(full bool) [][]Scenario {
	controls := []Scenario{
		{"(a) graceful_shutdown on SIGTERM", kindClosed, rollouts(fault("graceful-shutdown"), quickRollouts(4))},
		{"(c) leaf swapped before the caBundle", kindTrust, leafFirst},
		{"(d) ALPN h2 alone", kindALPN, h2Only},
		{"(e) bodies above 2 MB refused", "status 413", large(fault("body2mb"))},
	}
	// These measure times, so no scenario that needs the processor runs in parallel.
	hostile := []Scenario{
		{"large reviews, 2.7 MB", "", large(product)},
		{"slowloris, 200 connections", "", slowloris},
		{"flood of 2,000 connections", "", flood},
		{"stall of a second", "", stall(pick(full, 1000, 500))},
		{"SIGKILL", "", sigkill},
		{"clock jumps", "", clockJumps},
	}
	tracks := [][]Scenario{
		{{"sparse calls, every 31, 45, 89, 91 s", "", sparse(pick(full, 13, 2))}},
		{{"calls at 30, 90 and 120 s ± 2 ms", "", aimedAtLimits}},
		{{"late dials, used 95 s after SIGTERM", "", lateDials}},
		{
			{"no fault: 30 s ± 2 ms", "", aimedAt30(none)},
			{"no fault: rolling restarts", "", rollouts(none, quickRollouts(2))},
			{"no fault: large reviews", "", large(none)},
		},
		{{"(b) idle connections closed after 30 s", kindClosed, aimedAt30(fault("idle30s"))}},
		{{"(b) client keeps connections beyond 120 s", kindClosed, aimedByLongIdleClients}},
	}
	if full {
		rollouts := Scenario{"rolling restarts", "", rollouts(product, fullRollouts)}
		return append(tracks, controls, append([]Scenario{rollouts}, hostile...),
			[]Scenario{{"leaf rotations", "", leafRotations(1000)}},
			[]Scenario{{"CA rotations", "", caRotations(50)}})
	}
	return append(tracks, slices.Concat([]Scenario{
		{"rolling restarts", "", rollouts(product, quickRollouts(8))},
		{"leaf rotations", "", leafRotations(50)},
		{"CA rotations", "", caRotations(5)},
	}, controls, hostile))
}

// program returns the command to start.
type program func(*Env) []string

func product(e *Env) []string { return webhook(e.Product) }

func webhook(program string) []string {
	return []string{program, "webhook", "--log-format", "json", "--namespace", "ca-overlap"}
}

func fault(name string) program {
	return func(e *Env) []string { return []string{e.Faulty, "--fault", name} }
}

func none(e *Env) []string { return fault("none")(e) }

// drain returns the flags of the drain.
func drain(delay, timeout time.Duration) []string {
	return []string{"--drain-delay", delay.String(), "--drain-timeout", timeout.String()}
}

var defaultDrain = drain(15*time.Second, 95*time.Second)

// h2Only calls a server that offers only h2 in ALPN. It does not wait for readiness, because the
// program's own check finds the fault too.
func h2Only(env *Env) (*Result, error) {
	service, review, err := setUp(env, Settings{
		Program: fault("h2-only")(env), Arguments: defaultDrain, Unready: true,
	}, 0)
	if err != nil {
		return nil, err
	}
	defer service.Stop()
	load := NewLoad(env.ctx, review)
	load.Steady(service.Client(), 20)
	pause(env.ctx, 2*time.Second)
	load.Stop()
	return &Result{CallLog: service.CallLog}, nil
}

// large sends reviews of two Secrets near the limit of 1 MiB.
func large(program program) func(*Env) (*Result, error) {
	return func(env *Env) (*Result, error) {
		settings := Settings{Program: program(env), Arguments: defaultDrain}
		service, review, err := setUp(env, settings, 1_000_000)
		if err != nil {
			return nil, err
		}
		defer service.Stop()
		load := NewLoad(env.ctx, review)
		load.Steady(service.Client(), 5)
		pause(env.ctx, 5*time.Second)
		load.Stop()
		size := float64(len(review.Body(""))) / 1e6
		return &Result{CallLog: service.CallLog, Note: fmt.Sprintf("%.2f MB each, p50 %s", size,
			ms(quantile(service.CallLog.Between(time.Time{}, time.Now()), 0.5)))}, nil
	}
}

func setUp(env *Env, settings Settings, ballast int) (*Service, *Review, error) {
	review, err := NewReview(env.Review, ballast)
	if err != nil {
		return nil, nil, err
	}
	service, err := StartService(env, settings)
	return service, review, err
}

func pick[T any](condition bool, yes, no T) T {
	if condition {
		return yes
	}
	return no
}
