package telemetry

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A slogReader finds the keys of slog calls from the syntax alone, so that it needs no build and reads what
// other operating systems build. It takes for a logger what is called one (slog, log, logger, xLog, …), and
// for a call of one every method Debug, Info, Warn and Error that has arguments and does not belong to an
// imported package. It cannot see through a function value, or a key computed elsewhere: a key that is
// neither a literal nor a constant is an error of its own.
type slogReader struct {
	fset   *token.FileSet
	keys   map[string]bool
	consts map[string]string // of the package that is read
	found  []string
}

// readDir reads the Go files of one directory, tests apart.
func (r *slogReader) readDir(dir string) error {
	entries, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	files := []*ast.File{}
	for _, path := range entries {
		if strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".pb.go") {
			continue
		}
		file, err := parser.ParseFile(r.fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	r.read(files)
	return nil
}

// read reads the files of one package.
func (r *slogReader) read(files []*ast.File) {
	r.consts = map[string]string{}
	for _, file := range files {
		ast.Inspect(file, r.constants)
	}
	for _, file := range files {
		packages := map[string]string{} // name in this file → path
		for _, spec := range file.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			name := regexp.MustCompile(`^v\d+$`).ReplaceAllString(filepath.Base(path), filepath.Base(filepath.Dir(path)))
			if spec.Name != nil {
				name = spec.Name.Name
			}
			packages[name] = path
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				r.call(n, packages)
			case *ast.CompositeLit:
				r.attr(n, packages)
			}
			return true
		})
	}
}

func (r *slogReader) constants(n ast.Node) bool {
	decl, ok := n.(*ast.GenDecl)
	if !ok || decl.Tok != token.CONST {
		return true
	}
	for _, spec := range decl.Specs {
		values, ok := spec.(*ast.ValueSpec)
		if !ok {
			continue
		}
		for i, name := range values.Names {
			if i < len(values.Values) {
				if text, ok := literal(values.Values[i]); ok {
					r.consts[name.Name] = text
				}
			}
		}
	}
	return true
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// How many arguments stand before the first key.
var (
	logMethods = map[string]int{
		"Debug": 1, "Info": 1, "Warn": 1, "Error": 1,
		"DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2,
	}
	// The names of these are common: only on what is called a logger.
	loggerMethods = map[string]int{"Log": 3, "LogAttrs": 3, "With": 0}
	attrMakers    = []string{"Any", "Bool", "Duration", "Float64", "Int", "Int64", "String", "Time", "Uint64"}
	loggerName    = regexp.MustCompile(`(?i)log(ger)?$`)
)

const slogPath = "log/slog"

func (r *slogReader) call(call *ast.CallExpr, packages map[string]string) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	name := method.Sel.Name
	pkg := ""
	if x, ok := method.X.(*ast.Ident); ok {
		pkg = packages[x.Name]
	}
	isSlog := pkg == slogPath
	switch {
	case isSlog && slices.Contains(attrMakers, name):
		r.pairs(call, 0, 1)
	case isSlog && name == "Group":
		r.pairs(call, 0, 1)
		r.pairs(call, 1, len(call.Args))
	case pkg != "" && !isSlog:
	default:
		skip, ok := logMethods[name]
		if !ok {
			if skip, ok = loggerMethods[name]; !ok || !isSlog && !isLogger(method.X, packages) {
				return
			}
		}
		if len(call.Args) > 0 { // err.Error() has none
			r.pairs(call, skip, len(call.Args))
		}
	}
}

// isLogger judges by the name: log, b.logger, cfg.Log, slog.Default(), log.With(…).
func isLogger(e ast.Expr, packages map[string]string) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return loggerName.MatchString(e.Name)
	case *ast.SelectorExpr:
		return loggerName.MatchString(e.Sel.Name)
	case *ast.CallExpr:
		f, ok := e.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		x, ok := f.X.(*ast.Ident)
		return ok && packages[x.Name] == slogPath || isLogger(f.X, packages) || loggerName.MatchString(f.Sel.Name)
	}
	return false
}

// pairs reads args from..to as slog does: an Attr stands alone, anything else is a key before its value.
func (r *slogReader) pairs(call *ast.CallExpr, from, to int) {
	for i := from; i < to; i++ {
		arg := call.Args[i]
		if call.Ellipsis.IsValid() && i == len(call.Args)-1 {
			return // pairs put together elsewhere
		}
		switch arg.(type) {
		case *ast.CallExpr, *ast.CompositeLit:
			continue // an Attr; how it was made is read where it was
		}
		i++
		if r.key(arg) && i == len(call.Args) {
			r.problem(arg, "a key without a value")
		}
	}
}

// attr reads slog.Attr{Key: "…"}.
func (r *slogReader) attr(lit *ast.CompositeLit, packages map[string]string) {
	typ, ok := lit.Type.(*ast.SelectorExpr)
	if !ok || typ.Sel.Name != "Attr" {
		return
	}
	if x, ok := typ.X.(*ast.Ident); !ok || packages[x.Name] != slogPath {
		return
	}
	for i, element := range lit.Elts {
		if kv, ok := element.(*ast.KeyValueExpr); !ok && i == 0 {
			r.key(element)
		} else if ok {
			if field, ok := kv.Key.(*ast.Ident); ok && field.Name == "Key" {
				r.key(kv.Value)
			}
		}
	}
}

// key reports a key that is not listed; false: it is none that could be read.
func (r *slogReader) key(e ast.Expr) bool {
	key, ok := literal(e)
	if id, isIdent := e.(*ast.Ident); !ok && isIdent {
		key, ok = r.consts[id.Name]
	}
	switch {
	case !ok:
		r.problem(e, "a key must be a literal or a constant of its package")
	case !r.keys[key]:
		r.problem(e, fmt.Sprintf("key %q is not in internal/telemetry/keys.go: use one that is, or add it there with what it means", key))
	}
	return ok
}

func (r *slogReader) problem(at ast.Node, text string) {
	r.found = append(r.found, r.fset.Position(at.Pos()).String()+": "+text)
}

// goDirs are the directories with Go files below root, testdata apart.
func goDirs(root string) ([]string, error) {
	dirs := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != root):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, ".go"):
			dirs[filepath.Dir(path)] = true
		}
		return nil
	})
	return slices.Sorted(maps.Keys(dirs)), err
}
