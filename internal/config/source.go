package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Source is what a process was given. Nothing else is read: no globals.
type Source struct {
	Flags    map[string]string            // by name without dashes, only those that were given (see Flags)
	Environ  []string                     // as os.Environ gives it
	ReadFile func(string) ([]byte, error) // os.ReadFile
	Others   []string                     // SEENBY_* variables that are no settings and that cmd reads itself
}

// Layer adds values weaker than flags, environment and file.
type Layer func(Source, *[]string) layer

// layer is what one place gives, by the name of the setting.
type layer map[string]given

type given struct {
	text   string
	origin Origin
	err    error // the place names a file that cannot be read
}

// ConfigFlag and ConfigEnv name the YAML file.
const (
	ConfigFlag = "config"
	ConfigEnv  = "SEENBY_CONFIG"
)

// fileBytesMax bounds every file that is read: a secret is a line, a configuration a page.
const fileBytesMax = 1 << 20

func (src Source) layers(problems *[]string) []layer {
	flags := src.flags(problems)
	env, configFile := src.environment(problems)
	if f, ok := src.Flags[ConfigFlag]; ok {
		configFile = f
	}
	layers := []layer{flags, env}
	if configFile != "" {
		layers = append(layers, src.file(configFile, problems))
	}
	return layers
}

func dashed(st Setting) string { return "--" + st.Flag() }

func (src Source) flags(problems *[]string) layer {
	found := finder{src: src, layer: layer{}, problems: problems}
	for _, name := range sortedKeys(src.Flags) {
		if name == ConfigFlag {
			continue
		}
		arg := "--" + name
		if !found.add(arg, src.Flags[name], dashed, fileSuffixArg, Origin{Kind: OriginFlag, Place: arg}) {
			*problems = append(*problems, "no setting has a flag "+arg+didYouMean(arg, names(dashed, fileSuffixArg)))
		}
	}
	return found.layer
}

// foreign are variables that begin like ours and are not settings: those of our own tests, and those that
// Kubernetes and Docker links put into every container for a service that is called seenby or seenby-…. It is
// matched against name=value, since SEENBY_HTTP_PORT=9090 is a mistake and SEENBY_API_PORT=tcp://… is not.
var foreign = regexp.MustCompile(`^SEENBY_TEST|^SEENBY_(\w+_)?(SERVICE_HOST=|SERVICE_PORT(_\w+)?=|PORT=(tcp|udp|sctp)://|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?=)`)

// environment reads the variables. One that is empty counts as not given: compose files pass on what is unset
// as empty.
func (src Source) environment(problems *[]string) (found layer, configFile string) {
	f := finder{src: src, layer: layer{}, problems: problems}
	values := map[string]string{}
	for _, v := range src.Environ {
		if name, value, ok := strings.Cut(v, "="); ok && strings.HasPrefix(name, envPrefix) {
			values[name] = value // of two of a name the last counts, as it does for child processes
		}
	}
	for _, name := range sortedKeys(values) {
		value := values[name]
		switch {
		case name == ConfigEnv:
			configFile = value
		case value != "" && f.add(name, value, envName, fileSuffixEnv, Origin{Kind: OriginEnv, Place: name}):
		case slices.Contains(names(envName, fileSuffixEnv), name), slices.Contains(src.Others, name), foreign.MatchString(name + "=" + value):
		default:
			known := append(append(names(envName, fileSuffixEnv), ConfigEnv), src.Others...)
			*problems = append(*problems, fmt.Sprintf("no setting has a variable %s%s", name, didYouMean(name, known)))
		}
	}
	return f.layer, configFile
}

func envName(st Setting) string { return st.Env }

func fileName(st Setting) string { return st.Name }

// names lists how a place calls all settings, secrets also with the suffix that makes them name a file.
func names(of func(Setting) string, suffix string) (all []string) {
	for _, st := range table {
		all = append(all, of(st))
		if st.Secret {
			all = append(all, of(st)+suffix)
		}
	}
	return all
}

// finder fills one layer.
type finder struct {
	src      Source
	layer    layer
	problems *[]string
}

// add takes a value under the name that the place has for it; it reports false where no setting is called so.
func (f finder) add(name, text string, of func(Setting) string, suffix string, origin Origin) bool {
	for _, st := range table {
		g := given{text: text, origin: origin}
		switch {
		case of(st) == name:
		case st.Secret && of(st)+suffix == name:
			g.text, g.err = f.src.readText(text)
		default:
			continue
		}
		if first, twice := f.layer[st.Name]; twice {
			*f.problems = append(*f.problems, fmt.Sprintf("%s is given twice: %s and %s; give one", st.Name, first.origin, origin))
		}
		f.layer[st.Name] = g
		return true
	}
	return false
}

// readText reads a file that holds one value; the line end that editors and echo leave is not part of it.
func (src Source) readText(path string) (string, error) {
	data, err := src.ReadFile(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("read file: %w", err)
	case len(data) > fileBytesMax:
		return "", fmt.Errorf("file %s is over %d bytes long", path, fileBytesMax)
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		return "", fmt.Errorf("file %s is empty", path)
	}
	return text, nil
}

// The files of a data directory, all of mode 0600, by the setting each one holds.
const (
	DataDirBrokers     = "brokers" // host:port, separated by commas or line ends
	DataDirDatabaseURL = "database.url"
	DataDirSecret      = "secret"
)

// FromDataDir reads what `seenby dev` wrote into its data directory, for operational commands that take
// --data-dir: Load(src, FromDataDir(dir)). Flags, environment and file beat it. A file that is not there
// gives nothing, so that Validate names all that is missing.
func FromDataDir(dir string) Layer {
	return func(src Source, _ *[]string) layer {
		found := layer{}
		for setting, file := range map[string]string{
			"kafka.brokers": DataDirBrokers, "database.url": DataDirDatabaseURL, "secret": DataDirSecret,
		} {
			path := filepath.Join(dir, file)
			text, err := src.readText(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			found[setting] = given{text: text, err: err, origin: Origin{Kind: OriginDataDir, Place: path}}
		}
		return found
	}
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
