package main

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// Entry is the record of one call.
type Entry struct {
	Start  time.Time
	Took   time.Duration
	Kind   string // of the failure; empty if the call succeeded
	Err    string
	Client string // address of the failed call's connection, if there was one
}

// CallLog records every call of a scenario.
type CallLog struct {
	mu      sync.Mutex
	entries []Entry
}

// Add records a call.
func (b *CallLog) Add(entry Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = append(b.entries, entry)
}

// Calls is the number of calls.
func (b *CallLog) Calls() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.entries)
}

// Failures are the calls that failed.
func (b *CallLog) Failures() []Entry {
	return b.where(func(entry Entry) bool { return entry.Kind != "" })
}

// Between are the calls that began between two times.
func (b *CallLog) Between(from, to time.Time) []Entry {
	return b.where(func(e Entry) bool { return !e.Start.Before(from) && e.Start.Before(to) })
}

func (b *CallLog) where(wanted func(Entry) bool) []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []Entry
	for _, entry := range b.entries {
		if wanted(entry) {
			found = append(found, entry)
		}
	}
	return found
}

// kinds formats how often each kind of failure occurred, such as "closed 3, timeout 1".
func kinds(failures []Entry) string {
	count := map[string]int{}
	for _, failure := range failures {
		count[failure.Kind]++
	}
	var parts []string
	for kind, n := range count {
		parts = append(parts, fmt.Sprintf("%s %d", kind, n))
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}

// quantile of the durations of calls: 0.5, 0.99, or 1 for the longest.
func quantile(entries []Entry, q float64) time.Duration {
	if len(entries) == 0 {
		return 0
	}
	took := make([]time.Duration, len(entries))
	for i, entry := range entries {
		took[i] = entry.Took
	}
	slices.Sort(took)
	return took[int(q*float64(len(took)-1))]
}

// ms formats a duration in milliseconds.
func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
