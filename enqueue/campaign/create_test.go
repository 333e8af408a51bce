package campaign

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/tasks"
)

// keys are the names of all keys in Redis that match.
func (r *rig) keys(pattern string) []string {
	r.t.Helper()
	names, err := r.look.Keys(r.t.Context(), pattern).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	return names
}

func bad(line int) rows.Row {
	return rows.Row{Line: line, Problems: []providers.FieldError{{Field: "username", Problem: "is required"}}}
}

func TestTheSameRowsMakeOneCampaign(t *testing.T) {
	r := newRig(t)
	s := source(people(0, 250)...)
	s.Digest = "sha256:abc"
	first, repeated, err := r.Create(t.Context(), settings("same"), s, CreateOptions{})
	if err != nil || repeated || first.Counts.Waiting != 250 {
		t.Fatalf("Create() = %+v, %v, %v", first, repeated, err)
	}
	// Whoever guesses a file's rows must not find in Redis that they are right.
	if kept := r.look.HGet(t.Context(), campaignKey("same"), "digest").Val(); kept == "" || strings.Contains(kept, s.Digest) {
		t.Errorf("the digest %q is kept as %q", s.Digest, kept)
	}
	again, repeated, err := r.Create(t.Context(), settings("same"), s, CreateOptions{})
	if err != nil || !repeated || again.Counts != first.Counts {
		t.Errorf("Create() again = %+v, %v, %v; want the first, repeated", again, repeated, err)
	}
	other := source(people(0, 10)...)
	for what, o := range map[string]Source{"no digest": other, "other rows": {Rows: other.Rows, Digest: "def"}} {
		if _, _, err := r.Create(t.Context(), settings("same"), o, CreateOptions{}); !errors.Is(err, ErrExists) {
			t.Errorf("Create() with %s = %v, want ErrExists", what, err)
		}
	}
	faster := settings("same")
	faster.Rate = 5
	if _, _, err := r.Create(t.Context(), faster, s, CreateOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("Create() with another rate = %v, want ErrExists", err)
	}
	if left := r.keys("*:seen:*"); len(left) > 0 {
		t.Errorf("%d keys of the creation are left", len(left))
	}
}

func TestACreateThatFailsLeavesNothing(t *testing.T) {
	broken := errors.New("the archive is cut off")
	for name, tc := range map[string]struct {
		source Source
		strict bool
		want   func(error) bool
	}{
		"a source that breaks": {
			source: Source{Rows: func(yield func(rows.Row, error) bool) {
				for _, row := range people(0, 5000) {
					if !yield(row, nil) {
						return
					}
				}
				yield(rows.Row{}, broken)
			}},
			want: func(err error) bool { return errors.Is(err, broken) },
		},
		"a wrong row, to who is strict": {
			source: source(append(people(0, 4500), bad(4501))...), strict: true,
			want: func(err error) bool {
				var row *InvalidRowError
				return errors.As(err, &row) && row.Line == 4501 && row.All == 0 && strings.Contains(err.Error(), "username is required")
			},
		},
		"rows that are all wrong": {
			source: source(bad(2), bad(3)),
			want: func(err error) bool {
				var row *InvalidRowError
				return errors.As(err, &row) && row.Line == 2 && row.All == 2 && !IsUnreachable(err)
			},
		},
		"a row of another provider": {
			source: source(append(people(0, 3000), rows.Row{Line: 3001, Request: medsenior.Request{CPF: "12345678909", EmailID: "x", PrimeiroAcesso: new(bool)}})...),
			want:   func(err error) bool { var s *SettingError; return errors.As(err, &s) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if _, _, err := r.Create(t.Context(), settings("fails"), tc.source, CreateOptions{Strict: tc.strict}); !tc.want(err) {
				t.Errorf("Create() = %v", err)
			}
			if left := r.keys("*"); len(left) > 0 {
				t.Errorf("it leaves %d keys, %s among them", len(left), left[0])
			}
		})
	}
}

// dying is a source that stops the process, as far as Create can tell: it never ends.
func dying(list []rows.Row, reached chan<- struct{}, never <-chan struct{}) Source {
	return Source{Rows: func(yield func(rows.Row, error) bool) {
		for _, row := range list {
			if !yield(row, nil) {
				return
			}
		}
		close(reached)
		<-never
	}}
}

