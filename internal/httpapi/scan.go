package httpapi

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// scanner walks JSON that validJSON has checked, so it meets no errors. One bad view must not cost the others,
// and a decoder into structs gives up at the first wrong type; walking checked text is also the cheapest way.
// Strings are cut out of the text without copying.
type scanner struct {
	s string
	i int
}

// validJSON checks the syntax of a whole body. Names may repeat and strings may hold invalid UTF-8: those are
// errors of an item, not of the body.
func validJSON(raw []byte) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err := dec.SkipValue(); err != nil {
		return notJSON(dec.InputOffset(), err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return notJSON(dec.InputOffset(), err)
	}
	return nil
}

func notJSON(at int64, err error) error {
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		at = syntax.ByteOffset
	}
	return newProblem(codeMalformed, "body", "The body is not valid JSON, at byte "+strconv.FormatInt(at, 10)+".")
}

// kind is the first byte of the next value: { [ " t f n, a digit or a minus.
func (c *scanner) kind() byte {
	c.space()
	return c.s[c.i]
}

func (c *scanner) space() {
	for c.i < len(c.s) && c.s[c.i] <= ' ' {
		c.i++
	}
}

// open enters the object or array that comes next.
func (c *scanner) open() {
	c.space()
	c.i++
}

// more tells whether another member or element follows, and stands before it; else it has left the object or
// array that ends so.
func (c *scanner) more(end byte) bool {
	c.space()
	if c.s[c.i] == ',' {
		c.i++
		c.space()
	}
	if c.s[c.i] == end {
		c.i++
		return false
	}
	return true
}

// name is the name of the member that comes next; its value then comes next.
func (c *scanner) name() string {
	raw := c.value()
	c.space()
	c.i++ // the colon
	if text, ok := unquote(raw); ok {
		return text
	}
	return "(not UTF-8)"
}

// value is the text of the next value, and passes it.
func (c *scanner) value() string {
	c.space()
	start := c.i
	switch c.s[c.i] {
	case '"':
		c.passString()
	case '{', '[':
		depth := 0
		for {
			switch c.s[c.i] {
			case '"':
				c.passString()
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			c.i++
			if depth == 0 {
				return c.s[start:c.i]
			}
		}
	default:
		for c.i < len(c.s) && c.s[c.i] > ' ' && c.s[c.i] != ',' && c.s[c.i] != '}' && c.s[c.i] != ']' {
			c.i++
		}
	}
	return c.s[start:c.i]
}

func (c *scanner) passString() {
	for c.i++; ; {
		n := strings.IndexByte(c.s[c.i:], '"')
		end := c.i + n
		escapes := 0
		for c.s[end-1-escapes] == '\\' {
			escapes++
		}
		c.i = end + 1
		if escapes%2 == 0 {
			return
		}
	}
}

// unquote is the text of a JSON string; ok is false where it is not UTF-8.
func unquote(raw string) (text string, ok bool) {
	if strings.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], true // its user checks UTF-8
	}
	b, err := jsontext.AppendUnquote(nil, raw)
	return string(b), err == nil
}
