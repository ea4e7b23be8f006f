package main

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// ServiceProxy stands for kube-proxy: it spreads new connections over its endpoints, learns late that
// one is leaving, and leaves existing connections alone. Where the last endpoint leaves it stays in
// use, as kube-proxy falls back to terminating endpoints.
type ServiceProxy struct {
	listener net.Listener
	latency  time.Duration // one way, for data and for the end of a connection

	mu        sync.Mutex
	closed    bool
	endpoints []endpoint
	serving   map[string]string // a client's address → the endpoint that it was given
	open      map[net.Conn]struct{}
}

type endpoint struct{ name, address string }

// NewServiceProxy listens on a free port of the loopback interface.
func NewServiceProxy(latency time.Duration) (*ServiceProxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &ServiceProxy{
		listener: listener,
		latency:  latency,
		serving:  map[string]string{},
		open:     map[net.Conn]struct{}{},
	}
	go s.accept()
	return s, nil
}

// Address is the Service's ClusterIP and port, so to speak.
func (s *ServiceProxy) Address() string { return s.listener.Addr().String() }

// Add makes an endpoint available to new connections.
func (s *ServiceProxy) Add(name, address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = append(s.endpoints, endpoint{name, address})
}

// Remove takes an endpoint away from new connections after the delay.
func (s *ServiceProxy) Remove(name string, after time.Duration) {
	time.AfterFunc(after, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, endpoint := range s.endpoints {
			if endpoint.name == name && len(s.endpoints) > 1 {
				s.endpoints = append(s.endpoints[:i:i], s.endpoints[i+1:]...)
				return
			}
		}
	})
}

// Serving names the endpoint that the client with this address was given.
func (s *ServiceProxy) Serving(client string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving[client]
}

// Close ends everything.
func (s *ServiceProxy) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	_ = s.listener.Close()
	for conn := range s.open {
		_ = conn.Close()
	}
}

func (s *ServiceProxy) accept() {
	for {
		client, err := s.listener.Accept()
		if err != nil {
			if s.isClosed() {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors, say
			continue
		}
		go s.connect(client.(*net.TCPConn))
	}
}

func (s *ServiceProxy) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *ServiceProxy) connect(client *net.TCPConn) {
	s.mu.Lock()
	if s.closed || len(s.endpoints) == 0 {
		s.mu.Unlock()
		reset(client)
		return
	}
	chosen := s.endpoints[rand.IntN(len(s.endpoints))]
	s.serving[client.RemoteAddr().String()] = chosen.name
	s.open[client] = struct{}{}
	s.mu.Unlock()
	defer s.forget(client)

	conn, err := net.DialTimeout("tcp", chosen.address, 10*time.Second)
	if err != nil {
		reset(client)
		return
	}
	server := conn.(*net.TCPConn)
	var both sync.WaitGroup
	both.Add(2)
	go func() { defer both.Done(); s.pump(server, client) }()
	go func() { defer both.Done(); s.pump(client, server) }()
	both.Wait()
	_ = server.Close()
	_ = client.Close()
}

func (s *ServiceProxy) forget(client net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, client)
}

// pump copies one direction. An end is passed on as an end, a reset as a reset.
func (s *ServiceProxy) pump(to, from *net.TCPConn) {
	var err error
	if s.latency == 0 {
		_, err = io.Copy(to, from)
	} else {
		err = delayed(to, from, s.latency)
	}
	if err != nil {
		reset(to)
		reset(from)
		return
	}
	_ = to.CloseWrite()
}

// delayed copies with a latency; the end of the stream is as late as its data.
func delayed(to, from *net.TCPConn, latency time.Duration) error {
	type chunk struct {
		data []byte
		err  error
		due  time.Time
	}
	chunks := make(chan chunk, 256)
	go func() {
		defer close(chunks)
		for {
			buffer := make([]byte, 32<<10)
			n, err := from.Read(buffer)
			chunks <- chunk{buffer[:n], err, time.Now().Add(latency)}
			if err != nil {
				return
			}
		}
	}()
	var failed error
	for chunk := range chunks {
		time.Sleep(time.Until(chunk.due))
		if failed == nil && len(chunk.data) > 0 {
			if _, failed = to.Write(chunk.data); failed != nil {
				reset(from) // ends the reader, too
			}
		}
		if chunk.err != nil && chunk.err != io.EOF {
			failed = chunk.err
		}
	}
	return failed
}

// reset ends a connection in both directions at once.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}
