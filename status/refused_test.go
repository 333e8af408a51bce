package status_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
)

// TestARedisThatRefusesUsIsNotTakenForAnEmptyOne: "no such message" is an answer that
// apps act on, and nobody has given it.
func TestARedisThatRefusesUsIsNotTakenForAnEmptyOne(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Password("right"))
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), Password: "wrong"})
	t.Cleanup(func() { _ = rdb.Close() })
	store := newStore(rdb)
	ids := []string{"m1", "m2"}
	_, looks := store.Looks(t.Context(), ids)
	_, states := store.States(t.Context(), ids)
	created := store.CreateAll(t.Context(), []status.Record{newRecord("otp"), newRecord("otp")})
	_, get := store.Get(t.Context(), "m1")
	for what, errs := range map[string][]error{
		"Looks": looks, "States": states, "Get": {get}, "CreateAll": created,
	} {
		for i, err := range errs {
			if !status.IsUnreachable(err) {
				t.Errorf("%s: error %d = %v, want that Redis refused us", what, i, err)
			}
		}
	}
}
