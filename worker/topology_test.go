package worker

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// password has every character that a URL has a use for.
const password = "p@ss/w:rd#?&=%"

// TestAMessageTravelsOverEveryKindOfURL queues a message, with app and worker at
// the same URL, and has it accepted.
func TestAMessageTravelsOverEveryKindOfURL(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) string{
		"a server with a password": func(t *testing.T) string {
			return redistest.Start(t, redistest.Password(password)).URL()
		},
		"another database": func(t *testing.T) string {
			return "redis://" + redistest.Start(t).Addr() + "/3"
		},
		"a Unix socket": func(t *testing.T) string {
			dir, err := os.MkdirTemp("", "otpq") // t.TempDir's names are too long for a socket
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			socket := filepath.Join(dir, "redis.sock")
			redistest.Start(t, redistest.Args("--unixsocket", socket))
			return "unix://" + socket
		},
		"TLS, with a client's certificate": func(t *testing.T) string {
			ca, cert, key := redistest.Certificate(t)
			return redistest.StartTLS(t, ca, cert, key) + "?" + url.Values{"ca_file": {ca}, "cert_file": {cert}, "key_file": {key}}.Encode()
		},
		"an ACL user who may do nothing else": func(t *testing.T) string {
			s := redistest.Start(t)
			err := s.Client().Do(t.Context(), "ACL", "SETUSER", "otpq", "on", ">"+password,
				"~asynq:*", "~otpq:*", "&asynq:*",
				"+@all", "-@dangerous", "-@admin").Err()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Client().Do(t.Context(), "ACL", "SETUSER", "default", "off").Err(); err != nil {
				t.Fatal(err)
			}
			return "redis://" + url.UserPassword("otpq", password).String() + "@" + s.Addr()
		},
		"a Sentinel set with passwords": func(t *testing.T) string {
			s := redistest.StartSentinel(t, redistest.Password(password))
			s.SetPassword(password + "2")
			return s.URL()
		},
		"a cluster with a password": func(t *testing.T) string {
			return redistest.StartCluster(t, redistest.Password(password)).URL()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigAt(t, start(t))
			client, err := enqueue.Open(enqueue.Config{RedisURL: r.url, Keys: []tasks.Key{r.key}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close() })
			r.client = client
			f := inTurn(providers.Retry(providers.ReasonUnavailable, 0, nil), accepted)
			w, _ := r.start(nil, f.config(func(pc *ProviderConfig) { pc.RateLimit = RateLimit{Limit: 100, Period: time.Second} }))
			id := r.send(enqueue.IdempotencyKey("login"))
			if again := r.send(enqueue.IdempotencyKey("login")); again != id {
				t.Errorf("the same key led to %s and %s", id, again)
			}
			if rec := r.awaitState(id, status.Accepted); len(rec.Attempts) != 2 {
				t.Errorf("attempts = %+v, want two", rec.Attempts)
			}
			r.checkSame(w)
			if log := r.log.String(); strings.Contains(log, `"level":"error"`) || strings.Contains(log, `"level":"warn"`) || strings.Contains(log, "p@ss") {
				t.Errorf("the worker complains, or tells the password: %s", log)
			}
		})
	}
}

// TestTheMainJobOnACluster does all that otpq is for on three masters.
func TestTheMainJobOnACluster(t *testing.T) {
	t.Parallel()
	newRigAt(t, redistest.StartCluster(t).URL()).mainJob(func() {})
}

// TestTheMainJobThroughAFailover does the same while the master dies. What its
// replica had not got would be lost, so it gets all before: this is about what
// goes on, not about what Redis loses.
func TestTheMainJobThroughAFailover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	newRigAt(t, s.URL()).mainJob(func() {
		s.Sync()
		s.KillMaster()
	})
}

