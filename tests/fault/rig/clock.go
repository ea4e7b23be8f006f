package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// clockJumps sets the replicas' wall clock, but not their timers, under load.
func clockJumps(env *Env) (*Result, error) {
	if _, err := os.Stat(env.FakeTime); err != nil {
		return &Result{NotRun: "libfaketime is not installed (Debian: libfaketime)"}, nil
	}
	clock := filepath.Join(env.dir, "clock")
	set := func(offset time.Duration) error {
		// The rename is atomic: the replicas read the file each time they read the clock.
		text := fmt.Sprintf("%+d\n", int64(offset/time.Second))
		if err := os.WriteFile(clock+".new", []byte(text), 0o600); err != nil {
			return err
		}
		return os.Rename(clock+".new", clock)
	}
	if err := set(0); err != nil {
		return nil, err
	}
	absolute, err := filepath.Abs(clock)
	if err != nil {
		return nil, err
	}
	service, review, err := setUp(env, Settings{
		Program: webhook(env.ClockProduct), Arguments: defaultDrain,
		Environment: []string{
			"LD_PRELOAD=" + env.FakeTime, "FAKETIME_TIMESTAMP_FILE=" + absolute,
			"FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1",
		},
	}, 0)
	if err != nil {
		return nil, err
	}
	defer service.Stop()
	load := NewLoad(env.ctx, review)
	load.Steady(service.Client(), 200)
	result := &Result{CallLog: service.CallLog}
	jumps := []time.Duration{time.Hour, -time.Hour, 30 * day, -30 * day, 365 * day, 0}
	for _, offset := range jumps {
		if err := set(offset); err != nil {
			return nil, err
		}
		pause(env.ctx, time.Second)
		if offset != 365*day {
			if err := service.Renew(service.authority, 0); err != nil {
				result.Problem("at %+d h the new leaf is not served: %v", int(offset.Hours()), err)
			}
		}
		// Far past the expiry of the certificate readiness must fail; this proves that the clock
		// moved.
		wanted := pick(offset == 365*day, http.StatusServiceUnavailable, http.StatusOK)
		for _, replica := range service.Replicas() {
			if status, err := replica.probe(env.ctx); status != wanted {
				result.Problem("%s at %+d h: /readyz returns %d, not %d (%v)", replica.Name, int(offset.Hours()), status, wanted, err)
			}
		}
	}
	load.Stop()
	result.Note = fmt.Sprintf("%d jumps between -30 and +365 days, with a new leaf after each except the longest", len(jumps))
	return result, nil
}

// fakeTime finds libfaketime where distributions install it.
func fakeTime() string {
	for _, pattern := range []string{"/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}
