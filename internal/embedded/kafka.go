package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	kafkaAddrDefault = "127.0.0.1:0"
	portName         = "port"  // the remembered port
	cleanName        = "clean" // there after an orderly Close, removed by the next start
)

// kafkaConfigs are the broker's settings.
var kafkaConfigs = map[string]string{
	// Never clean: kfake's compaction removes a partition's files before it writes the new ones, so a kill in
	// the middle loses the partition; it also moves the log's start, which a reader behind it takes for data
	// loss. A year is never, and does not overflow.
	"log.cleaner.backoff.ms": "31536000000",
	// kfake applies the default of seven days to compacted topics too.
	"log.retention.ms": "-1",
	// A start reads a segment at a time into memory.
	"log.segment.bytes": "67108864",
}

// KafkaOptions says where the broker lives.
type KafkaOptions struct {
	// DataDir is where the log is kept; made if need be, held by one process.
	DataDir string
	// Addr is a loopback address to listen on; default "127.0.0.1:0". Port 0 is the port of last time, or
	// another one if that is taken; any other port must be free.
	Addr string
	// Logger gets the broker's warnings; default: none.
	Logger *slog.Logger
	// NoSync leaves out the fsync before each acknowledgement: for tests. Records then still survive the end of
	// the process, but not of the machine.
	NoSync bool
}

// Kafka is a running broker.
type Kafka struct {
	cluster *kfake.Cluster
	lock    *Lock
	dir     string
	addr    string
	close   sync.Once
	err     error
}

// StartKafka starts a broker with one node and no topics but those on its disk, and returns when it can be used.
// It makes no topics by itself. ctx bounds the start only. A directory in use is a *LockedError.
func StartKafka(ctx context.Context, o KafkaOptions) (_ *Kafka, err error) {
	if o.DataDir == "" {
		return nil, errors.New("start kafka: no data directory")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start kafka: %w", err)
		}
	}()

	lock, err := LockDir(o.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Unlock()
		}
	}()

	crashed, err := startedUnclean(o.DataDir)
	if err != nil {
		return nil, err
	}
	var open []openTxn
	if crashed {
		if open, err = repairKafkaDir(ctx, o.DataDir, o.Logger); err != nil {
			return nil, err
		}
	}

	ln, err := listenRemembered(ctx, o.Addr, o.DataDir)
	if err != nil {
		return nil, err
	}
	front := newFrontDoor(ln)
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return front, nil }),
		kfake.DataDir(o.DataDir),
		kfake.BrokerConfigs(kafkaConfigs),
		kfake.WithLogger(kafkaLogger{o.Logger}),
	}
	if !o.NoSync {
		opts = append(opts, kfake.SyncWrites())
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		_ = front.Close()
		return nil, err
	}
	k := &Kafka{cluster: cluster, lock: lock, dir: o.DataDir, addr: ln.Addr().String()}
	if err := abortOpenTxns(ctx, front, k.addr, open); err != nil {
		// Not Close, which would write down a clean end.
		cluster.Close()
		return nil, err
	}
	front.open()
	return k, nil
}

// Brokers are the addresses for clients.
func (k *Kafka) Brokers() []string { return []string{k.addr} }

// Close stops the broker and gives its directory back. Clients are to be closed before.
func (k *Kafka) Close() error {
	k.close.Do(func() {
		k.cluster.Close()
		err := os.WriteFile(filepath.Join(k.dir, cleanName), nil, 0o644)
		if k.err = errors.Join(err, k.lock.Unlock()); k.err != nil {
			k.err = fmt.Errorf("close kafka: %w", k.err)
		}
	})
	return k.err
}

