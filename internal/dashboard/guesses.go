package dashboard

import (
	"context"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	// guessSlots is how many addresses are told apart; others share. Its memory is
	// the same whoever comes.
	guessSlots = 1024
	// freeGuesses is how often one may mistype.
	freeGuesses = 5
	// maxLock is the longest that an address has to wait.
	maxLock = time.Minute
	// forgetAfter is when a slot starts anew.
	forgetAfter = 15 * time.Minute
	// guessDelay follows a wrong password.
	guessDelay = 300 * time.Millisecond
	// guessesAtOnce bounds the hashes that are computed at a time, for all together:
	// each keeps a core busy.
	guessesAtOnce = 2
	// guessesWaiting bounds the requests that are held for it.
	guessesWaiting = 64
)

// guesses slows down who tries passwords. The zero value is ready. Those whose
// password is remembered do not come here, so nobody can lock them out.
type guesses struct {
	mu      sync.Mutex
	seed    maphash.Seed
	slots   [guessSlots]guessSlot
	waiting int
	turns   chan struct{}
}

type guessSlot struct {
	wrong int // in a row
	last  time.Time
}

// begin waits for its turn to check a password of the address. Call done with what
// came of it: after a wrong one it returns only after a moment. When the
// address has to wait first, done is nil.
func (g *guesses) begin(remote string, now time.Time) (done func(ctx context.Context, right bool, now time.Time), wait time.Duration) {
	g.mu.Lock()
	if g.turns == nil {
		g.seed, g.turns = maphash.MakeSeed(), make(chan struct{}, guessesAtOnce)
	}
	slot := &g.slots[maphash.String(g.seed, network(remote))%guessSlots]
	if now.Sub(slot.last) > forgetAfter {
		slot.wrong = 0
	}
	if slot.wrong >= freeGuesses {
		wait = slot.last.Add(min(time.Second<<min(slot.wrong-freeGuesses, 10), maxLock)).Sub(now)
	}
	if g.waiting >= guessesWaiting {
		wait = max(wait, time.Second)
	}
	if wait > 0 {
		g.mu.Unlock()
		return nil, wait
	}
	g.waiting++
	// Counted before it is checked, so that guesses at the same time count too.
	slot.wrong++
	slot.last = now
	g.mu.Unlock()

	g.turns <- struct{}{}
	return func(ctx context.Context, right bool, now time.Time) {
		<-g.turns
		if !right {
			timer := time.NewTimer(guessDelay)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.waiting--
		slot.last = now
		if right {
			slot.wrong = 0
		}
	}, 0
}

// network is what guesses are counted for: an address, or the part of an IPv6 one
// that a person cannot choose.
func network(remote string) string {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	addr := from.Addr().Unmap()
	if addr.Is6() {
		if prefix, err := addr.Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return addr.String()
}
