package config_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"seenby/internal/config"
)

func TestSecretsAreMaskedEverywhere(t *testing.T) {
	const hidden = "correct-horse-battery-staple-of-32"
	s, err := config.Load(source(nil, files{"pw": hidden}, "SEENBY_SECRET="+hidden,
		"SEENBY_DATABASE_URL=postgres://u:"+hidden+"@h/d", "SEENBY_KAFKA_SASL_PASSWORD_FILE=pw"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Secret.Reveal() != hidden || s.Kafka.SASL.Password.Reveal() != hidden {
		t.Fatal("the secrets are not there")
	}
	type elsewhere struct{ secret config.Secret } // another package's unexported field
	var logged strings.Builder
	log := slog.New(slog.NewJSONHandler(&logged, nil))
	log.Info("x", "secret", s.Secret, "all", s, "kafka", s.Kafka)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "secret", s.Secret, "all", s, "kafka", s.Kafka)
	encoded, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	printed := []string{s.String(), logged.String(), string(encoded)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, thing := range []any{s, &s, s.Secret, &s.Secret, s.Kafka, s.Database, s.Values(), elsewhere{s.Secret}, []config.Secret{s.Secret}} {
			printed = append(printed, fmt.Sprintf(verb, thing))
		}
	}
	hex := fmt.Sprintf("%x", hidden)
	for _, p := range printed {
		if strings.Contains(p, hidden) || strings.Contains(p, hex) {
			t.Errorf("a secret shows: %s", p)
		}
	}
	if got := value(t, s, "kafka.sasl.password"); got.Text != "***" || got.Origin.String() != "env SEENBY_KAFKA_SASL_PASSWORD_FILE" {
		t.Errorf("password shows as %+v", got)
	}
	if got := fmt.Sprint(config.Secret{}); got != "" {
		t.Errorf("a secret that is not given prints as %q", got)
	}
}

func TestErrorsDoNotRepeatSecrets(t *testing.T) {
	const hidden = "horsebattery"
	for _, test := range []struct{ name, file, env string }{
		{"a secret too short", "", "SEENBY_SECRET=" + hidden},
		{"a URL of another kind", "", "SEENBY_DATABASE_URL=mysql://u:" + hidden + "@h"},
		{"in the file, too short", "secret: " + hidden, ""},
		{"taken for an alias by YAML", "secret: *" + hidden, ""},
		{"in a place of a group", "secret: {a: " + hidden + "}", ""},
		{"in place of a list", "secret: [" + hidden + "]", ""},
		{"an unknown variable", "", "SEENBY_SECRETT=" + hidden},
		{"an unknown key", "secrett: " + hidden, ""},
		{"broken quotes", "secret: \"" + hidden, ""},
		{"a tab", "secret:\n\t" + hidden, ""},
		{"a bad escape", `secret: "\` + hidden + `"`, ""},
		{"a tag", "secret: !" + hidden + "! x", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := config.Load(source(map[string]string{"config": "c.yaml"}, files{"c.yaml": test.file}, test.env))
			if err == nil {
				t.Fatal("no error")
			}
			if all := err.Error() + s.String() + s.Validate().Error(); strings.Contains(all, hidden) {
				t.Errorf("a secret shows:\n%s", all)
			}
		})
	}
}

func TestSecretFiles(t *testing.T) {
	const long = "0123456789abcdef0123456789abcdef"
	f := files{"unix": long + "\n", "windows": long + "\r\n", "bare": long, "spaces": " " + long + " \n", "empty": "\n",
		"c.yaml": "secret_file: unix\n", "both.yaml": "secret: " + long + "\nsecret_file: unix\n", "block.yaml": "secret: |\n  " + long + "\n"}
	for _, test := range []struct {
		name    string
		flags   map[string]string
		environ []string
		want    string
		problem string
	}{
		{"line end trimmed", nil, []string{"SEENBY_SECRET_FILE=unix"}, long, ""},
		{"both ends of Windows", nil, []string{"SEENBY_SECRET_FILE=windows"}, long, ""},
		{"no line end", nil, []string{"SEENBY_SECRET_FILE=bare"}, long, ""},
		{"spaces belong to it", nil, []string{"SEENBY_SECRET_FILE=spaces"}, " " + long + " ", ""},
		{"by flag", map[string]string{"secret-file": "unix"}, nil, long, ""},
		{"by key", map[string]string{"config": "c.yaml"}, nil, long, ""},
		{"a block in the file", map[string]string{"config": "block.yaml"}, nil, long, ""},
		{"both in one place", nil, []string{"SEENBY_SECRET=" + long, "SEENBY_SECRET_FILE=unix"}, "", "secret is given twice: env SEENBY_SECRET and env SEENBY_SECRET_FILE"},
		{"both keys", map[string]string{"config": "both.yaml"}, nil, "", "secret is given twice"},
		{"a stronger place wins", map[string]string{"secret-file": "bare"}, []string{"SEENBY_SECRET=fedcba9876543210fedcba9876543210"}, long, ""},
		{"empty", nil, []string{"SEENBY_SECRET_FILE=empty"}, "", "file empty is empty"},
		{"not there", nil, []string{"SEENBY_SECRET_FILE=none"}, "", "secret (env SEENBY_SECRET_FILE): read file: open none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := config.Load(source(test.flags, f, test.environ...))
			if test.problem != "" {
				wantProblems(t, err, test.problem)
				return
			}
			if err != nil || s.Secret.Reveal() != test.want {
				t.Errorf("got %q, %v; want %q", s.Secret.Reveal(), err, test.want)
			}
		})
	}
}