// startedUnclean says whether the last process ended without Close, and takes the mark of an orderly end away.
func startedUnclean(dir string) (bool, error) {
	if _, err := os.Stat(filepath.Join(dir, "meta.json")); errors.Is(err, os.ErrNotExist) {
		return false, nil // nothing there yet
	}
	switch err := os.Remove(filepath.Join(dir, cleanName)); {
	case errors.Is(err, os.ErrNotExist):
		return true, nil
	case err != nil:
		return false, err
	}
	return false, syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// listenRemembered listens on addr; for port 0 on the port in dir's file "port" if it is free, else on any, and
// remembers it.
func listenRemembered(ctx context.Context, addr, dir string) (net.Listener, error) {
	if addr == "" {
		addr = kafkaAddrDefault
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	listen := func(port string) (net.Listener, int, error) {
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, port))
		if err != nil {
			return nil, 0, err
		}
		a, ok := ln.Addr().(*net.TCPAddr)
		if !ok || !a.IP.IsLoopback() {
			_ = ln.Close()
			return nil, 0, fmt.Errorf("address %q is not a loopback address, and the embedded broker has no authentication", addr)
		}
		return ln, a.Port, nil
	}
	if port != "0" {
		ln, _, err := listen(port)
		return ln, err
	}
	path := filepath.Join(dir, portName)
	if last := readPort(path); last > 0 {
		if ln, _, err := listen(strconv.Itoa(last)); err == nil {
			return ln, nil
		}
	}
	ln, got, err := listen("0")
	if err != nil {
		return nil, err
	}
	if err := writePort(path, got); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

// readPort is 0 where no port is remembered: a file that says anything else is as good as none.
func readPort(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	port, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16)
	if err != nil {
		return 0
	}
	return int(port)
}

func writePort(path string, port int) error {
	if err := os.WriteFile(path, []byte(strconv.Itoa(port)+"\n"), 0o644); err != nil {
		return fmt.Errorf("remember port: %w", err)
	}
	return nil
}

// frontDoor lets in nobody but us (dial) until it is opened: transactions of a crash are to be ended before a
// client that knows the address goes on with them.
type frontDoor struct {
	net.Listener
	inside chan net.Conn
	opened chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newFrontDoor(ln net.Listener) *frontDoor {
	return &frontDoor{Listener: ln, inside: make(chan net.Conn), opened: make(chan struct{}), closed: make(chan struct{})}
}

func (d *frontDoor) open() { close(d.opened) }

func (d *frontDoor) Accept() (net.Conn, error) {
	select {
	case c := <-d.inside:
		return c, nil
	case <-d.opened:
		return d.Listener.Accept()
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *frontDoor) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Listener.Close()
}

func (d *frontDoor) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case d.inside <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// abortOpenTxns writes the markers that kfake leaves out when it aborts what a crash left open. Without them a
// reader drops what the same producer commits next (it skips until it meets the marker), and after a second
// crash that commit counts for the aborted records too.
func abortOpenTxns(ctx context.Context, front *frontDoor, addr string, open []openTxn) error {
	if len(open) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // all in memory but the fsyncs: milliseconds
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.Dialer(front.dial))
	if err != nil {
		return err
	}
	defer cl.Close()
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	for _, o := range open {
		t := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
		t.Topic, t.Partitions = o.topic, []int32{o.partition}
		m := kmsg.NewWriteTxnMarkersRequestMarker()
		m.ProducerID, m.ProducerEpoch, m.Committed = o.producerID, o.producerEpoch, false
		m.Topics = append(m.Topics, t)
		req.Markers = append(req.Markers, m)
	}
	resp, err := req.RequestWith(ctx, cl.SeedBrokers()[0])
	if err != nil {
		return fmt.Errorf("abort open transactions: %w", err)
	}
	for _, m := range resp.Markers {
		for _, t := range m.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return fmt.Errorf("abort open transaction on %s/%d: %w", t.Topic, p.Partition, err)
				}
			}
		}
	}
	return nil
}

// kafkaLogger passes on what an operator should know; kfake calls each request informational.
type kafkaLogger struct{ l *slog.Logger }

func (k kafkaLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	l := slog.LevelDebug
	switch level {
	case kfake.LogLevelError:
		l = slog.LevelError
	case kfake.LogLevelWarn:
		l = slog.LevelWarn
	}
	if ctx := context.Background(); k.l.Enabled(ctx, l) {
		k.l.Log(ctx, l, "kafka: "+fmt.Sprintf(format, args...)) //nolint:sloglint // what it says, it says in its message
	}
}
