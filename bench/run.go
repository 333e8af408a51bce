package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
	"github.com/otpq/otpq/bench/suite"
)

func runSuites(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	suites := f.String("suite", "all", "suites, by commas: "+strings.Join(suite.Names(), ", ")+"; none only writes the page")
	cases := f.String("peers", "", "cases of the suites, by commas, as the tables name them; a name may end in *; empty is all")
	rounds := f.Int("rounds", 3, "rounds of all cases in turn")
	n := f.Int("n", 0, "messages a run; 0 is each suite's own number")
	quiet := f.Duration("quiet", time.Minute, "how long to wait before each run for a machine that nobody else uses")
	otpq := f.String("otpq", "", "the product's binary")
	home := f.String("home", "bench", "the folder of bullmq.mjs and node_modules")
	dir := f.String("dir", os.TempDir(), "where stores keep their files; they are removed afterwards")
	results := f.String("results", "bin/bench/results.json", "where figures are kept between calls")
	docs := f.String("docs", "", "page to write, with a plot beside it, from all figures that are kept")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case *rounds < 1 || *n < 0:
		return errors.New("there must be at least one round and one message")
	}
	names, err := pick(*suites)
	if err != nil {
		return err
	}
	kept, err := report.Load(*results)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		programs, err := find(*otpq, *home)
		if err != nil {
			return err
		}
		s, err := stage.Open(ctx, *dir, programs)
		if err != nil {
			return err
		}
		defer s.Close()
		kept.Machine = machine(ctx, programs)
		o := suite.Options{Rounds: *rounds, N: *n, Cases: words(*cases), Quiet: *quiet, Out: os.Stderr}
		if err := runAll(ctx, s, stage.Version(ctx, programs.Otpq, "version"), names, o, &kept, *results); err != nil {
			return err
		}
	}
	if *docs != "" {
		return kept.Write(*docs, suite.Names())
	}
	return nil
}

// runAll runs the suites. What one of them lost or doubled is an error in the end.
func runAll(ctx context.Context, s *stage.Stage, build string, names []string, o suite.Options, kept *report.Results, file string) error {
	var failures []string
	for _, name := range names {
		out, err := suite.Run(ctx, s, name, o)
		if err != nil {
			return err
		}
		out.Build = build
		out.Print(os.Stdout)
		failures = append(failures, out.Failures()...)
		kept.Suites[name] = out
		if err := kept.Save(file); err != nil {
			return err
		}
	}
	if len(failures) > 0 {
		return errors.New("runs failed:\n  " + strings.Join(failures, "\n  "))
	}
	return nil
}

// pick reads the list of suites.
func pick(text string) ([]string, error) {
	switch text {
	case "all", "":
		return suite.Names(), nil
	case "none":
		return nil, nil
	}
	names := words(text)
	for _, name := range names {
		if !slices.Contains(suite.Names(), name) {
			return nil, fmt.Errorf("there is no suite %q; there are %s", name, strings.Join(suite.Names(), ", "))
		}
	}
	return names, nil
}

func words(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return s == "" })
}

// find looks up what the processes run.
func find(otpq, home string) (stage.Programs, error) {
	self, err := os.Executable()
	if err != nil {
		return stage.Programs{}, err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return stage.Programs{}, err
	}
	script, err := filepath.Abs(filepath.Join(home, "bullmq.mjs"))
	if err != nil {
		return stage.Programs{}, err
	}
	if otpq, err = filepath.Abs(otpq); err != nil {
		return stage.Programs{}, err
	}
	for _, file := range []string{otpq, script} {
		if info, err := os.Stat(file); err != nil || info.IsDir() {
			return stage.Programs{}, fmt.Errorf("%s is not there: run this by `make bench`", file)
		}
	}
	return stage.Programs{Self: self, Otpq: otpq, Node: node, BullMQ: script}, nil
}