func TestACreateThatDiedIsBegunAnew(t *testing.T) {
	r := newRig(t)
	reached, never := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		_, _, err := r.Create(context.Background(), settings("again"), dying(people(0, 6000), reached, never), CreateOptions{})
		ended <- err
	}()
	<-reached
	if k := r.status("again"); k.State != Creating || k.Counts.Rows != 6000 {
		t.Errorf("while it is created it is %+v", k)
	}
	var refused *StateError
	if err := r.Start(t.Context(), "again", false); !errors.As(err, &refused) {
		t.Errorf("Start() = %v, want a StateError", err)
	}
	if _, _, err := r.Create(t.Context(), settings("again"), source(people(0, 10)...), CreateOptions{}); !errors.Is(err, ErrCreating) {
		t.Errorf("Create() beside it = %v, want ErrCreating", err)
	}
	if err := r.look.Del(t.Context(), leaseKey("again")).Err(); err != nil { // it is not heard of any more
		t.Fatal(err)
	}
	k := r.create(settings("again"), people(0, 300)...)
	if want := (Counts{Rows: 300, Waiting: 300}); k.Counts != want {
		t.Errorf("begun anew it has %+v, want %+v", k.Counts, want)
	}
	if chunks := r.keys("*:rows:*"); len(chunks) != 3 {
		t.Errorf("there are %d chunks, want 3", len(chunks))
	}
	close(never) // it was not dead after all
	if err := <-ended; !errors.Is(err, ErrCreating) {
		t.Errorf("the first Create() = %v, want ErrCreating", err)
	}
	if k := r.status("again"); k.State != Created || k.Counts.Rows != 300 {
		t.Errorf("then it is %+v", k)
	}
}

// lostReplies repeats scripts, as go-redis does when it has not heard the reply.
type lostReplies struct{}

func (lostReplies) DialHook(next redis.DialHook) redis.DialHook { return next }
func (lostReplies) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (lostReplies) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if strings.HasPrefix(cmd.Name(), "eval") {
			_ = next(ctx, redis.NewCmd(ctx, cmd.Args()...))
		}
		return next(ctx, cmd)
	}
}

func TestLostRepliesCountNothingTwice(t *testing.T) {
	r := newRig(t)
	rdb := r.connect()
	rdb.AddHook(lostReplies{})
	c := r.open(func(cfg *Config) { cfg.Redis = rdb })
	list := append(people(0, 4100), people(0, 100)...)
	k, _, err := c.Create(t.Context(), settings("twice"), source(append(list, bad(9))...), CreateOptions{})
	if want := (Counts{Rows: 4201, Invalid: 1, Duplicate: 100, Waiting: 4100}); err != nil || k.Counts != want {
		t.Fatalf("Create() = %+v, %v; want %+v", k.Counts, err, want)
	}
	r.work(nil)
	if err := c.Start(t.Context(), "twice", true); err != nil {
		t.Fatal(err)
	}
	r.feed(c, "twice")
	k = r.until("twice", "over", isIn(CompletedWithFailures))
	if k.Counts.Accepted != 4100 || k.Counts.Canceled+k.Counts.Expired != 0 {
		t.Errorf("at its end it has %+v", k.Counts)
	}
	for name, n := range r.vendor.counts() {
		if n != 1 {
			t.Errorf("%s was sent %d requests", name, n)
		}
	}
}

func TestNobodyIsReadableInRedis(t *testing.T) {
	r := newRig(t)
	r.work(nil)
	r.create(settings("private"), append(people(0, 250), people(0, 2)...)...)
	r.start("private")
	r.feed(r.Campaigns, "private")
	r.until("private", "over", isIn(Completed))
	for _, key := range r.keys("*") {
		dump, err := r.look.Dump(t.Context(), key).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
		for _, text := range []string{key, dump} {
			if strings.Contains(text, "person") || strings.Contains(text, "example.org") {
				t.Errorf("a person can be read in %s", key)
			}
		}
	}
	masked := 0
	for row, err := range r.Report(t.Context(), "private", false) {
		if err != nil {
			t.Fatal(err)
		}
		if row.Request != nil || strings.Contains(row.Recipient, "person") {
			t.Fatalf("the report shows %+v", row)
		}
		masked++
	}
	n := 0
	for row, err := range r.Report(t.Context(), "private", true) {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf(`{"username":"person%d@example.org","type":"EMAIL"}`, n%250); string(row.Request) != want || row.Line != n%250+1 {
			t.Fatalf("row %d of the report is %+v, want %s", n, row, want)
		}
		n++
	}
	if masked != 252 || n != 252 {
		t.Errorf("the reports have %d and %d rows, want 252", masked, n)
	}
}

