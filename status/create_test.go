package status_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
)

func TestManyRecordsAreCreatedLikeOne(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	s := status.NewRedis(rdb, status.Retention{})
	var records []status.Record
	for i := range 300 {
		r := newRecord("kinpos")
		r.Campaign, r.NotAfter = fmt.Sprint("c", i), r.CreatedAt.Add(time.Duration(i)*time.Minute)
		records = append(records, r)
	}
	must(t, s.Create(t.Context(), records[7]))
	for round := range 2 {
		for i, err := range s.CreateAll(t.Context(), records) {
			if exists := round == 1 || i == 7; errors.Is(err, status.ErrExists) != exists || !exists && err != nil {
				t.Errorf("round %d, record %d: %v", round, i, err)
			}
		}
		if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range records {
		got, err := s.Get(t.Context(), want.ID)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Fatalf("record %d: %v (-want +got):\n%s", i, err, diff)
		}
		keep := 72*time.Hour + time.Duration(i)*time.Minute
		if ttl := rdb.PTTL(t.Context(), "otpq:msg:"+want.ID).Val(); ttl > keep || ttl < keep-30*time.Second {
			t.Errorf("record %d is kept for %v, want %v", i, ttl, keep)
		}
	}
}

func TestStatesAreReadEachAtItsPlace(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := status.NewRedis(server.Client(), status.Retention{})
	first, second := newRecord("kinpos"), newRecord("kinpos")
	for _, r := range []status.Record{first, second} {
		must(t, s.Create(t.Context(), r))
	}
	must(t, status.Cancel(t.Context(), s, second.ID, time.Now()))
	states, errs := s.States(t.Context(), []string{second.ID, "none", first.ID})
	if diff := cmp.Diff([]status.State{status.Canceled, "", status.Queued}, states); diff != "" || errors.Join(errs...) != nil {
		t.Errorf("States() = %v (-want +got):\n%s", errs, diff)
	}
	server.Stop()
	if _, errs := s.States(t.Context(), []string{first.ID, second.ID}); errs[0] == nil || errs[1] == nil {
		t.Errorf("States() of a Redis that is down = %v, want an error each", errs)
	}
	if _, errs := s.Looks(t.Context(), []string{first.ID, second.ID}); !status.IsUnreachable(errs[0]) || !status.IsUnreachable(errs[1]) {
		t.Errorf("Looks() of a Redis that is down = %v, want an error each", errs)
	}
	if errs := s.CreateAll(t.Context(), []status.Record{first, second}); !status.IsUnreachable(errs[0]) || !status.IsUnreachable(errs[1]) {
		t.Errorf("CreateAll() of a Redis that is down = %v, want an error each", errs)
	}
}

// TestWhatASeedIsKeptForIsWhatTheScriptsSay compares the one number that is both in
// Go and in Lua.
func TestWhatASeedIsKeptForIsWhatTheScriptsSay(t *testing.T) {
	lua, err := os.ReadFile("lua/shared.lua")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`local redelivery = (\d+)`).FindSubmatch(lua)
	if found == nil {
		t.Fatal("lua/shared.lua has no redelivery")
	}
	redelivery, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	s := status.NewRedis(nil, status.Retention{Records: time.Second, DeadLetters: time.Hour})
	r := newRecord("kinpos")
	for state, want := range map[status.State]int64{
		status.Queued: 60_000 + redelivery, status.Expired: 60_000 + redelivery, status.Rejected: 3_600_000,
	} {
		r.State, r.NotAfter = state, r.CreatedAt.Add(time.Minute)
		if got := s.Seed(r).Keep; got != want {
			t.Errorf("a record that is %s is kept for %d ms, want %d", state, got, want)
		}
	}
}
