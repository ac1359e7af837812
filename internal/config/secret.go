package config

import (
	"fmt"
	"io"
	"log/slog"
)

// masked stands wherever a secret would be printed.
const masked = "***"

// Secret holds a text that must not be printed by accident: every way of formatting, logging or encoding it
// gives ***. The text is behind a pointer, so that even fmt's look into another package's unexported fields
// does not find it. The zero value is "not given".
type Secret struct{ text *string }

// NewSecret keeps text; an empty one is "not given".
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal gives the text to whoever uses it.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Given says that there is one.
func (s Secret) Given() bool { return s.text != nil }

func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return masked
}

// Format masks the secret under every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText masks the secret in JSON, YAML and text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue masks the secret in slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
