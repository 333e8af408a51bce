package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// networks are the ways between the processes, each of which can be broken.
type networks struct {
	server *toxiproxy.ApiServer // for its settings: it never listens
	byName map[string]*toxiproxy.Proxy
}

func newNetworks() *networks {
	return &networks{
		server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()),
		byName: map[string]*toxiproxy.Proxy{},
	}
}

// open makes a way to the address and returns the address where it begins.
func (n *networks) open(t *testing.T, name, to string) string {
	t.Helper()
	// Not a port that kernels hand to clients: while the way is cut, one of them
	// would get it.
	const first, last, tries = 15000, 32000, 50
	var err error
	for range tries {
		addr := net.JoinHostPort("127.0.0.1", fmt.Sprint(first+rand.IntN(last-first)))
		p := toxiproxy.NewProxy(n.server, name, addr, to)
		if err = p.Start(); err == nil {
			n.byName[name] = p
			t.Cleanup(p.Stop)
			return addr
		}
	}
	t.Fatalf("open %s: %v", name, err)
	return ""
}

// toxics are toxiproxy's, by kind of trouble. Upstream is the way there. A timeout
// of zero lets nothing through and keeps the connection; when it is taken away, the
// connections it was on are closed.
var toxics = map[string][]string{
	"latency": {`{"type":"latency","stream":"downstream","attributes":{"latency":250,"jitter":240}}`},
	"hang": {
		`{"type":"timeout","stream":"upstream","attributes":{"timeout":0}}`,
		`{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`,
	},
	"mute":  {`{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`},
	"reset": {`{"type":"reset_peer","stream":"downstream","attributes":{"timeout":0}}`},
}

// upset begins a trouble.
func (n *networks) upset(t *testing.T, name, kind string) {
	t.Helper()
	p := n.byName[name]
	if kind == "cut" {
		p.Stop()
		return
	}
	for _, toxic := range toxics[kind] {
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			t.Fatalf("%s of %s: %v", kind, name, err)
		}
	}
}

// mend ends it.
func (n *networks) mend(t *testing.T, name, kind string) {
	t.Helper()
	p := n.byName[name]
	if kind != "cut" {
		p.Toxics.ResetToxics(context.Background())
		return
	}
	// Nobody but a client of ours can have taken the port, and that passes.
	waitFor(t, "the port of "+name, func() bool { return p.Start() == nil })
}
