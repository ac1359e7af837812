package config

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// OriginKind is the sort of place that a value came from.
type OriginKind string

// The kinds, strongest first.
const (
	OriginFlag    OriginKind = "flag"
	OriginEnv     OriginKind = "env"
	OriginFile    OriginKind = "file"
	OriginDataDir OriginKind = "data dir"
	OriginDefault OriginKind = "default"
)

// Origin is where a value came from.
type Origin struct {
	Kind  OriginKind
	Place string // the flag, the variable, the file and line; empty for a default
}

func (o Origin) String() string { return strings.TrimSpace(string(o.Kind) + " " + o.Place) }

// Value is one setting as it may be shown: a secret is masked.
type Value struct {
	Name   string
	Text   string // as it was written; empty: none
	Origin Origin
	broken bool // it could not be read; the field has its zero value
}

// Values lists every setting with its value and origin, in the order of the table.
func (s Settings) Values() []Value { return append([]Value(nil), s.values...) }

// String is what `seenby config print` prints: a line per setting, with value and origin.
func (s Settings) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, v := range s.values {
		text := v.Text
		if text == "" {
			text = "-"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", v.Name, text, v.Origin)
	}
	_ = w.Flush() // a Builder takes everything
	return b.String()
}

// Format prints the Settings as String does under every verb, so that no debugging print shows more.
func (s Settings) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

func (st Setting) show(text string) string {
	if st.Secret && text != "" {
		return masked
	}
	return text
}

// ways says how a setting can be given.
func (st Setting) ways() string {
	if st.Secret {
		return fmt.Sprintf("%s, %s%s or --%s%s", st.Env, st.Env, fileSuffixEnv, st.Flag(), fileSuffixArg)
	}
	return fmt.Sprintf("--%s or %s", st.Flag(), st.Env)
}

// Table is the Markdown table of all settings for the README and the manual, generated so that it cannot age.
func Table() string {
	var b strings.Builder
	b.WriteString("| In the file | Variable | Type | Default | What it is |\n| --- | --- | --- | --- | --- |\n")
	for _, st := range table {
		variable := "`" + st.Env + "`"
		if st.Secret {
			variable += ", `" + st.Env + fileSuffixEnv + "`"
		}
		def := ""
		if st.Default != "" {
			def = "`" + st.Default + "`"
		}
		help := st.Help
		if st.For != "" {
			help += " (**required** by `serve`)"
		}
		_, _ = fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", st.Name, variable, st.Type, def, help)
	}
	b.WriteString("\nEach variable has its flag: `SEENBY_HTTP_ADDR` is `--http-addr`. A flag beats the variable, the variable beats\n" +
		"the file (`--config FILE` or `SEENBY_CONFIG`), the file beats `--data-dir`. Unknown keys and variables are errors;\n" +
		"a variable that is empty counts as not given. A variable that ends in `_FILE` names a file that holds the secret,\n" +
		"and so do a key that ends in `_file` and a flag that ends in `-file`; secrets themselves are never flags, the\n" +
		"database's URL apart, since every user of a machine can read its command lines.\n")
	return b.String()
}
