package eventlog

import (
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"seenby/domain"
)

// Config says how to reach Kafka. Its methods give every client of an installation the same identity.
type Config struct {
	Brokers []string
	Prefix  string      // before every topic, group and transactional id
	TLS     *tls.Config // nil: plain text
	SASL    SASL        // zero: no login
	Logger  *slog.Logger

	// Options are added to every client, e.g. a dialer in tests.
	Options []kgo.Opt
}

// SASL says how to log in to the brokers.
type SASL struct {
	Mechanism string // plain, scram-sha-256 or scram-sha-512; empty: no login
	User      string
	Password  string
}

func (s SASL) mechanism() (sasl.Mechanism, bool) {
	switch s.Mechanism {
	case "plain":
		return plain.Auth{User: s.User, Pass: s.Password}.AsMechanism(), true
	case "scram-sha-256":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha256Mechanism(), true
	case "scram-sha-512":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha512Mechanism(), true
	}
	return nil, false
}

const (
	// metadataMinAge bounds how long a client waits before it asks again who leads a partition: the default of
	// 5 s would be most of a failover.
	metadataMinAge = 250 * time.Millisecond
	// dialTimeout is short because an address that does not answer in it is tried again anyway.
	dialTimeout = 5 * time.Second
	// answerTimeout is how long a broker may be silent beyond what a request itself allows for. The default of 10 s
	// would be spent on each question to a broker that hangs, while another has long taken its place.
	answerTimeout = 5 * time.Second
	// requestRetryFirst to requestRetryMost is how long a client waits before it tries again. The default goes up to 5 s, and a group
	// whose coordinator died has failed often enough for that when the new one is there: its partitions would stand
	// still for as long again.
	requestRetryFirst = 100 * time.Millisecond
	requestRetryMost  = time.Second
)

// retryBackoff is the wait before the next try after so many failures. It varies, so that the members of a group do
// not come all at once.
func retryBackoff(failures int) time.Duration {
	wait := requestRetryMost
	if doublings := max(failures-1, 0); doublings < 4 {
		wait = min(requestRetryFirst<<doublings, requestRetryMost)
	}
	return wait/2 + rand.N(wait/2) //nolint:gosec // no secret
}

// ClientOpts are what every client has in common.
func (c Config) ClientOpts() []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("seenby"),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.DialTimeout(dialTimeout),
		kgo.RequestTimeoutOverhead(answerTimeout),
		kgo.RetryBackoffFn(retryBackoff),
		// Keys are hashed by us, over the partition count recorded on the log: see PartitionOf.
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	}
	if c.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(c.TLS))
	}
	if m, ok := c.SASL.mechanism(); ok {
		opts = append(opts, kgo.SASL(m))
	}
	if c.Logger != nil {
		opts = append(opts, kgo.WithLogger(clientLogger{c.Logger}))
	}
	return append(opts, c.Options...)
}

// TopicName is the name of a topic in the cluster.
func (c Config) TopicName(t domain.Topic) string { return c.Prefix + string(t) }

// GroupName is the name of a consumer group in the cluster.
func (c Config) GroupName(name string) string { return c.Prefix + name }

// TransactionalID is a transactional id in the cluster.
func (c Config) TransactionalID(name string) string { return c.Prefix + name }

// clientLogger passes what the client finds worth a warning to our log, one level lower: the client warns
// about every broken connection, and what matters of it comes back to us as an error anyway.
type clientLogger struct{ log *slog.Logger }

func (clientLogger) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l clientLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := l.log.Debug
	if level == kgo.LogLevelError {
		to = l.log.Info
	}
	to("kafka client: "+msg, slog.Group("client", keyvals...))
}
