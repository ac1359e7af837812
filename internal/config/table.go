package config

import (
	"math"
	"strings"
	"time"
)

// Setting is one line of the table of what can be set.
type Setting struct {
	Name    string // in the file: groups and key, joined by dots
	Env     string // of the environment; the flag has the same name (Flag)
	Type    string // for people: string, list, true or false, number, duration, or the choices
	Default string // as it would be written; empty: none
	Help    string
	Secret  bool // prints as ***, can come from a file named by Name_file, Env_FILE, Flag-file
	For     Need // what requires it; empty: nothing does

	target  func(*Settings) any // pointer to the field
	choices []string
	min     int64 // of numbers, and of durations in ns
	max     int64
	check   func(string) error // of texts and list items
}

// Need is something that a command cannot do without; Validate names the settings it requires.
type Need string

// The needs.
const (
	NeedKafka    Need = "kafka"
	NeedDatabase Need = "database"
	NeedSecret   Need = "secret"
)

const (
	envPrefix     = "SEENBY_"
	fileSuffixEnv = "_FILE" // a secret's variable that names a file
	fileSuffix    = "_file" // a secret's key that names a file
	fileSuffixArg = "-file" // a secret's flag that names a file
)

// Flag is the setting's flag without its dashes: SEENBY_HTTP_ADDR is --http-addr.
func (st Setting) Flag() string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(st.Env, envPrefix)), "_", "-")
}

// All lists every setting, in the order in which they are printed.
func All() []Setting { return append([]Setting(nil), table...) }

