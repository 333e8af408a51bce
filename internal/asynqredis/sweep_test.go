package asynqredis

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
)

// attic is a Redis with tasks in asynq's archive.
type attic struct {
	t     *testing.T
	rdb   *redis.Client
	queue *asynq.Inspector
}

func newAttic(t *testing.T, count int) attic {
	t.Helper()
	a := attic{t: t, rdb: redistest.Start(t).Client()}
	a.queue = asynq.NewInspectorFromRedisClient(a.rdb)
	for i := range count {
		id := fmt.Sprintf("%03d", i)
		enqueue(t, a.rdb, "task "+id, asynq.TaskID(id))
		if err := a.queue.ArchiveTask("default", id); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func (a attic) list(skip, count int) []Archived {
	a.t.Helper()
	list, err := ListArchived(a.t.Context(), a.rdb, "default", skip, count)
	if err != nil {
		a.t.Fatal(err)
	}
	return list
}

func (a attic) drop(e Archived) {
	a.t.Helper()
	if err := e.Drop(a.t.Context(), a.rdb); err != nil {
		a.t.Fatal(err)
	}
}

func (a attic) keys() []string {
	a.t.Helper()
	keys, err := a.rdb.Keys(a.t.Context(), "asynq:{default}:t:*").Result()
	if err != nil {
		a.t.Fatal(err)
	}
	return keys
}

func TestTheArchiveIsListedPageByPage(t *testing.T) {
	t.Parallel()
	a := newAttic(t, 25)
	if err := a.rdb.ZAdd(t.Context(), "asynq:{default}:archived", redis.Z{Score: 1, Member: "ghost"}).Err(); err != nil {
		t.Fatal(err)
	}
	var ids, want []string
	for skip := 0; skip < 30; skip += 10 {
		page := a.list(skip, 10)
		if len(page) > 10 {
			t.Errorf("ListArchived() of 10 = %d entries", len(page))
		}
		for _, e := range page {
			ids = append(ids, e.ID)
			if e.ID == "ghost" {
				if len(e.Message) > 0 || !e.At.Equal(time.Unix(1, 0)) {
					t.Errorf("an id without a task = %+v", e)
				}
				continue
			}
			info, err := Decode(e.Message)
			if err != nil || info.Type != "task "+e.ID || time.Since(e.At) > time.Minute {
				t.Errorf("entry %s of %s = %+v, %v", e.ID, e.At, info, err)
			}
		}
	}
	want = append(want, "ghost")
	for i := range 25 {
		want = append(want, fmt.Sprintf("%03d", i))
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("ids, the oldest first (-want +got):\n%s", diff)
	}
}

func TestWhatIsDroppedIsGone(t *testing.T) {
	t.Parallel()
	a := newAttic(t, 2)
	if err := a.rdb.ZAdd(t.Context(), "asynq:{default}:archived", redis.Z{Score: 1, Member: "ghost"}).Err(); err != nil {
		t.Fatal(err)
	}
	for _, e := range a.list(0, 10) {
		a.drop(e)
		a.drop(e)
	}
	if list, keys := a.list(0, 10), a.keys(); len(list) > 0 || len(keys) > 0 {
		t.Errorf("left in the archive: %v; tasks: %q; want nothing", list, keys)
	}
}

func TestATaskThatWasBroughtBackIsNotDropped(t *testing.T) {
	t.Parallel()
	a := newAttic(t, 2)
	list := a.list(0, 10)
	if err := a.queue.RunTask("default", "000"); err != nil {
		t.Fatal(err)
	}
	a.drop(list[0])
	// Back in the archive by a mistake of somebody's, and waiting all the same.
	if err := a.queue.RunTask("default", "001"); err != nil {
		t.Fatal(err)
	}
	if err := a.rdb.ZAdd(t.Context(), "asynq:{default}:archived", redis.Z{Score: 1, Member: "001"}).Err(); err != nil {
		t.Fatal(err)
	}
	a.drop(list[1])
	got := make(chan string, 2)
	serve(t, a.rdb, func(_ context.Context, task *asynq.Task) error { got <- task.Type(); return nil })
	for range 2 {
		select {
		case <-got:
		case <-time.After(30 * time.Second):
			t.Fatal("a task that was brought back does not run")
		}
	}
	if list := a.list(0, 10); len(list) > 0 {
		t.Errorf("left in the archive: %v", list)
	}
}

// What asynq's archive script leaves when it breaks in the middle.
func TestWhatOnlySaysThatItIsActiveIsDropped(t *testing.T) {
	t.Parallel()
	a := newAttic(t, 2)
	held := "000"
	for _, id := range []string{held, "001"} {
		if err := a.rdb.HSet(t.Context(), "asynq:{default}:t:"+id, "state", "active").Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.rdb.LPush(t.Context(), "asynq:{default}:active", held).Err(); err != nil {
		t.Fatal(err)
	}
	for _, e := range a.list(0, 10) {
		a.drop(e)
	}
	if diff := cmp.Diff([]string{"asynq:{default}:t:" + held}, a.keys()); diff != "" {
		t.Errorf("tasks left (-want +got):\n%s", diff)
	}
}

func TestTheHookLeavesTheSweepAlone(t *testing.T) {
	t.Parallel()
	rdb, s := mended(t)
	list, err := ListArchived(t.Context(), rdb, "default", 0, 10)
	if err != nil || len(list) > 0 {
		t.Errorf("ListArchived() of nothing = %v, %v", list, err)
	}
	if err := (Archived{Queue: "default", ID: "x"}).Drop(t.Context(), rdb); err != nil {
		t.Error(err)
	}
	for _, cmd := range s.commands() {
		if k := recognise(cmd); k != other {
			t.Errorf("%v is taken for asynq's own script of kind %v", cmd.Args()[:1], k)
		}
	}
}
