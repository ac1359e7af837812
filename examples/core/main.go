// Core is a small core system: the application that owns the posts and is told by Seenby how often they were seen. It shows what a
// receiver of these calls has to do; README.md has the contract.
//
// To write a receiver, read receiver.go: it verifies and answers calls. store.go keeps what they brought.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopLimit is how long calls under way have at the end.
const stopLimit = 10 * time.Second

func main() {
	if err := run(context.Background(), os.Args[1:], os.Getenv("CORE_SECRETS"), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "core:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends or SIGTERM or SIGINT comes.
func run(ctx context.Context, args []string, secrets string, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	logger := log.New(stderr, "core: ", log.LstdFlags)

	flags := flag.NewFlagSet("core", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:9090", "`address` to listen on")
	data := flags.String("data", "core.jsonl", "`file` that keeps what was told")
	flags.StringVar(&secrets, "secrets", secrets, "the endpoint's `secrets` (whsec_...), separated by commas; by default those of CORE_SECRETS")
	var own []post
	flags.Func("preset", "`post=count`: impressions of its own, of a post that it does not know yet; repeatable", func(s string) error {
		at := strings.LastIndex(s, "=")
		if at < 1 {
			return errors.New("must be post=count")
		}
		count, err := strconv.ParseInt(s[at+1:], 10, 64)
		if err != nil || count < 0 {
			return errors.New("the count must be a whole number from 0")
		}
		own = append(own, post{Post: s[:at], Impressions: count})
		return nil
	})
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}

	verifiers, err := newVerifiers(secrets)
	if err != nil {
		return err
	}
	st, warning, err := openStore(*data)
	if err != nil {
		return err
	}
	defer st.close()
	if warning != "" {
		logger.Print(warning)
	}
	if err := st.take(entry{At: time.Now(), Posts: own}); err != nil {
		return err
	}

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *addr)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           (&core{verifiers: verifiers, store: st, now: time.Now, log: logger}).handler(),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: logger,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	logger.Printf("listening on http://%s", listener.Addr())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	logger.Print("stopping")
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	return server.Shutdown(stopping)
}
