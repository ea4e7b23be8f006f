package main

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// ServiceProxy stands for kube-proxy: it distributes new connections over its endpoints, learns
// late that one is terminating, and leaves existing connections alone. It never removes the last
// endpoint, because kube-proxy falls back to terminating endpoints.
type ServiceProxy struct {
	listener net.Listener
	latency  time.Duration // one way, for data and for the close of a connection

	mu        sync.Mutex
	closed    bool
	endpoints []endpoint
	serving   map[string]string // the endpoint of each client address
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

// Address stands for the ClusterIP and port of the Service.
func (s *ServiceProxy) Address() string { return s.listener.Addr().String() }

// Add adds an endpoint for new connections.
func (s *ServiceProxy) Add(name, address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = append(s.endpoints, endpoint{name, address})
}

// Remove removes an endpoint for new connections after a delay.
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

// Serving returns the endpoint of the client with this address.
func (s *ServiceProxy) Serving(client string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving[client]
}

// Close closes the listener and all connections.
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
			time.Sleep(10 * time.Millisecond) // for example, no file descriptor is free
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

// pump copies one direction. It passes on a close as a close and a reset as a reset.
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

// delayed copies with a latency, which also delays the end of the stream.
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
				reset(from) // also ends the reader
			}
		}
		if chunk.err != nil && chunk.err != io.EOF {
			failed = chunk.err
		}
	}
	return failed
}

// reset closes a connection with a TCP reset.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}
