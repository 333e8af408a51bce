package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/otpq/otpq/internal/overview"
)

func TestProvidersWatchGoesOnWithoutRedis(t *testing.T) {
	r := newRig(t)
	cmd := command(t, []string{"OTPQ_CONFIG=" + r.file}, "providers", "--watch", "--interval", "100ms")
	out, errs := &buffer{}, &buffer{}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	says := func(words string, n int) {
		t.Helper()
		waitFor(t, words, func() bool { return strings.Count(out.String(), words) >= n })
	}
	says("provider   breaker", 2)
	r.send()
	waitFor(t, "the message", func() bool {
		text := out.String()
		return strings.Contains(text[strings.LastIndex(text, "provider"):], "ms\n")
	})
	r.redis.Stop()
	says("redis does not answer since ", 2)
	r.redis.Restart()
	says("redis answers again", 1)
	before := strings.Count(out.String(), "provider   breaker")
	says("provider   breaker", before+2)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || errs.String() != "" {
		t.Errorf("after Ctrl-C: %v, stderr %q; want exit code 0 and no more words", err, errs)
	}
	if text := out.String(); strings.Contains(text, "\x1b") || strings.Count(text, "redis answers again") != 1 {
		t.Errorf("output = %q, want plain text, and the return of Redis once", text)
	}
}

func TestProvidersWatchPrintsJSONLines(t *testing.T) {
	r := newRig(t)
	b := start(t, []string{"OTPQ_CONFIG=" + r.file}, "providers", "--watch", "--json", "--interval", "100ms")
	lines := func() []watched {
		text := b.out.String()
		return decodeLines[watched](t, text[:strings.LastIndex(text, "\n")+1])
	}
	last := func() watched {
		all := lines()
		if len(all) == 0 {
			return watched{}
		}
		return all[len(all)-1]
	}
	waitFor(t, "two lines", func() bool { return len(lines()) >= 2 })
	r.redis.Stop()
	waitFor(t, "a line that says why", func() bool { return last().Error != "" })
	r.redis.Restart()
	waitFor(t, "the providers again", func() bool { return len(last().Providers) == 3 })
	if code := b.end(); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	for _, line := range lines() {
		if line.Time.IsZero() || (line.Error == "") != (len(line.Providers) == 3) {
			text, _ := json.Marshal(line)
			t.Errorf("line %s, want its time and either the providers or an error", text)
		}
	}
}

// A Redis that hangs is found out seconds later.
func TestProvidersWatchSaysSinceWhenRedisHangs(t *testing.T) {
	r := newRig(t)
	b := start(t, []string{"OTPQ_CONFIG=" + r.file}, "providers", "--watch", "--json", "--interval", "100ms")
	b.says(`"providers"`)
	r.redis.Pause()
	b.says(`"error"`)
	found := time.Now()
	r.redis.Resume()
	text := b.out.String()
	for _, line := range decodeLines[watched](t, text[:strings.LastIndex(text, "\n")+1]) {
		if line.Error != "" {
			if found.Sub(line.Time) < time.Second {
				t.Errorf("it hangs since %s, and that was known at %s; want the time before the wait for it", line.Time, found)
			}
			return
		}
	}
}

func TestProvidersWatchNeedsSense(t *testing.T) {
	r := newRig(t)
	r.otpq("providers", "--interval", "1s").want(t, exitUsage, "--interval needs --watch")
	r.otpq("providers", "--watch", "--interval", "1ms").want(t, exitUsage, "--interval must be at least 100ms")
	r.redis.Stop()
	r.otpq("providers", "--watch").want(t, exitFailed, "is Redis running there?")
}

func TestProvidersWatchDrawsOverItself(t *testing.T) {
	tty, screen := openTerminal(t)
	w := &providersWatch{a: &app{streams: streams{out: tty}}}
	one := []overview.Provider{{Name: "unimedbh", On: true, Breaker: overview.Breaker{State: "closed"}}}
	two := append(slices.Clone(one), overview.Provider{Name: "kinpos", On: true, Breaker: overview.Breaker{State: "open"}})
	steps := []struct {
		views []overview.Provider
		err   error
		up    string
		shows string
	}{
		{one, nil, "", "Ctrl-C ends it"},
		{two, nil, "\x1b[4A\x1b[J", "kinpos"}, // a head, two lanes, a foot
		{nil, errSilent, "\x1b[7A\x1b[J", "redis does not answer since "},
		{one, nil, "\x1b[7A\x1b[J", "Ctrl-C ends it"},
	}
	for i, s := range steps {
		before := len(screen.String())
		if err := w.show(s.views, s.err, time.Now()); err != nil {
			t.Fatal(err)
		}
		var drawn string
		waitFor(t, s.shows, func() bool {
			drawn = screen.String()[before:]
			return strings.Contains(drawn, s.shows) && strings.HasSuffix(drawn, "\n")
		})
		if !strings.HasPrefix(drawn, s.up) || s.up == "" && strings.Contains(drawn, "A\x1b[J") {
			t.Errorf("drawing %d = %q, want it to begin with %q", i+1, drawn, s.up)
		}
		if s.err != nil && !strings.Contains(drawn, "unimedbh") {
			t.Errorf("drawing %d = %q, want what is known all the same", i+1, drawn)
		}
	}
	if !strings.Contains(screen.String(), "\x1b[32mclosed") {
		t.Errorf("screen = %q, want colour", screen)
	}
}

func TestProvidersWatchOnATerminalEndsWithCtrlC(t *testing.T) {
	r := newRig(t)
	tty, screen := openTerminal(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	code := make(chan int)
	go func() {
		code <- run(ctx, []string{"providers", "--watch", "--interval", "100ms"}, streams{in: tty, out: tty, err: tty}, []string{"OTPQ_CONFIG=" + r.file})
	}()
	redrawn := func() int { return strings.Count(screen.String(), "A\x1b[J") }
	waitFor(t, "two drawings", func() bool { return redrawn() >= 2 })
	r.redis.Stop()
	waitFor(t, "that Redis is away", func() bool { return strings.Contains(screen.String(), "redis does not answer since ") })
	r.redis.Restart()
	waitFor(t, "its return", func() bool {
		all := screen.String()
		return strings.Contains(all[strings.LastIndex(all, "A\x1b[J"):], "Ctrl-C ends it")
	})
	interrupt()
	if got := <-code; got != exitDone {
		t.Errorf("exit code = %d, want %d", got, exitDone)
	}
}

// More lines than a terminal has would scroll away, and stay.
func TestADrawingFitsItsTerminal(t *testing.T) {
	tty, screen := openTerminal(t)
	setSize(t, tty, 5, 12)
	var r redrawn
	for range 2 {
		if err := r.draw(tty, []string{"1", "2", "a line that is too long", "4", "5", "6"}); err != nil {
			t.Fatal(err)
		}
	}
	const once = "1\r\n2\r\na line tha…\r\n… and 3 mo…\r\n"
	waitFor(t, "both drawings", func() bool { return strings.Count(screen.String(), "… and") == 2 })
	if got, want := screen.String(), once+"\x1b[4A\x1b[J"+once; got != want {
		t.Errorf("screen = %q, want %q", got, want)
	}
}
