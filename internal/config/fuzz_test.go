package config_test

import (
	"testing"

	"seenby/domain"
	"seenby/internal/config"
)

// Whatever stands in the file, reading it ends in settings or in an error that is ours, and prints.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{"", "---\n", "kafka: {brokers: [a:1]}", "? [a]\n: b", "a: &a [*a]", "<<: {log: 1}", "secret_file: c.yaml", "log:\n  level: !!binary aW5mbw=="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := config.Load(source(map[string]string{"config": "c.yaml"}, files{"c.yaml": text}))
		if err != nil && domain.CodeOf(err) != domain.CodeMisconfigured {
			t.Errorf("%T: %v", err, err)
		}
		if s.String() == "" {
			t.Error("nothing printed")
		}
	})
}
