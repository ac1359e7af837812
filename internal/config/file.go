package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// quoted finds what YAML errors repeat of the file: it may be part of a secret.
var quoted = regexp.MustCompile("'[^']*'|`[^`]*`|\"[^\"]*\"")

// file reads the YAML file. Groups are mappings; a setting's dotted name is the path to it.
func (src Source) file(path string, problems *[]string) layer {
	r := fileReader{finder: finder{src: src, layer: layer{}, problems: problems}, path: path}
	data, err := src.ReadFile(path)
	if err == nil && len(data) > fileBytesMax {
		err = fmt.Errorf("%s is over %d bytes long", path, fileBytesMax)
	}
	if err != nil {
		*problems = append(*problems, fmt.Sprintf("read configuration file: %v", err))
		return nil
	}
	var doc, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF): // nothing but comments
		return nil
	case err != nil:
		*problems = append(*problems, path+": "+quoted.ReplaceAllString(err.Error(), masked))
		return nil
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		r.problem(&doc, "holds more than one YAML document")
		return nil
	}
	r.group(doc.Content[0], "")
	return r.layer
}

type fileReader struct {
	finder
	path string
}

func (r fileReader) problem(at *yaml.Node, format string, args ...any) {
	*r.problems = append(*r.problems, fmt.Sprintf("%s line %d: ", r.path, at.Line)+fmt.Sprintf(format, args...))
}

// group reads a mapping; inside is its path with a dot at the end, empty at the top.
func (r fileReader) group(node *yaml.Node, inside string) {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return
	}
	if node.Kind != yaml.MappingNode {
		what := "the file"
		if inside != "" {
			what = strings.TrimSuffix(inside, ".")
		}
		r.problem(node, "%s must be a group of settings, key: value", what)
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := inside + key.Value
		switch {
		case isGroup(name):
			r.group(value, name+".")
		default:
			r.setting(key, value, name)
		}
	}
}

func (r fileReader) setting(key, value *yaml.Node, name string) {
	st, known := lookup(name)
	if !known {
		r.problem(key, "no setting is called %s%s", name, didYouMean(name, names(fileName, fileSuffix)))
		return
	}
	if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
		return // `key:` with nothing after it gives nothing
	}
	text, err := scalarOrList(value, st.Type == typeList)
	if err != nil {
		r.problem(value, "%s %v", name, err)
		return
	}
	r.add(name, text, fileName, fileSuffix, Origin{Kind: OriginFile, Place: fmt.Sprintf("%s line %d", r.path, value.Line)})
}

func isGroup(name string) bool {
	for _, st := range table {
		if strings.HasPrefix(st.Name, name+".") {
			return true
		}
	}
	return false
}

// lookup finds a setting by its name in the file, which for a secret may end in _file.
func lookup(name string) (Setting, bool) {
	for _, st := range table {
		if st.Name == name || st.Secret && st.Name+fileSuffix == name {
			return st, true
		}
	}
	return Setting{}, false
}

// scalarOrList gives a value's text; a list becomes its items joined by commas.
func scalarOrList(node *yaml.Node, list bool) (string, error) {
	switch {
	case node.Kind == yaml.ScalarNode:
		return strings.TrimRight(node.Value, "\r\n"), nil // a block text ends in a line end that nobody wrote
	case node.Kind == yaml.SequenceNode && list:
		items := make([]string, 0, len(node.Content))
		for _, item := range node.Content {
			if item.Kind != yaml.ScalarNode {
				return "", errors.New("must be a list of plain values")
			}
			items = append(items, item.Value)
		}
		return strings.Join(items, ","), nil
	}
	return "", errors.New("must be one plain value; groups, lists and aliases cannot stand here")
}
