package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Lateness records how late this process's own timers were. On a busy machine calls are slow for
// reasons other than the webhook.
type Lateness struct {
	mu   sync.Mutex
	late []wake
}

type wake struct {
	due time.Time
	by  time.Duration
}

// noticeable is more than timers are late on an idle machine.
const noticeable = 50 * time.Millisecond

// Watch wakes up often until ctx ends.
func (l *Lateness) Watch(ctx context.Context) {
	const step = 10 * time.Millisecond
	for {
		due := time.Now().Add(step)
		if !pause(ctx, step) {
			return
		}
		if by := time.Since(due); by > noticeable {
			l.mu.Lock()
			l.late = append(l.late, wake{due, by})
			l.mu.Unlock()
		}
	}
}

// Between describes the lateness between two times. It is empty if there was none.
func (l *Lateness) Between(from, to time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	count, worst := 0, wake{}
	for _, wake := range l.late {
		if wake.due.Before(from) || wake.due.After(to) {
			continue
		}
		count++
		if wake.by > worst.by {
			worst = wake
		}
	}
	if count == 0 {
		return ""
	}
	return fmt.Sprintf("the machine was busy: the rig's own timers were late %d times by more than %s, the most by %s at %s",
		count, noticeable, worst.by.Round(time.Millisecond), worst.due.Format("15:04:05"))
}
