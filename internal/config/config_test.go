package config_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/config"
)

// files is a file reader over a map.
type files map[string]string

func (f files) read(path string) ([]byte, error) {
	if text, ok := f[path]; ok {
		return []byte(text), nil
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}

func source(flags map[string]string, f files, environ ...string) config.Source {
	return config.Source{Flags: flags, Environ: environ, ReadFile: f.read}
}

func value(t *testing.T, s config.Settings, name string) config.Value {
	t.Helper()
	values := s.Values()
	i := slices.IndexFunc(values, func(v config.Value) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("no value %s", name)
	}
	return values[i]
}

// wantProblems compares an error with the problems it must name, in any order and no others.
func wantProblems(t *testing.T, err error, want ...string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("got %v, want no error", err)
		}
		return
	}
	if err == nil {
		t.Errorf("got no error, want %q", want)
		return
	}
	if domain.CodeOf(err) != domain.CodeMisconfigured {
		t.Errorf("code %s, want misconfigured", domain.CodeOf(err))
	}
	got := strings.Split(err.Error(), "\n  - ")
	if len(got) > 1 {
		got = got[1:]
	}
	if len(got) != len(want) {
		t.Errorf("got %d problems, want %d:\n%v", len(got), len(want), err)
	}
	for _, w := range want {
		if !slices.ContainsFunc(got, func(g string) bool { return strings.Contains(g, w) }) {
			t.Errorf("no problem says %q:\n%v", w, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	s, err := config.Load(source(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if s.HTTP.Addr != "127.0.0.1:8080" || s.HTTP.RequestTimeout != 10*time.Second || s.Gate.BatchViewsMax != 5000 ||
		s.Gate.GatherFor != 30*time.Millisecond || s.Relay.CallTimeout != 10*time.Second || s.Log.Level != "info" || s.AllowUndurable || s.Kafka.TLS.On {
		t.Errorf("defaults:\n%v", s)
	}
	if err := s.Validate(); err != nil {
		t.Errorf("with no need nothing is required: %v", err)
	}
	for _, v := range s.Values() {
		if v.Origin.String() != "default" {
			t.Errorf("%s comes from %q, want default", v.Name, v.Origin)
		}
	}
}

func TestPrecedence(t *testing.T) {
	flag := map[string]string{"brokers": "flag:1"}
	withFile := map[string]string{"config": "c.yaml"}
	both := map[string]string{"config": "c.yaml", "brokers": "flag:1"}
	f := files{"c.yaml": "# comment\nkafka:\n  brokers: [file:1, file:2]\n", "other.yaml": "", "dev/brokers": "dir:1\n"}
	for _, test := range []struct {
		name        string
		flags       map[string]string
		environ     []string
		dir         string
		want        []string
		origin      string
		originPlace string
	}{
		{"nothing", nil, nil, "", nil, "default", ""},
		{"data dir", nil, nil, "dev", []string{"dir:1"}, "data dir", "dev/brokers"},
		{"data dir that is not there", nil, nil, "none", nil, "default", ""},
		{"file over data dir", withFile, nil, "dev", []string{"file:1", "file:2"}, "file", "c.yaml line 3"},
		{"file named by the environment", nil, []string{"SEENBY_CONFIG=c.yaml"}, "", []string{"file:1", "file:2"}, "file", "c.yaml line 3"},
		{"flag names another file", withFile, []string{"SEENBY_CONFIG=other.yaml"}, "", []string{"file:1", "file:2"}, "file", "c.yaml line 3"},
		{"environment over file", withFile, []string{"SEENBY_BROKERS=env:1, env:2"}, "dev", []string{"env:1", "env:2"}, "env", "SEENBY_BROKERS"},
		{"empty variable is not given", withFile, []string{"SEENBY_BROKERS="}, "", []string{"file:1", "file:2"}, "file", "c.yaml line 3"},
		{"last of two variables", nil, []string{"SEENBY_BROKERS=a:1", "SEENBY_BROKERS=b:1"}, "", []string{"b:1"}, "env", "SEENBY_BROKERS"},
		{"flag over all", both, []string{"SEENBY_BROKERS=env:1"}, "dev", []string{"flag:1"}, "flag", "--brokers"},
		{"flag over environment", flag, []string{"SEENBY_BROKERS=env:1"}, "", []string{"flag:1"}, "flag", "--brokers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var layers []config.Layer
			if test.dir != "" {
				layers = append(layers, config.FromDataDir(test.dir))
			}
			s, err := config.Load(source(test.flags, f, test.environ...), layers...)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.Kafka.Brokers, test.want) {
				t.Errorf("brokers %q, want %q", s.Kafka.Brokers, test.want)
			}
			got := value(t, s, "kafka.brokers").Origin
			if want := (config.Origin{Kind: config.OriginKind(test.origin), Place: test.originPlace}); got != want {
				t.Errorf("origin %+v, want %+v", got, want)
			}
		})
	}
}

func TestDataDirGivesAllThree(t *testing.T) {
	f := files{".seenby/brokers": "127.0.0.1:9092\n", ".seenby/database.url": "postgres://u:p@h/d\n", ".seenby/secret": "0123456789abcdef0123456789abcdef\n"}
	s, err := config.Load(source(nil, f, "SEENBY_DATABASE_URL=postgres://u:p@elsewhere/d"), config.FromDataDir(".seenby"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(config.NeedKafka, config.NeedDatabase, config.NeedSecret); err != nil {
		t.Error(err)
	}
	if got := s.Database.URL.Reveal(); got != "postgres://u:p@elsewhere/d" {
		t.Errorf("the environment must beat the data directory: %s", got)
	}
	if s.Secret.Reveal() != "0123456789abcdef0123456789abcdef" {
		t.Errorf("secret %q", s.Secret.Reveal())
	}
}

func TestMissingAreNamedAtOnce(t *testing.T) {
	s, err := config.Load(source(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	wantProblems(t, s.Validate(config.NeedKafka, config.NeedDatabase, config.NeedSecret),
		"kafka.brokers is missing: give it as --brokers or SEENBY_BROKERS",
		"database.url is missing: give it as SEENBY_DATABASE_URL",
		"secret is missing: give it as SEENBY_SECRET, SEENBY_SECRET_FILE or --secret-file")
	wantProblems(t, s.Validate(config.NeedKafka), "kafka.brokers is missing")
}

func TestEveryProblemAtOnce(t *testing.T) {
	f := files{"c.yaml": `
kafka:
  broker: [a:1]        # a typing error
  tls: {ca_file: ca.pem}
  sasl:
    mechanism: scram-sha-265
gate:
  batch_views_max: many
http: 8080
log:
  level: info
  level: debug
shutdown_timeout: 20
`}
	s, err := config.Load(source(map[string]string{"config": "c.yaml", "gate-gather-for": "2s", "broker": "x"}, f,
		"SEENBY_DATABASE_URI=x", "SEENBY_ALLOW_UNDURABLE=yes", "SEENBY_SECRET=short", "SEENBY_PREFIX=a/b", "HOME=/"))
	wantProblems(t, err, unreadable()...)
	// Validate goes on where Load had to stop. What was given and is wrong is not also called missing.
	wantProblems(t, s.Validate(config.NeedKafka, config.NeedDatabase, config.NeedSecret), append(unreadable(),
		"kafka.brokers is missing",
		"database.url is missing",
		"kafka.tls.enabled is false",
	)...)
}

func unreadable() []string {
	return []string{
		"c.yaml line 3: no setting is called kafka.broker; did you mean kafka.brokers?",
		`kafka.sasl.mechanism (file c.yaml line 6): "scram-sha-265" must be one of plain, scram-sha-256, scram-sha-512; did you mean scram-sha-256?`,
		`gate.batch_views_max (file c.yaml line 8): "many" must be a whole number`,
		"c.yaml line 9: http must be a group of settings",
		"log.level is given twice: file c.yaml line 11 and file c.yaml line 12",
		`shutdown_timeout (file c.yaml line 13): "20" must be a duration with its unit`,
		"gate.gather_for (flag --gate-gather-for): 2s must be 0s to 1s",
		"no setting has a flag --broker; did you mean --brokers?",
		"no setting has a variable SEENBY_DATABASE_URI; did you mean SEENBY_DATABASE_URL?",
		`allow_undurable (env SEENBY_ALLOW_UNDURABLE): "yes" must be true or false`,
		"secret (env SEENBY_SECRET): must be at least 32 bytes long",
		`kafka.prefix (env SEENBY_PREFIX): "a/b" must be`,
	}
}

func TestFileForms(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		{"empty", "", ""},
		{"comments only", "# nothing\n", ""},
		{"empty group and key", "kafka:\n  prefix:\nhttp:\n", ""},
		{"dotted keys", "kafka.prefix: a.\n", ""},
		{"unknown key with nothing after it", "kafka:\n  prefixx:\n", "line 2: no setting is called kafka.prefixx; did you mean kafka.prefix?"},
		{"unknown group", "kafak:\n  prefix: a\n", "line 1: no setting is called kafak"},
		{"a list at the top", "- kafka\n", "line 1: the file must be a group"},
		{"a list for a text", "kafka:\n  prefix: [a, b]\n", "line 2: kafka.prefix must be one plain value"},
		{"a list of groups", "kafka:\n  brokers: [{a: 1}]\n", "line 2: kafka.brokers must be a list of plain values"},
		{"an alias", "log: &l {level: info}\nhttp: *l\n", "line 2: http must be a group"},
		{"two documents", "log: {level: info}\n---\nlog: {level: debug}\n", "more than one YAML document"},
		{"not YAML", "kafka: [\n", "c.yaml: yaml: line 1:"},
		{"empty where there is a default", "log: {level: ''}\n", "must not be empty; leave it out for the default, info"},
		{"a broker without a port", "kafka: {brokers: a}\n", `"a" must be host:port`},
		{"a broker without a host", "kafka: {brokers: ':9092'}\n", `":9092" must be host:port`},
		{"a number out of range", "database: {connections_max: 1}\n", "1 must be 4 to 1000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := config.Load(source(map[string]string{"config": "c.yaml"}, files{"c.yaml": test.file}))
			if test.want == "" {
				wantProblems(t, err)
				return
			}
			wantProblems(t, err, test.want)
		})
	}
	_, err := config.Load(source(map[string]string{"config": "none.yaml"}, nil))
	wantProblems(t, err, "read configuration file: open none.yaml")
}

// Kubernetes and Docker put variables that begin like ours into every container; tests have their own.
func TestForeignVariables(t *testing.T) {
	src := source(nil, nil,
		"SEENBY_SERVICE_HOST=10.0.0.1", "SEENBY_SERVICE_PORT=8080", "SEENBY_SERVICE_PORT_HTTP=8080",
		"SEENBY_PORT=tcp://10.0.0.1:8080", "SEENBY_PORT_8080_TCP=tcp://10.0.0.1:8080", "SEENBY_PORT_8080_TCP_ADDR=10.0.0.1",
		"SEENBY_API_SERVICE_HOST=10.0.0.2", "SEENBY_API_PORT_80_TCP_PROTO=tcp",
		"SEENBY_TEST_REQUIRE=containers", "SEENBY_DATA_DIR=/data")
	src.Others = []string{"SEENBY_DATA_DIR"}
	_, err := config.Load(src)
	wantProblems(t, err)
	src.Environ = append(src.Environ, "SEENBY_PORTS=1", "SEENBY_HTTP_PORT=9090", "SEENBY_DATA_DIRR=", "SEENBY_HTTP_PORTX=")
	_, err = config.Load(src)
	wantProblems(t, err, "SEENBY_PORTS", "SEENBY_HTTP_PORT; did you mean SEENBY_HTTP_ADDR?", "SEENBY_DATA_DIRR; did you mean SEENBY_DATA_DIR?", "SEENBY_HTTP_PORTX")
}

func TestContradictions(t *testing.T) {
	for _, test := range []struct {
		name    string
		environ []string
		want    []string
	}{
		{"half a key pair", []string{"SEENBY_KAFKA_TLS=true", "SEENBY_KAFKA_TLS_CERT_FILE=c"}, []string{"come together"}},
		{"TLS settings without TLS", []string{"SEENBY_KAFKA_TLS_SERVER_NAME=k"}, []string{"kafka.tls.enabled is false"}},
		{"mechanism alone", []string{"SEENBY_KAFKA_SASL=plain"}, []string{"needs kafka.sasl.user"}},
		{"user alone", []string{"SEENBY_KAFKA_SASL_USER=u"}, []string{"without kafka.sasl.mechanism"}},
		{"all of it", []string{"SEENBY_KAFKA_SASL=plain", "SEENBY_KAFKA_SASL_USER=u", "SEENBY_KAFKA_SASL_PASSWORD=p"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := config.Load(source(nil, nil, test.environ...))
			if err != nil {
				t.Fatal(err)
			}
			wantProblems(t, s.Validate(), test.want...)
		})
	}
}
