package telemetry

import (
	"io"
	"log/slog"

	"seenby/domain"
)

// NewLogger makes the logger that is handed to everything. Level is debug, info, warn or error; format is
// text or json. Each record is one write to w.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, domain.Errorf(domain.CodeMisconfigured, "log level %q must be debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, domain.Errorf(domain.CodeMisconfigured, "log format %q must be text or json", format)
}
