package stage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Redis is one or more redis-servers that hold no data at first.
type Redis struct {
	// URL is for the product and for go-redis.
	URL   string
	nodes []*node
}

// node is one redis-server.
type node struct {
	proc *Proc
	addr string
	rdb  *redis.Client
}

const host = "127.0.0.1"

// persistence is what the README asks of production, at the weaker of its two
// settings. Without rewrites: they come at different moments in each run.
var persistence = []string{"--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--auto-aof-rewrite-percentage", "0", "--maxmemory-policy", "noeviction"}

// startRedis starts one redis-server.
func startRedis(ctx context.Context, dir string) (*Redis, error) {
	n, err := startNode(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &Redis{URL: "redis://" + n.addr + "/0", nodes: []*node{n}}, nil
}

// bindTries bounds how often somebody else may take a port between our looking
// for a free one and a server's binding it.
const bindTries = 10

func startNode(ctx context.Context, dir string, args ...string) (n *node, err error) {
	for range bindTries {
		if n, err = tryNode(ctx, dir, args); !errors.Is(err, errOver) {
			break
		}
	}
	return n, err
}

func tryNode(ctx context.Context, dir string, args []string) (*node, error) {
	data, err := os.MkdirTemp(dir, "redis-*")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, err
	}
	argv := append([]string{binary, "--bind", host, "--port", strconv.Itoa(port), "--dir", data, "--daemonize", "no"}, persistence...)
	p, err := start(command{name: "redis", dir: dir, argv: append(argv, args...)})
	if err != nil {
		return nil, err
	}
	n := &node{proc: p, addr: net.JoinHostPort(host, strconv.Itoa(port))}
	n.rdb = redis.NewClient(&redis.Options{Addr: n.addr, PoolSize: 1, MaxRetries: -1, ContextTimeoutEnabled: true})
	err = eventually(ctx, "redis-server", func(ctx context.Context) error { return p.alive(n.ping(ctx)) })
	if err != nil {
		n.stop()
		return nil, err
	}
	return n, nil
}

// ping fails when it is another's server that answers.
func (n *node) ping(ctx context.Context) error {
	info, err := n.info(ctx)
	if err == nil && info["process_id"] != strconv.Itoa(n.proc.PID()) {
		err = errors.New("somebody else's redis-server answers")
	}
	return err
}

func (n *node) stop() {
	_ = n.rdb.Close()
	n.proc.Kill() // what it holds is not needed any more
}

// info is all that INFO says, by name.
func (n *node) info(ctx context.Context) (map[string]string, error) {
	text, err := n.rdb.Info(ctx, "server", "clients", "memory", "stats").Result()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			out[name] = value
		}
	}
	return out, nil
}

// PIDs are the ids of the servers.
func (r *Redis) PIDs() []int {
	var out []int
	for _, n := range r.nodes {
		out = append(out, n.proc.PID())
	}
	return out
}

// Usage is what Redis has done and holds, all nodes together.
type Usage struct {
	Commands float64 // those inside scripts too
	Reads    float64 // from sockets: round trips, or less where clients pipeline
	In, Out  float64 // bytes
	Memory   float64 // bytes of data: without clients' and the log's buffers
}

// newSince7 is a part of the memory that Redis 6 does not name.
const newSince7 = "mem_cluster_links"

// Usage asks each node. The asking itself is in the next answer: two commands.
func (r *Redis) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	for _, n := range r.nodes {
		info, err := n.info(ctx)
		if err != nil {
			return u, err
		}
		number := func(name string) float64 {
			f, parseErr := strconv.ParseFloat(info[name], 64)
			if parseErr != nil && name != newSince7 {
				err = fmt.Errorf("INFO has no %s", name)
			}
			return f
		}
		u.Commands += number("total_commands_processed")
		u.Reads += number("total_reads_processed")
		u.In += number("total_net_input_bytes")
		u.Out += number("total_net_output_bytes")
		u.Memory += number("used_memory") - number("mem_clients_normal") - number("mem_aof_buffer") - number(newSince7)
		if err != nil {
			return u, err
		}
	}
	return u, nil
}

// Sub is what was done between two readings; Memory is the growth.
func (u Usage) Sub(v Usage) Usage {
	return Usage{u.Commands - v.Commands, u.Reads - v.Reads, u.In - v.In, u.Out - v.Out, u.Memory - v.Memory}
}

// Stop ends all nodes.
func (r *Redis) Stop() {
	if r == nil {
		return
	}
	for _, n := range r.nodes {
		n.stop()
	}
}

// clusterMasters is the smallest cluster that Redis itself recommends.
const clusterMasters = 3

// startCluster starts masters that share all slots.
func startCluster(ctx context.Context, dir string) (*Redis, error) {
	r := &Redis{}
	var hosts []string
	for range clusterMasters {
		// The bus port is given, because the default is ours plus 10,000.
		bus, err := freePort()
		if err != nil {
			return nil, err
		}
		n, err := startNode(ctx, dir, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus))
		if err != nil {
			r.Stop()
			return nil, err
		}
		r.nodes = append(r.nodes, n)
		hosts = append(hosts, n.addr)
		if err := r.join(ctx, n, bus); err != nil {
			r.Stop()
			return nil, err
		}
	}
	r.URL = "redis-cluster://" + strings.Join(hosts, ",")
	err := eventually(ctx, "the cluster", func(ctx context.Context) error {
		for _, n := range r.nodes {
			state, err := n.rdb.ClusterInfo(ctx).Result()
			if err != nil {
				return err
			}
			if !strings.Contains(state, "cluster_state:ok") || !strings.Contains(state, "cluster_known_nodes:"+strconv.Itoa(clusterMasters)) {
				return errors.New("it is not whole yet")
			}
		}
		return nil
	})
	if err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

// join gives the newest node its share of the slots and makes it known.
func (r *Redis) join(ctx context.Context, n *node, bus int) error {
	const slots = 16384
	i := len(r.nodes) - 1
	if err := n.rdb.ClusterAddSlotsRange(ctx, i*slots/clusterMasters, (i+1)*slots/clusterMasters-1).Err(); err != nil {
		return err
	}
	if i == 0 {
		return nil
	}
	_, port, err := net.SplitHostPort(n.addr)
	if err != nil {
		return err
	}
	return r.nodes[0].rdb.Do(ctx, "CLUSTER", "MEET", host, port, bus).Err()
}

// freePort returns a port that nobody listened on a moment ago, below those that
// the kernel hands to clients.
func freePort() (int, error) {
	const first, last = 15000, 32000
	var err error
	for range bindTries {
		port := first + rand.IntN(last-first)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			_ = l.Close() // it took no connection
			return port, nil
		}
	}
	return 0, fmt.Errorf("look for a free port: %w", err)
}

// settleTime is how long after the last answer a store may still be told of it.
const settleTime = 100 * time.Millisecond
