package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// set parses text into the setting's field. Empty text leaves the field empty, whatever its type. Errors do
// not repeat a secret.
func (st Setting) set(s *Settings, text string) error {
	if text == "" {
		return nil
	}
	if len(st.choices) > 0 && !slices.Contains(st.choices, text) {
		return fmt.Errorf("%q must be one of %s%s", text, strings.Join(st.choices, ", "), didYouMean(text, st.choices))
	}
	switch field := st.target(s).(type) {
	case *string:
		if err := st.checked(text); err != nil {
			return err
		}
		*field = text
	case *Secret:
		if err := st.checked(text); err != nil {
			return err
		}
		*field = NewSecret(text)
	case *[]string:
		items := splitList(text)
		for _, item := range items {
			if err := st.checked(item); err != nil {
				return err
			}
		}
		*field = items
	case *bool:
		switch text {
		case "true", "1":
			*field = true
		case "false", "0":
		default:
			return fmt.Errorf("%q must be true or false", text)
		}
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q must be a whole number", text)
		}
		if int64(n) < st.min || int64(n) > st.max {
			return fmt.Errorf("%d must be %d to %d", n, st.min, st.max)
		}
		*field = n
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q must be a duration with its unit, e.g. 30ms, 5s or 2m", text)
		}
		if int64(d) < st.min || int64(d) > st.max {
			return fmt.Errorf("%v must be %v to %v", d, time.Duration(st.min), time.Duration(st.max))
		}
		*field = d
	default:
		panic("config: a setting of an unknown type: " + st.Name)
	}
	return nil
}

func (st Setting) checked(text string) error {
	if st.check == nil {
		return nil
	}
	return st.check(text)
}

// splitList splits at commas and line ends; blank items are dropped.
func splitList(text string) []string {
	items := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' })
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return slices.DeleteFunc(items, func(s string) bool { return s == "" })
}

const typeList = "list"

func (st Setting) typeName() string {
	if len(st.choices) > 0 {
		return strings.Join(st.choices, ", ")
	}
	switch st.target(&Settings{}).(type) {
	case *[]string:
		return typeList
	case *bool:
		return "true or false"
	case *int:
		return "number"
	case *time.Duration:
		return "duration"
	}
	return "text"
}

func checkBroker(text string) error {
	if strings.HasPrefix(text, ":") {
		return fmt.Errorf("%q must be host:port", text)
	}
	return checkHostPort(text)
}

func checkHostPort(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q must be host:port", text)
	}
	return nil
}

// prefixBytesMax leaves room for the names after it: Kafka allows 249 bytes for a topic.
const prefixBytesMax = 100

func checkPrefix(text string) error {
	bad := strings.IndexFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	})
	if bad >= 0 || len(text) > prefixBytesMax {
		return fmt.Errorf("%q must be at most %d letters, digits, dots, underscores and hyphens", text, prefixBytesMax)
	}
	return nil
}

// checkDatabaseURL looks at the form only; pgx reads the rest, and never repeats the password.
func checkDatabaseURL(text string) error {
	if strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") ||
		!strings.Contains(text, "://") && strings.Contains(text, "=") {
		return nil
	}
	return errors.New("must be a postgres:// URL, or settings such as host=h user=u dbname=d")
}

// secretBytesMin: the log holds a fingerprint of the secret and keys sealed under it, so whoever reads the
// log can try short ones at leisure. 32 is what 128 random bits take in hexadecimal; tenancy asks for as many.
const secretBytesMin = 32

func checkSecret(text string) error {
	if len(strings.TrimSpace(text)) < secretBytesMin { // space around it is not part of it
		return fmt.Errorf("must be at least %d bytes long; `openssl rand -hex 32` makes a good one", secretBytesMin)
	}
	return nil
}

// didYouMean names the candidate nearest to a mistyped name, if one is near.
func didYouMean(name string, candidates []string) string {
	best, bestAt := "", max(2, len(name)/4)+1
	for _, c := range candidates {
		if d := distance(name, c); d < bestAt {
			best, bestAt = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is Levenshtein's: how many bytes must be put in, taken out or changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