// mainJob has every provider accept its example, one message retried, one refused
// and replayed, and one canceled. In the middle, with one message of each kind on
// its way, something happens to Redis.
func (r *rig) mainJob(middle func()) {
	t := r.t
	t.Helper()
	server, list := r.sandboxed(func(pc *ProviderConfig) {
		pc.Retry = Retry{MaxAttempts: 20, Initial: time.Second, Max: 2 * time.Second}
		pc.Timeout = 10 * time.Second
	})
	fault := func(provider string, f sandbox.Fault) {
		t.Helper()
		if err := server.SetFault(provider, f); err != nil {
			t.Fatal(err)
		}
	}
	kinpos, _ := all.ByName("kinpos")
	medsenior, _ := all.ByName("medsenior")
	r.start(nil, list...)

	r.examples()
	fault("unimedbh", sandbox.Fault{ErrorRate: 1})
	dead := r.awaitState(r.send(enqueue.MaxAttempts(1)), status.Exhausted).ID
	retried := r.send()
	r.await(retried, "failed once", func(rec status.Record) bool { return rec.State == status.Deferred && len(rec.Attempts) == 1 })
	fault("medsenior", sandbox.Fault{Latency: sandbox.Duration(2 * time.Second)}) // answers while Redis is away
	inFlight := r.sendTo(medsenior.Example)
	r.awaitState(inFlight, status.Sending)
	later := r.sendTo(kinpos.Example, enqueue.At(time.Now().Add(time.Hour)), enqueue.ValidFor(2*time.Hour))

	middle()
	fault("unimedbh", sandbox.Fault{})
	fault("medsenior", sandbox.Fault{})

	var replayed enqueue.Receipt
	r.insist("Replay", func() (err error) { replayed, err = r.client.Replay(t.Context(), dead); return err })
	r.insist("Cancel", func() error { return r.client.Cancel(t.Context(), later) })
	for id, attempts := range map[string]int{replayed.ID: 1, retried: 2, inFlight: 1} {
		rec := r.settle(id)
		if rec.State != status.Accepted || len(rec.Attempts) < attempts || rec.PossibleDuplicate {
			t.Errorf("record = %+v, want accepted by %d attempts, no duplicate", rec, attempts)
		}
	}
	if rec := r.settle(later); rec.State != status.Canceled {
		t.Errorf("canceled message is %s", rec.State)
	}
	if rec := r.settle(replayed.ID); rec.ReplayOf != dead {
		t.Errorf("replay_of = %q, want %q", rec.ReplayOf, dead)
	}
	r.examples()
	for provider, want := range map[string]int{"medsenior": 3, "kinpos": 2} {
		if n, err := server.Counts(provider); err != nil || n.Acted != want {
			t.Errorf("%s acted %d times, %v; want %d", provider, n.Acted, err, want)
		}
	}
	if n, err := server.Counts("unimedbh"); err != nil || n.Acted != 4 {
		t.Errorf("unimedbh acted %d times, %v; want 4", n.Acted, err)
	}
	var letters []string
	for letter, err := range r.store.Dead(t.Context(), "unimedbh", status.DeadFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		letters = append(letters, letter.ID)
	}
	if diff := cmp.Diff([]string(nil), letters); diff != "" {
		t.Errorf("dead letters after the replay (-want +got):\n%s", diff)
	}
}

// examples has every provider accept its example.
func (r *rig) examples() {
	r.t.Helper()
	for _, def := range all.All() {
		if rec := r.settle(r.sendTo(def.Example)); rec.State != status.Accepted || len(rec.Attempts) != 1 {
			r.t.Errorf("%s: record = %+v, want accepted by one attempt", def.Name, rec)
		}
	}
}

// insist does what an app does while Redis fails over: it tries until it works.
func (r *rig) insist(what string, try func() error) {
	r.t.Helper()
	var err error
	eventually(r.t, func() bool { err = try(); return err == nil }, func() string { return what + " never worked: " + err.Error() })
}

// settle awaits a message's end, also while Redis fails over.
func (r *rig) settle(id string) status.Record {
	r.t.Helper()
	var rec status.Record
	r.insist("Status of "+id, func() (err error) {
		if rec, err = r.client.Status(r.t.Context(), id); err == nil && !rec.State.Terminal() {
			return errors.New("it is " + string(rec.State))
		}
		return err
	})
	return rec
}