func TestARotationOfKeysFindsTheSameRecipients(t *testing.T) {
	r := newRig(t)
	r.create(settings("rotated"), people(0, 50)...)
	r.start("rotated")
	f := r.feederAt("rotated")
	list, to, err := f.take(t.Context(), 0, 50, 20)
	if err != nil {
		t.Fatal(err)
	}
	r.reserve(f, list, to)
	if err := f.queue(t.Context(), list, f.m.reservedAt, to); err != nil {
		t.Fatal(err)
	}
	r.look.Del(t.Context(), leaseKey("rotated")) // and it dies
	r.work(nil)

	newer := tasks.Key{ID: "newer", Secret: tasks.GenerateSecret()}
	without := r.open(func(cfg *Config) { cfg.Keys = []tasks.Key{newer} })
	if err := without.Feed(t.Context(), "rotated", "test"); !errors.Is(err, tasks.ErrKeyUnknown) {
		t.Errorf("Feed() without the campaign's key = %v, want ErrKeyUnknown", err)
	}
	both := r.open(func(cfg *Config) { cfg.Keys = []tasks.Key{newer, r.key} })
	r.feed(both, "rotated")
	r.until("rotated", "in the queue", func(k Campaign) bool { return k.Counts.Waiting == 0 })
	ids := map[string]bool{}
	for row, err := range both.Report(t.Context(), "rotated", false) {
		if err != nil {
			t.Fatal(err)
		}
		ids[row.MessageID] = true
	}
	if len(ids) != 50 || len(r.keys("otpq:msg:*")) != 50 {
		t.Errorf("50 people have %d messages and %d records", len(ids), len(r.keys("otpq:msg:*")))
	}
}

func TestRowsThatWereChangedInRedisAreNotSent(t *testing.T) {
	r := newRig(t)
	r.create(settings("forged"), people(0, 200)...)
	first := r.look.Get(t.Context(), chunkPrefix("forged")+"0").Val()
	r.look.Set(t.Context(), chunkPrefix("forged")+"1", first, 0) // the first hundred twice
	r.start("forged")
	err := r.Feed(t.Context(), "forged", "test")
	if !errors.Is(err, tasks.ErrSealBroken) || strings.Contains(err.Error(), "person") {
		t.Errorf("Feed() = %v, want ErrSealBroken", err)
	}
	if records := r.keys("otpq:msg:*"); len(records) > 0 {
		t.Errorf("%d messages were queued", len(records))
	}
}

func TestACampaignThatIsOverIsKeptForItsRetention(t *testing.T) {
	r := newRig(t)
	r.work(nil)
	c := r.open(func(cfg *Config) { cfg.Retention = time.Hour })
	r.create(settings("kept"), people(0, 150)...)
	r.start("kept")
	r.feed(c, "kept")
	r.until("kept", "over", isIn(Completed))
	if _, err := c.Status(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	deadline, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		longest := time.Duration(0)
		for _, key := range r.keys("otpq:campaign:*") {
			ttl := r.look.PTTL(t.Context(), key).Val()
			if ttl < 0 {
				ttl = unfinished
			}
			longest = max(longest, ttl)
		}
		if longest <= time.Hour {
			return
		}
		if sleep(deadline, 20*time.Millisecond) != nil {
			t.Fatalf("a key of it is kept for %s, want an hour at most", longest)
		}
	}
}

func TestAKilledRedisLosesNoRow(t *testing.T) {
	r := newRig(t, redistest.AOF())
	r.work(nil)
	s := settings("restart")
	s.Rate = 1500
	r.create(s, people(0, 3000)...)
	r.start("restart")
	ended, _ := r.feed(r.Campaigns, "restart")
	for _, at := range []int64{500, 1500} {
		r.until("restart", "under way", func(k Campaign) bool { return k.Counts.Accepted > at })
		r.redis.Restart()
	}
	if err := <-ended; err != nil {
		t.Errorf("Feed() = %v", err)
	}
	k := r.until("restart", "over", isIn(Completed, CompletedWithFailures))
	if k.Counts.Accepted != 3000 {
		t.Errorf("it ends with %+v", k.Counts)
	}
}
