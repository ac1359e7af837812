package faulttest

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// line is a process's way to Kafka. Cut, it carries nothing any more, in either direction, and is never mended: what
// its process still believes to do has no effect. That is what kill -9 is to everybody else.
type line struct {
	network *kfake.VirtualNetwork

	mu      sync.Mutex
	rnd     *rand.Rand
	delay   time.Duration // most that a request waits on its way
	cut     bool
	conns   map[*pipe]bool
	strikes []*strike
}

// strike waits for a request of one kind and then does something to the process or to the connection.
type strike struct {
	key  int16  // of Kafka's protocol
	skip int    // so many of them pass before
	late bool   // the request arrives, its answer does not
	do   func() // nil: the connection breaks, and nothing else
}

// The requests that a process dies at.
const (
	keyProduce        = 0
	keyFetch          = 1
	keyListOffsets    = 2
	keyInitProducerID = 22
	keyEndTxn         = 26
)

var errCut = errors.New("the connection is cut")

func newLine(network *kfake.VirtualNetwork, seed uint64, delay time.Duration) *line {
	return &line{network: network, rnd: rand.New(rand.NewPCG(seed, 7)), delay: delay, conns: map[*pipe]bool{}}
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	if cut {
		return nil, errCut
	}
	conn, err := l.network.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	p := &pipe{Conn: conn, line: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		conn.Close()
		return nil, errCut
	}
	l.conns[p] = true
	return p, nil
}

// sever cuts the line for good.
func (l *line) sever() {
	l.mu.Lock()
	l.cut = true
	conns := make([]*pipe, 0, len(l.conns))
	for p := range l.conns {
		conns = append(conns, p)
	}
	l.mu.Unlock()
	for _, p := range conns {
		p.Close()
	}
}

// strikeAt adds a strike.
func (l *line) strikeAt(s *strike) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strikes = append(l.strikes, s)
}

// calm takes away strikes and delays.
func (l *line) calm() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strikes, l.delay = nil, 0
}

// meets tells which strike a request meets, and how long it is under way.
func (l *line) meets(request []byte) (hit *strike, wait time.Duration) {
	key := int16(-1)
	if len(request) >= 8 {
		key = int16(binary.BigEndian.Uint16(request[4:]))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.strikes {
		if s.key != key {
			continue
		}
		if s.skip > 0 {
			s.skip--
			continue
		}
		l.strikes = append(l.strikes[:i:i], l.strikes[i+1:]...)
		hit = s
		break
	}
	if l.delay > 0 {
		wait = time.Duration(l.rnd.Int64N(int64(l.delay)))
	}
	return hit, wait
}

// pipe is one connection. The client writes each request whole.
type pipe struct {
	net.Conn
	line *line
	once sync.Once
}

func (p *pipe) Close() (err error) {
	p.once.Do(func() {
		p.line.mu.Lock()
		delete(p.line.conns, p)
		p.line.mu.Unlock()
		err = p.Conn.Close()
	})
	return err
}

func (p *pipe) Write(request []byte) (int, error) {
	hit, wait := p.line.meets(request)
	if wait > 0 {
		time.Sleep(wait)
	}
	if hit == nil {
		return p.Conn.Write(request)
	}
	if hit.late {
		if _, err := p.Conn.Write(request); err != nil {
			return 0, err
		}
	}
	if hit.do != nil {
		hit.do()
	}
	p.Close()
	return 0, errCut
}
