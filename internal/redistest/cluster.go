package redistest

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

const (
	// clusterNodes is the least number that outlives one: a majority is left to
	// find that a node failed.
	clusterNodes = 3
	clusterSlots = 16384
)

// How long a node may be silent before the others give it up, in milliseconds. A
// busy machine makes a healthy node slow: only [Cluster.Kill] shortens it.
const (
	patientNodes   = "60000"
	impatientNodes = "500"
)

// Cluster is a Redis Cluster of three masters without replicas, which serves
// nothing while one of them is missing. Its methods end the test when they fail,
// so call them from the test's own goroutine only.
type Cluster struct {
	Nodes []*Server

	t testing.TB
}

// StartCluster runs three masters with the options, which share all slots, and
// returns once each of them finds the cluster whole.
func StartCluster(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	opts = append([]Option{Args("--cluster-node-timeout", patientNodes)}, opts...)
	for i := range clusterNodes {
		s := Start(t, append([]Option{func(s *Server) { s.busPort = freePort(t) }}, opts...)...)
		c.Nodes = append(c.Nodes, s)
		first, last := i*clusterSlots/clusterNodes, (i+1)*clusterSlots/clusterNodes-1
		if err := s.Client().Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", first, last).Err(); err != nil {
			t.Fatalf("give a node its slots: %v", err)
		}
	}
	first := c.Nodes[0].Client()
	for _, s := range c.Nodes[1:] {
		// The bus port is one that is free: the usual one, 10000 above the
		// node's, may be taken.
		if err := first.Do(t.Context(), "CLUSTER", "MEET", host, s.port, s.busPort).Err(); err != nil {
			t.Fatalf("introduce the nodes: %v", err)
		}
	}
	c.await()
	return c
}

// Kill ends a node at once, as a crash would, and returns. The others notice
// soon, and then serve nothing until [Cluster.Restart].
func (c *Cluster) Kill(node *Server) {
	c.t.Helper()
	c.setTimeout(impatientNodes)
	node.Stop()
}

// Restart starts a node again that was killed, and returns once every node finds
// the cluster whole, which takes some seconds. The node has its slots, and its
// data if it has [AOF].
func (c *Cluster) Restart(node *Server) {
	c.t.Helper()
	node.Restart()
	c.await()
	c.setTimeout(patientNodes)
}

func (c *Cluster) setTimeout(milliseconds string) {
	c.t.Helper()
	for _, s := range c.Nodes {
		if err := s.Client().ConfigSet(c.t.Context(), "cluster-node-timeout", milliseconds).Err(); err != nil {
			c.t.Fatalf("set a node's timeout: %v", err)
		}
	}
}

// await returns once every node finds the cluster whole.
func (c *Cluster) await() {
	c.t.Helper()
	known := "cluster_known_nodes:" + strconv.Itoa(clusterNodes)
	for _, s := range c.Nodes {
		node := s.Client()
		await(c.t, "the cluster to be whole", func(ctx context.Context) bool {
			info := node.ClusterInfo(ctx).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, known)
		})
	}
}

// Addrs returns the nodes' host:port.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, s := range c.Nodes {
		addrs = append(addrs, s.addr)
	}
	return addrs
}

// URL returns the redis-cluster:// URL that names all nodes.
func (c *Cluster) URL() string {
	return "redis-cluster://" + userinfo(c.Nodes[0].password) + strings.Join(c.Addrs(), ",")
}

// Client returns a new client of the cluster, closed when the test ends.
func (c *Cluster) Client() *redis.ClusterClient {
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs(), Password: c.Nodes[0].password, ContextTimeoutEnabled: true})
	c.t.Cleanup(func() { _ = client.Close() })
	return client
}

// NodeOf returns the node that holds the key.
func (c *Cluster) NodeOf(key string) *Server {
	c.t.Helper()
	slot, err := c.Client().ClusterKeySlot(c.t.Context(), key).Result()
	if err != nil {
		c.t.Fatalf("look for the slot of %s: %v", key, err)
	}
	for i, s := range c.Nodes {
		if int(slot) < (i+1)*clusterSlots/clusterNodes {
			return s
		}
	}
	c.t.Fatalf("slot %d is on no node", slot)
	return nil
}
