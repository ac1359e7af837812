// Package config is the one place that reads Seenby's configuration: flags, then the environment (SEENBY_*),
// then a YAML file, then a data directory written by `seenby dev`, then defaults; the stronger wins.
//
// Settings is its main type. What can be set stands in one table (table.go), from which the flags, the
// README's table, `seenby config print` and the checks come.
//
// Guarantees: what is not known is an error, never ignored; every problem is reported at once; each value
// knows where it came from; a secret prints as *** wherever it is printed, and no error repeats one. Errors
// are domain.CodeMisconfigured and safe to show.
package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"seenby/domain"
)

// Settings is the whole configuration of a process. It is a value: nothing in it changes after Load.
type Settings struct {
	Kafka           Kafka
	Database        Database
	Secret          Secret // the installation's: tenant keys are sealed under it
	HTTP            HTTP
	Admin           Admin
	Gate            Gate
	Projector       Projector
	Relay           Relay
	Log             Log
	AllowUndurable  bool          // accept topics with replication under 3 or min.insync.replicas under 2
	ShutdownTimeout time.Duration // for a clean stop; what is not done by then is cut off

	values   []Value // as printed: masked
	problems []string
}

// Kafka says how to reach the brokers.
type Kafka struct {
	Brokers []string // host:port
	Prefix  string   // before every topic, group and transactional id
	TLS     TLS
	SASL    SASL
}

// TLS says how to talk to brokers over TLS. Config makes a *tls.Config of it.
type TLS struct {
	On         bool
	CAFile     string // PEM; empty: the system's
	CertFile   string // PEM; with KeyFile, for mutual TLS
	KeyFile    string
	ServerName string // empty: the broker's host
}

// SASL says how to log in to brokers.
type SASL struct {
	Mechanism string // one of SASLPlain, SASLScramSHA256, SASLScramSHA512; empty: no login
	User      string
	Password  Secret
}

// The mechanisms of SASL.
const (
	SASLPlain       = "plain"
	SASLScramSHA256 = "scram-sha-256"
	SASLScramSHA512 = "scram-sha-512"
)

// Database says how to reach PostgreSQL.
type Database struct {
	URL            Secret // holds a password, so all of it is a secret
	ConnectionsMax int
}

// HTTP says where and how long the api answers.
type HTTP struct {
	Addr           string
	RequestTimeout time.Duration // the time that Prefer: wait asks for comes on top
}

// Admin says where the admin API answers, and to whom.
type Admin struct {
	Addr string // empty: nowhere
	Key  Secret
}

// Gate bounds the gate's batches.
type Gate struct {
	BatchViewsMax int
	GatherFor     time.Duration // how long a batch that is not full waits for more
}

// Projector bounds the projectors' batches.
type Projector struct {
	BatchEventsMax int
	Workers        int // members of each projection's group in this process, each with a connection
}

// Relay says how core systems are called.
type Relay struct {
	CallTimeout time.Duration // of one call, from look-up to answer
}

// Log says how the process logs.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// Load reads every setting from src and, more weakly, from the layers after it, e.g. FromDataDir. Its error
// names every problem found in what was given; what is missing is for Validate to say. Where it fails, the
// Settings hold what could be read, so that `config check` can go on to Validate and name all problems.
func Load(src Source, weaker ...Layer) (Settings, error) {
	s := Settings{}
	layers := src.layers(&s.problems)
	for _, w := range weaker {
		layers = append(layers, w(src, &s.problems))
	}
	for _, st := range table {
		s.values = append(s.values, st.read(&s, layers))
	}
	return s, report(s.problems)
}

// read sets the setting from the strongest layer that gives it.
func (st Setting) read(s *Settings, layers []layer) Value {
	v := Value{Name: st.Name, Origin: Origin{Kind: OriginDefault}}
	g := given{text: st.Default}
	for _, l := range layers {
		if found, ok := l[st.Name]; ok {
			g, v.Origin = found, found.origin
			break
		}
	}
	err := g.err
	switch {
	case err != nil:
	case g.text == "" && st.Default != "":
		err = errors.New("must not be empty; leave it out for the default, " + st.Default)
	default:
		err = st.set(s, g.text)
	}
	v.Text = st.show(g.text)
	if err != nil {
		v.broken = true
		s.problems = append(s.problems, fmt.Sprintf("%s (%s): %v", st.Name, v.Origin, err))
	}
	return v
}

// Validate names every problem at once: those that Load met, settings that contradict each other, and what
// the needs require and nothing gave.
func (s Settings) Validate(needs ...Need) error {
	problems := slices.Clone(s.problems)
	for i, st := range table {
		if v := s.values[i]; st.For != "" && slices.Contains(needs, st.For) && !v.broken && v.Text == "" {
			problems = append(problems, fmt.Sprintf("%s is missing: give it as %s", st.Name, st.ways()))
		}
	}
	return report(append(problems, s.contradictions()...))
}

func (s Settings) contradictions() (problems []string) {
	add := func(problem string) { problems = append(problems, problem) }
	tls, sasl := s.Kafka.TLS, s.Kafka.SASL
	if (tls.CertFile == "") != (tls.KeyFile == "") {
		add("kafka.tls.cert_file and kafka.tls.key_file come together or not at all")
	}
	// A certificate that is given and not used would pass for protection.
	if !tls.On && (tls.CAFile != "" || tls.CertFile != "" || tls.KeyFile != "" || tls.ServerName != "") {
		add("kafka.tls.enabled is false, but other settings of kafka.tls are given: they would have no effect")
	}
	switch {
	case s.broken("kafka.sasl.mechanism", "kafka.sasl.user", "kafka.sasl.password"):
		// What is there of the three is not known.
	case sasl.Mechanism == "" && (sasl.User != "" || sasl.Password.Given()):
		add("kafka.sasl.user or kafka.sasl.password is given without kafka.sasl.mechanism")
	case sasl.Mechanism != "" && (sasl.User == "" || !sasl.Password.Given()):
		add("kafka.sasl.mechanism needs kafka.sasl.user and kafka.sasl.password")
	}
	if s.Admin.Addr != "" && !s.Admin.Key.Given() && !s.broken("admin.key") {
		add("admin.addr needs admin.key, at least 32 bytes (`openssl rand -hex 32`): whoever reaches that address could do everything")
	}
	return problems
}

func (s Settings) broken(names ...string) bool {
	return slices.ContainsFunc(s.values, func(v Value) bool { return v.broken && slices.Contains(names, v.Name) })
}

func report(problems []string) error {
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return domain.Errorf(domain.CodeMisconfigured, "configuration: %s", problems[0])
	}
	return domain.Errorf(domain.CodeMisconfigured, "configuration: %d problems:\n  - %s", len(problems), strings.Join(problems, "\n  - "))
}
