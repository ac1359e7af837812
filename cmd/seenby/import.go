package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/erasure"
	"seenby/internal/eventlog"
	"seenby/internal/importer"
)

type importCommand struct {
	operational
	What     string        `arg:"" enum:"posts,views,counts,members" help:"What the lines are: posts, views, counts or members."`
	File     string        `arg:"" help:"File of JSON lines, maybe compressed by gzip or zstd; - for standard input."`
	Tenant   string        `required:"" help:"Whose they are." placeholder:"TENANT"`
	Name     string        `help:"What this import is known by when it is run again; the SHA-256 of the file's content by default." placeholder:"NAME"`
	Rejected string        `help:"File for the lines that are not imported, to be mended and imported; FILE.rejected by default." placeholder:"FILE" type:"path"`
	LagMax   time.Duration `help:"Wait while the live read models are further behind than this and moving; 0: never." default:"2s" name:"lag-max"`
	DryRun   bool          `help:"Look at every line and import none." name:"dry-run"`
}

// Run imports, goes on with what was begun, or says that nothing is left to do.
func (c importCommand) Run(env *environment) error {
	s, log, err := env.connect(c.DataDir, config.NeedDatabase, config.NeedSecret)
	if err != nil {
		return err
	}
	defer log.Close()
	logger, err := env.logger(s)
	if err != nil {
		return err
	}
	store, err := openCurrentStore(env.ctx, s)
	if err != nil {
		return err
	}
	defer store.Close()
	_, tenant, err := openTenant(env.ctx, s, log, domain.TenantID(c.Tenant))
	if err != nil {
		return err
	}
	erasures, err := env.followErasures(log, logger)
	if err != nil {
		return err
	}
	defer erasures.stop()
	printer := &importPrinter{env: env, bar: newProgressBar(env.stderr, env.now), what: c.What}
	result, err := importer.Run(env.ctx, importer.Deps{
		Log: log, ReadModels: store, Erasures: erasures, Now: env.now, Progress: printer.progress,
		NewRun: func() (id domain.RunID) {
			_, _ = io.ReadFull(env.rand, id[:]) // crypto/rand does not fail
			return id
		},
	}, importer.Options{
		What: c.What, Tenant: tenant, Name: c.Name, Rejected: c.rejected(), LagMax: c.LagMax, DryRun: c.DryRun,
		Source: importer.Source{Path: c.File, Stdin: env.stdin},
	})
	printer.bar.clear()
	if err != nil {
		if result.Record.Lines > 0 {
			fmt.Fprintf(env.stderr, "seenby: %s lines are done with; run the same import again to go on\n", grouped(result.Record.Lines))
		}
		return err
	}
	return c.print(env, &result)
}

// rejected is where the lines go that are not imported.
func (c importCommand) rejected() string {
	switch {
	case c.Rejected != "":
		return c.Rejected
	case c.File != "-":
		return c.File + ".rejected"
	}
	// A name is an id of the operator's and may hold anything that prints.
	return filepath.Base(strings.ReplaceAll(c.Name, string(filepath.Separator), "_")) + ".rejected"
}

func (c importCommand) print(env *environment, r *importer.Result) error {
	record := &r.Record
	switch {
	case c.DryRun:
		env.printf("Nothing was imported. Of %s lines, %s %s would be imported and %s rejected.\n", grouped(record.Lines), grouped(record.Imported), c.What, grouped(record.Rejected))
	case r.Already:
		env.printf("This import was finished at %s: %s %s were imported, %s lines were rejected. Nothing is left to do.\n",
			moment(&record.FinishedAt), grouped(record.Imported), c.What, grouped(record.Rejected))
		return nil
	default:
		env.printf("Imported: %s %s of %s lines; %s lines were rejected.\n", grouped(record.Imported), c.What, grouped(record.Lines), grouped(record.Rejected))
	}
	if record.Rejected == 0 {
		return nil
	}
	for _, one := range r.First {
		env.printf("  %s\n", one)
	}
	if n := record.Rejected - int64(len(r.First)); n > 0 {
		env.printf("  and %s more\n", grouped(n))
	}
	if c.DryRun {
		return domain.Errorf(domain.CodeInvalid, "%s lines would be rejected", grouped(record.Rejected))
	}
	return domain.Errorf(domain.CodeInvalid, "%s lines were rejected: mend them in %s and import that file", grouped(record.Rejected), c.rejected())
}

// followedErasures are the marks of erased people, followed while a command runs.
type followedErasures struct {
	*erasure.Marks
	stop func()
}

// importPrinter shows how far an import is: a bar on a terminal, elsewhere a line every few seconds.
type importPrinter struct {
	env  *environment
	bar  *progressBar
	what string
	last string // what it did at the last line
	at   time.Time
}

func (p *importPrinter) progress(g importer.Progress) {
	doing := fmt.Sprint(g.Waiting, g.Detail)
	since := p.env.now().Sub(p.at)
	if p.at.IsZero() && p.bar.w == nil {
		p.at = p.env.now() // a short import needs no line
		return
	}
	if doing == p.last && (p.bar.w == nil && since < lineEvery || since < barEvery) {
		return
	}
	p.last, p.at = doing, p.env.now()
	if p.bar.w != nil {
		p.bar.print(importLine(p.what, g, true))
	} else {
		fmt.Fprintln(p.env.stderr, importLine(p.what, g, false))
	}
}

func importLine(what string, g importer.Progress, bar bool) string {
	var b strings.Builder
	b.WriteString(what)
	if g.Of > 0 {
		percent := 100 * float64(g.Lines) / float64(g.Of)
		if bar {
			b.WriteString(" " + drawBar(percent))
		}
		fmt.Fprintf(&b, " %5.1f %%  %s of %s lines", percent, grouped(g.Lines), grouped(g.Of))
	} else {
		fmt.Fprintf(&b, "  %s lines", grouped(g.Lines))
	}
	if g.Rejected > 0 {
		fmt.Fprintf(&b, ", %s rejected", grouped(g.Rejected))
	}
	if g.PerSecond > 0 {
		fmt.Fprintf(&b, "  %s/s", grouped(int64(g.PerSecond)))
		if g.Of > g.Lines {
			fmt.Fprintf(&b, "  %v left", g.Left.Round(time.Second))
		}
	}
	switch {
	case g.Waiting:
		b.WriteString("  waiting for the live read models")
	case g.Detail != "":
		b.WriteString("  " + g.Detail)
	}
	return b.String()
}

// followErasures reads the topic people to its end, and follows it until stop.
func (env *environment) followErasures(log *eventlog.Log, logger *slog.Logger) (followedErasures, error) {
	ctx, cancel := context.WithCancel(env.ctx)
	f := followedErasures{Marks: erasure.NewMarks(log, log, env.now, logger)}
	ended := make(chan error, 1)
	go func() {
		ended <- f.Run(ctx)
		close(ended)
	}()
	f.stop = func() {
		cancel()
		for range ended {
			continue // ctx's cause
		}
	}
	ticker := time.NewTicker(followErasuresEvery)
	defer ticker.Stop()
	for f.Check(ctx) != nil {
		select {
		case err := <-ended:
			cancel()
			return f, fmt.Errorf("read the topic people: %w", err)
		case <-ticker.C:
		}
	}
	return f, nil
}

const followErasuresEvery = 20 * time.Millisecond
