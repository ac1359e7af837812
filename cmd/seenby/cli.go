package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/telemetry"
)

// cli is the command line. A file of this package per command.
type cli struct {
	Dev         devCommand         `cmd:"" help:"Run everything in one process, with an embedded broker and database. Nothing to set up."`
	Serve       serveCommand       `cmd:"" help:"Run roles against Kafka and PostgreSQL."`
	Topics      topicsCommand      `cmd:"" help:"Compare Kafka's topics with what Seenby needs, and create them."`
	Migrate     migrateCommand     `cmd:"" help:"Bring the database to the newest schema."`
	Tenants     tenantsCommand     `cmd:"" help:"Manage tenants and their limits."`
	Keys        keysCommand        `cmd:"" help:"Manage API keys."`
	Relay       relayCommand       `cmd:"" help:"Manage what a tenant's core system is told."`
	Secret      secretCommand      `cmd:"" help:"Manage the installation's secret."`
	Tail        tailCommand        `cmd:"" help:"Print the events of a topic."`
	Import      importCommand      `cmd:"" help:"Import posts, views, counts or members from a file of JSON lines."`
	Readmit     readmitCommand     `cmd:"" help:"Have views judged again that were refused by a quota."`
	Verify      verifyCommand      `cmd:"" help:"Recompute the read models from the log and name what differs."`
	Rebuild     rebuildCommand     `cmd:"" help:"Rebuild a read model from the log beside the live one, prove it and swap it in."`
	Deadletters deadlettersCommand `cmd:"" help:"Look at events that could not be applied, redrive and discard them."`
	Config      configCommand      `cmd:"" help:"Check or print the settings, with where each came from."`
	Version     versionCommand     `cmd:"" help:"Print the version."`
}

// environment is what a command has of the world.
type environment struct {
	ctx     context.Context //nolint:containedctx // it lives as long as the command
	environ []string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	flags   *config.Flags
	now     func() time.Time
	rand    io.Reader
}

// exit codes, as documented in docs/operations.md.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// run is main with its surroundings as arguments; tests run it too.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	env := &environment{
		ctx: ctx, environ: environ, stdin: os.Stdin, stdout: stdout, stderr: stderr,
		flags: config.NewFlags(), now: clock, rand: rand.Reader,
	}
	var commands cli
	exited := -1
	parser, err := kong.New(&commands,
		kong.Name("seenby"),
		kong.Description("Seenby counts who saw what: views come in over REST, are judged, and become counts and viewer lists."),
		kong.UsageOnError(),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.Embed(env.flags.Target()),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "seenby: this build's command line is broken:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if exited >= 0 {
		return exited // --help was answered
	}
	if err != nil {
		fmt.Fprintf(stderr, "seenby: %v\nTry: seenby --help\n", err)
		return exitUsage
	}
	if err := command.Run(env); err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			fmt.Fprintln(stderr, "seenby: interrupted; what was asked may be done in part, and can be asked again")
			return exitFailed
		}
		fmt.Fprintln(stderr, "seenby:", err)
		if domain.CodeOf(err) == domain.CodeInvalid {
			return exitUsage
		}
		return exitFailed
	}
	return exitOK
}

// dataDirVariable gives --data-dir where the flag does not.
const dataDirVariable = "SEENBY_DATA_DIR"

// operational is what every command has that talks to a running installation.
type operational struct {
	DataDir string `help:"Data directory of a 'seenby dev', to find its broker, database and secret." placeholder:"DIR" type:"path" env:"SEENBY_DATA_DIR"`
}

// settings reads the configuration and names everything that is missing for the command at once.
func (env *environment) settings(dataDir string, needs ...config.Need) (config.Settings, error) {
	source := config.Source{Flags: env.flags.Given(), Environ: env.environ, ReadFile: os.ReadFile, Others: []string{dataDirVariable}}
	var weaker []config.Layer
	if dataDir != "" {
		if info, err := os.Stat(dataDir); err != nil || !info.IsDir() {
			return config.Settings{}, domain.Invalid("--data-dir", "%s is no directory; `seenby dev` makes one, .seenby unless told otherwise", dataDir)
		}
		weaker = append(weaker, config.FromDataDir(dataDir))
	}
	s, _ := config.Load(source, weaker...) // Validate names these problems too, with all that is missing
	return s, s.Validate(needs...)
}

func (env *environment) logger(s config.Settings) (*slog.Logger, error) {
	log, err := telemetry.NewLogger(env.stderr, s.Log.Level, s.Log.Format)
	if err != nil {
		return nil, domain.Errorf(domain.CodeMisconfigured, "%v", err)
	}
	return log, nil
}

// printf writes to standard output; what cannot be written there has nobody to read it.
func (env *environment) printf(format string, args ...any) {
	fmt.Fprintf(env.stdout, format, args...)
}
