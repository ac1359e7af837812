// Package strictjson says where JSON from outside is not what was asked for: field by field, and without the values.
//
// Problem is its main function. It reads the errors of github.com/go-json-experiment/json.
package strictjson

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"seenby/domain"
)

// Problem is what was wrong when a request or a line (of says which) was unmarshalled. Its Field is empty where the whole
// is of another kind than asked for. It is nil where the text is no JSON; at is then the byte where that shows, 0 where it
// is not known.
func Problem(err error, of string) (invalid *domain.Error, at int64) {
	var semantic *json.SemanticError
	var syntax *jsontext.SyntacticError
	switch {
	case errors.As(err, &semantic):
		field := fieldOf(semantic.JSONPointer)
		switch {
		case errors.Is(err, json.ErrUnknownName):
			return domain.Invalid(Clip(field), "is no field of this %s", of), 0
		case semantic.JSONPointer == "":
			return domain.Invalid("", "must be a JSON object"), 0
		}
		return domain.Invalid(field, "must not be a JSON %s", KindName(semantic.JSONKind)), 0
	case errors.As(err, &syntax):
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return domain.Invalid(Clip(fieldOf(syntax.JSONPointer)), "stands twice"), 0
		}
		return nil, syntax.ByteOffset
	}
	return nil, 0
}

func fieldOf(p jsontext.Pointer) string {
	var parts []string
	for token := range p.Tokens() {
		parts = append(parts, token)
	}
	return strings.Join(parts, ".")
}

// KindName is the kind of a value, for people.
func KindName(k jsontext.Kind) string {
	switch k {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string of this form"
	case '0':
		return "number"
	case 't', 'f':
		return "boolean"
	}
	return "value of this kind"
}

// NameBytesMax is what is repeated of a name that came from outside.
const NameBytesMax = 64

// Clip bounds a name that came from outside, at a rune.
func Clip(name string) string {
	if len(name) <= NameBytesMax {
		return name
	}
	n := NameBytesMax
	for n > 0 && !utf8.RuneStart(name[n]) {
		n--
	}
	return name[:n]
}
