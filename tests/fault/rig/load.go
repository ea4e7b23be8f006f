package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Load makes calls in the background.
type Load struct {
	ctx    context.Context
	review *Review
	stop   chan struct{}
	wait   sync.WaitGroup
}

// NewLoad makes a load with this review. It starts no calls yet.
func NewLoad(ctx context.Context, review *Review) *Load {
	return &Load{ctx: ctx, review: review, stop: make(chan struct{})}
}

// Steady makes rate calls per second and does not wait for earlier answers, like the API server,
// which serves many writers at once.
func (l *Load) Steady(client *APIServer, rate int) {
	l.wait.Add(1)
	go func() {
		defer l.wait.Done()
		start := time.Now()
		for i := 0; l.until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))); i++ {
			l.wait.Add(1)
			go func() {
				defer l.wait.Done()
				client.Call(l.ctx, l.review)
			}()
		}
	}()
}

// Solo makes one call at a time with pauses, and begins after a part of a pause. A client that only
// this load uses has one connection.
func (l *Load) Solo(client *APIServer, pause time.Duration) {
	l.wait.Add(1)
	go func() {
		defer l.wait.Done()
		next := time.Now().Add(rand.N(pause))
		for l.until(next) {
			client.Call(l.ctx, l.review)
			next = time.Now().Add(pause)
		}
	}()
}

// Stop ends the load and waits for outstanding answers.
func (l *Load) Stop() {
	close(l.stop)
	l.wait.Wait()
}

func (l *Load) until(moment time.Time) bool {
	select {
	case <-l.stop:
		return false
	case <-l.ctx.Done():
		return false
	default:
	}
	timer := time.NewTimer(time.Until(moment))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.stop:
		return false
	case <-l.ctx.Done():
		return false
	}
}

// aimed lets each client make a call after its connection has been idle for a time that is spread
// evenly over ±2 ms around idle. The calls before it are spread over about a second: while the
// machine is busy with handshakes, client and server would disagree on when the connection became
// idle.
func aimed(ctx context.Context, clients []*APIServer, review *Review, idle time.Duration) {
	var wait sync.WaitGroup
	for i, client := range clients {
		offset := time.Duration(i)*4*time.Millisecond/time.Duration(len(clients)) - 2*time.Millisecond
		stagger := time.Duration(i*7%len(clients)) * 10 * time.Millisecond
		wait.Add(1)
		go func() {
			defer wait.Done()
			client.Call(ctx, review) // dials
			if !pause(ctx, time.Second+stagger) {
				return
			}
			client.Call(ctx, review)
			if pause(ctx, idle+offset) {
				client.Call(ctx, review)
			}
		}()
	}
	wait.Wait()
}

// pause waits, and returns false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
