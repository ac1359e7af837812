package faulttest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// mode is what a proxy does to the bytes that pass.
type mode int

const (
	pass mode = iota
	hang      // nothing passes; connections stay, and new ones are made: packets get lost
	cut       // connections are closed, new ones too
	mute      // requests pass, answers are swallowed
	slow      // each piece of an answer comes late
)

// proxy passes TCP connections on to one address, and does to them what networks do.
type proxy struct {
	addr string // where it listens

	mu      sync.Mutex
	target  string
	mode    mode
	late    time.Duration
	markers bool          // requests to write the markers of transactions wait
	changed chan struct{} // closed when mode or markers change
	conns   map[net.Conn]bool

	marked  atomic.Int64 // requests for markers that were held back
	commits atomic.Int64 // answers to COMMIT that are to be lost
	lost    atomic.Int64 // and that were
	undone  atomic.Int64 // COMMITs that are to be lost themselves, so that nothing is committed
}

func newProxy(t testing.TB) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), changed: make(chan struct{}), conns: map[net.Conn]bool{}}
	go p.accept(l)
	t.Cleanup(func() { l.Close(); p.set(cut, 0) })
	return p
}

func (p *proxy) forwardTo(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// set changes what happens to the bytes. What was cut or muted is closed: its streams have holes.
func (p *proxy) set(m mode, late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m == cut || p.mode == mute && m != mute {
		for c := range p.conns {
			reset(c)
		}
		clear(p.conns)
	}
	p.mode, p.late = m, late
	p.change()
}

// holdBack has requests for markers wait, or lets them go.
func (p *proxy) holdBack(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.markers = on
	p.change()
}

func (p *proxy) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *proxy) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			go p.serve(c)
		}
	}
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.hold(client) {
		reset(client)
		return
	}
	defer p.release(client)
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		reset(client)
		return
	}
	defer server.Close()
	if !p.hold(server) {
		reset(client)
		return
	}
	defer p.release(server)
	var loses atomic.Bool // the next answer on this connection
	go func() {
		defer server.Close()
		p.requests(server, client, &loses)
	}()
	p.answers(client, server, &loses)
}

// reset closes a connection as the kernel does where nobody listens any more: an orderly end would say that a server
// had looked at the connection and did not like it.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0) //nolint:errcheck // then it ends in order
	}
	c.Close()
}

func (p *proxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == cut {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) release(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// bytesMax is how much is read at once.
const bytesMax = 64 << 10

// commitMessage is how pgx ends a transaction: a simple query.
var commitMessage = []byte("Q\x00\x00\x00\x0bcommit\x00")

func (p *proxy) requests(to, from net.Conn, loses *atomic.Bool) {
	buf := make([]byte, bytesMax)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.await()
			p.holdMarkers(buf[:n])
			if p.undone.Load() > 0 && bytes.Contains(buf[:n], commitMessage) && p.undone.Add(-1) >= 0 {
				reset(from)
				return // and both ends are closed
			}
			if p.commits.Load() > 0 && bytes.Contains(buf[:n], commitMessage) && p.commits.Add(-1) >= 0 {
				loses.Store(true)
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) answers(to, from net.Conn, loses *atomic.Bool) {
	buf := make([]byte, bytesMax)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			m, late := p.await()
			if loses.Load() {
				p.lost.Add(1)
				return // and both ends are closed
			}
			if m == slow {
				<-time.After(late)
			}
			if m != mute {
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			}
		}
		if err != nil {
			return
		}
	}
}

// writeTxnMarkers is the key of the request by which a coordinator has markers written.
const writeTxnMarkers = 27

// holdMarkers waits where the bytes are such a request and those are held back. Coordinators have connections of their
// own for them, and wait for each answer, so that a piece begins with a request.
func (p *proxy) holdMarkers(piece []byte) {
	const header = 6 // size and key
	if len(piece) < header || binary.BigEndian.Uint16(piece[4:]) != writeTxnMarkers {
		return
	}
	for first := true; ; first = false {
		p.mu.Lock()
		held, changed := p.markers, p.changed
		p.mu.Unlock()
		if !held {
			return
		}
		if first {
			p.marked.Add(1)
		}
		<-changed
	}
}

// await returns when bytes may pass.
func (p *proxy) await() (mode, time.Duration) {
	for {
		p.mu.Lock()
		m, late, changed := p.mode, p.late, p.changed
		p.mu.Unlock()
		if m != hang {
			return m, late
		}
		<-changed
	}
}