// The table. Help says what, the default in the last place why.
var table = []Setting{
	{
		Name: "kafka.brokers", Env: "SEENBY_BROKERS", For: NeedKafka, check: checkBroker,
		Help:   "Kafka brokers to start from, host:port, comma-separated",
		target: func(s *Settings) any { return &s.Kafka.Brokers },
	},
	{
		Name: "kafka.prefix", Env: "SEENBY_PREFIX", check: checkPrefix,
		Help:   "stands before every topic, group and transactional id, so that installations can share a cluster",
		target: func(s *Settings) any { return &s.Kafka.Prefix },
	},
	{
		Name: "kafka.tls.enabled", Env: "SEENBY_KAFKA_TLS", Default: "false",
		Help:   "talk to the brokers over TLS",
		target: func(s *Settings) any { return &s.Kafka.TLS.On },
	},
	{
		Name: "kafka.tls.ca_file", Env: "SEENBY_KAFKA_TLS_CA_FILE",
		Help:   "PEM file of the authorities that brokers are trusted by; none: the system's",
		target: func(s *Settings) any { return &s.Kafka.TLS.CAFile },
	},
	{
		Name: "kafka.tls.cert_file", Env: "SEENBY_KAFKA_TLS_CERT_FILE",
		Help:   "PEM file of the client's certificate, for mutual TLS",
		target: func(s *Settings) any { return &s.Kafka.TLS.CertFile },
	},
	{
		Name: "kafka.tls.key_file", Env: "SEENBY_KAFKA_TLS_KEY_FILE",
		Help:   "PEM file of the client certificate's key",
		target: func(s *Settings) any { return &s.Kafka.TLS.KeyFile },
	},
	{
		Name: "kafka.tls.server_name", Env: "SEENBY_KAFKA_TLS_SERVER_NAME",
		Help:   "name that the brokers' certificates must hold; none: each broker's host",
		target: func(s *Settings) any { return &s.Kafka.TLS.ServerName },
	},
	{
		Name: "kafka.sasl.mechanism", Env: "SEENBY_KAFKA_SASL", choices: []string{SASLPlain, SASLScramSHA256, SASLScramSHA512},
		Help:   "how to log in to the brokers; none: without a login",
		target: func(s *Settings) any { return &s.Kafka.SASL.Mechanism },
	},
	{
		Name: "kafka.sasl.user", Env: "SEENBY_KAFKA_SASL_USER",
		Help:   "user to log in as",
		target: func(s *Settings) any { return &s.Kafka.SASL.User },
	},
	{
		Name: "kafka.sasl.password", Env: "SEENBY_KAFKA_SASL_PASSWORD", Secret: true,
		Help:   "its password",
		target: func(s *Settings) any { return &s.Kafka.SASL.Password },
	},
	{
		Name: "database.url", Env: "SEENBY_DATABASE_URL", Secret: true, For: NeedDatabase, check: checkDatabaseURL,
		Help:   "PostgreSQL 15 or later, postgres://user:password@host:port/name",
		target: func(s *Settings) any { return &s.Database.URL },
	},
	{
		Name: "database.connections_max", Env: "SEENBY_DATABASE_CONNECTIONS_MAX", Default: "20", min: 4, max: 1000,
		Help:   "connections of one process; PostgreSQL allows 100 in all unless told otherwise",
		target: func(s *Settings) any { return &s.Database.ConnectionsMax },
	},
	{
		Name: "secret", Env: "SEENBY_SECRET", Secret: true, For: NeedSecret, check: checkSecret,
		Help:   "the installation's secret, at least 32 bytes: tenant keys are sealed under it; without it nobody can be told apart any more, so keep a copy",
		target: func(s *Settings) any { return &s.Secret },
	},
	{
		Name: "http.addr", Env: "SEENBY_HTTP_ADDR", Default: "127.0.0.1:8080", check: checkHostPort,
		Help:   "where the api listens; in a container 0.0.0.0:8080",
		target: func(s *Settings) any { return &s.HTTP.Addr },
	},
	{
		// Over the 5 s that an append may take, so that the api can still say that Kafka is away.
		Name: "http.request_timeout", Env: "SEENBY_HTTP_REQUEST_TIMEOUT", Default: "10s", min: int64(time.Second), max: int64(5 * time.Minute),
		Help:   "a request is answered within it; what Prefer: wait asks for comes on top",
		target: func(s *Settings) any { return &s.HTTP.RequestTimeout },
	},
	{
		Name: "admin.addr", Env: "SEENBY_ADMIN_ADDR", check: checkHostPort,
		Help:   "where the admin API listens, apart from the api and for operators only; none: it is off",
		target: func(s *Settings) any { return &s.Admin.Addr },
	},
	{
		Name: "admin.key", Env: "SEENBY_ADMIN_KEY", Secret: true, check: checkSecret,
		Help:   "the admin API's key, at least 32 bytes: whoever has it may create and close tenants",
		target: func(s *Settings) any { return &s.Admin.Key },
	},
	{
		Name: "gate.batch_views_max", Env: "SEENBY_GATE_BATCH_VIEWS_MAX", Default: "5000", min: 1, max: 50_000,
		Help:   "views that are judged in one Kafka transaction",
		target: func(s *Settings) any { return &s.Gate.BatchViewsMax },
	},
	{
		// A transaction costs 3 to 4 ms however few views it holds.
		Name: "gate.gather_for", Env: "SEENBY_GATE_GATHER_FOR", Default: "30ms", min: 0, max: int64(time.Second),
		Help:   "how long a batch that is not full waits for more views",
		target: func(s *Settings) any { return &s.Gate.GatherFor },
	},
	{
		Name: "projector.batch_events_max", Env: "SEENBY_PROJECTOR_BATCH_EVENTS_MAX", Default: "5000", min: 1, max: 50_000,
		Help:   "events that are folded in one PostgreSQL transaction",
		target: func(s *Settings) any { return &s.Projector.BatchEventsMax },
	},
	{
		Name: "projector.workers", Env: "SEENBY_PROJECTOR_WORKERS", Default: "2", min: 1, max: 32,
		Help:   "workers of each projection in one process, each with its share of the partitions and a database connection",
		target: func(s *Settings) any { return &s.Projector.Workers },
	},
	{
		Name: "relay.call_timeout", Env: "SEENBY_RELAY_CALL_TIMEOUT", Default: "10s", min: int64(100 * time.Millisecond), max: int64(time.Minute),
		Help:   "a core system's endpoint answers within it; what takes longer is called again",
		target: func(s *Settings) any { return &s.Relay.CallTimeout },
	},
	{
		Name: "log.level", Env: "SEENBY_LOG_LEVEL", Default: "info", choices: []string{"debug", "info", "warn", "error"},
		Help:   "the least that is logged",
		target: func(s *Settings) any { return &s.Log.Level },
	},
	{
		Name: "log.format", Env: "SEENBY_LOG_FORMAT", Default: "text", choices: []string{"text", "json"},
		Help:   "how it is logged",
		target: func(s *Settings) any { return &s.Log.Format },
	},
	{
		Name: "allow_undurable", Env: "SEENBY_ALLOW_UNDURABLE", Default: "false",
		Help:   "accept topics that a broken disk can lose: replication under 3 or min.insync.replicas under 2",
		target: func(s *Settings) any { return &s.AllowUndurable },
	},
	{
		Name: "shutdown_timeout", Env: "SEENBY_SHUTDOWN_TIMEOUT", Default: "15s", min: int64(time.Second), max: int64(10 * time.Minute),
		Help:   "time for a clean stop; under the grace that your supervisor gives before it kills",
		target: func(s *Settings) any { return &s.ShutdownTimeout },
	},
}

func init() {
	for i := range table {
		st := &table[i]
		if st.max == 0 {
			st.max = math.MaxInt64
		}
		st.Type = st.typeName()
	}
}
