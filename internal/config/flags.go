package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Flags are the command line's side of the table: a struct, made of it, that kong fills. Every field is a
// pointer, so that what was not given stays nil and a weaker place can give it.
type Flags struct {
	target reflect.Value // pointer to the struct
	names  []string      // by field
}

// NewFlags makes the flags of every setting and --config. Secrets have only flags that name a file, the
// database's URL apart: every user of a machine can read the command lines of all others.
func NewFlags() *Flags {
	f := &Flags{}
	var fields []reflect.StructField
	add := func(name, help, placeholder string, typ reflect.Type) {
		tag := fmt.Sprintf("name:%s help:%s group:\"Settings\"", strconv.Quote(name), strconv.Quote(help))
		if placeholder != "" {
			tag += " placeholder:" + strconv.Quote(placeholder)
		}
		fields = append(fields, reflect.StructField{
			Name: "F" + strconv.Itoa(len(fields)), Type: reflect.PointerTo(typ), Tag: reflect.StructTag(tag),
		})
		f.names = append(f.names, name)
	}
	text := reflect.TypeFor[string]()
	add(ConfigFlag, "YAML file of settings ("+ConfigEnv+").", "FILE", text)
	for _, st := range table {
		help := fmt.Sprintf("%s%s (%s).", strings.ToUpper(st.Help[:1]), st.Help[1:], st.Env)
		if _, isBool := st.target(&Settings{}).(*bool); isBool {
			add(st.Flag(), help, "", reflect.TypeFor[bool]())
			continue
		}
		if !st.Secret || st.Name == "database.url" {
			add(st.Flag(), help, st.Default, text)
		}
		if st.Secret {
			add(st.Flag()+fileSuffixArg, "File that holds "+st.Name+" ("+st.Env+fileSuffixEnv+").", "FILE", text)
		}
	}
	f.target = reflect.New(reflect.StructOf(fields))
	return f
}

// Target is what kong fills: kong.Embed(flags.Target()).
func (f *Flags) Target() any { return f.target.Interface() }

// Given is what stood on the command line, for Source.Flags.
func (f *Flags) Given() map[string]string {
	given := map[string]string{}
	for i, name := range f.names {
		if field := f.target.Elem().Field(i); !field.IsNil() {
			given[name] = fmt.Sprint(field.Elem().Interface())
		}
	}
	return given
}
