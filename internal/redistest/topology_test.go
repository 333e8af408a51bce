package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestASentinelMakesAMasterOfTheReplica(t *testing.T) {
	t.Parallel()
	s := StartSentinel(t, Password("p@ss word"))
	s.SetPassword("sentinel's")
	c := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: masterName, SentinelAddrs: []string{s.Addr()}, SentinelPassword: "sentinel's", Password: "p@ss word",
	})
	defer c.Close()
	if err := c.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Sync()
	if got := s.Replica.Client().Get(t.Context(), "k").Val(); got != "v" {
		t.Errorf("the replica has %q after Sync, want v", got)
	}
	s.KillMaster()
	s.AwaitFailover()
	await(t, "the client to follow", func(ctx context.Context) bool { return c.Set(ctx, "k", "w", 0).Err() == nil })
	if got := s.Replica.Client().Get(t.Context(), "k").Val(); got != "w" {
		t.Errorf("the new master has %q, want w", got)
	}
}

func TestAClusterOutlivesANode(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, AOF())
	client := c.Client()
	for i := range 20 { // keys of all three nodes
		if err := client.Set(t.Context(), fmt.Sprint("k", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	node := c.NodeOf("k0")
	if n := node.Client().Exists(t.Context(), "k0").Val(); n != 1 {
		t.Error("NodeOf names a node that does not hold the key")
	}
	c.Kill(node)
	other := c.Nodes[0]
	if other == node {
		other = c.Nodes[1]
	}
	await(t, "the others to miss the node", func(ctx context.Context) bool {
		return strings.Contains(other.Client().ClusterInfo(ctx).Val(), "cluster_state:fail")
	})
	c.Restart(node)
	for i := range 20 {
		if got := client.Get(t.Context(), fmt.Sprint("k", i)).Val(); got != fmt.Sprint(i) {
			t.Errorf("k%d = %q after the restart, want %d", i, got, i)
		}
	}
}

func TestSetsOfServersAreGoneWhenTheirTestEnds(t *testing.T) {
	t.Parallel()
	var servers []*Server
	pids := map[int]bool{}
	t.Run("inner", func(t *testing.T) {
		s, c := StartSentinel(t), StartCluster(t)
		servers = append([]*Server{s.Master, s.Replica, s.server}, c.Nodes...)
		for _, server := range servers {
			pids[server.proc.cmd.Process.Pid] = true
		}
	})
	for pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("kill(%d, 0) = %v, want %v", pid, err, syscall.ESRCH)
		}
	}
	for _, s := range servers {
		for _, port := range []int{s.port, s.busPort} { // port 0 is always free
			l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				t.Errorf("port %d is not free: %v", port, err)
				continue
			}
			_ = l.Close()
		}
	}
}
