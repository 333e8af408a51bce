package stage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// Postgres is a database cluster of its own, with the server's defaults.
type Postgres struct {
	URL  string
	proc *Proc
}

// PostgresBinary finds a program of PostgreSQL. Debian keeps the server's out of
// PATH, one folder a version.
func PostgresBinary(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("%s is not installed", name)
	}
	slices.SortFunc(found, func(a, b string) int { return len(a) - len(b) }) // 9.6 before 15
	return found[len(found)-1], nil
}

// startPostgres makes a cluster in dir and runs it. PostgreSQL refuses to run as
// root, who has to have a user called postgres for it, or nobody.
func startPostgres(ctx context.Context, dir string) (*Postgres, error) {
	initdb, err := PostgresBinary("initdb")
	if err != nil {
		return nil, err
	}
	binary, err := PostgresBinary("postgres")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "postgres")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	as, err := notRoot()
	if err != nil {
		return nil, err
	}
	if as != nil {
		if err := errors.Join(os.Chown(data, int(as.Uid), int(as.Gid)), os.Chmod(dir, 0o711)); err != nil { //nolint:gosec // to pass through, not to read
			return nil, err
		}
	}
	makeIt := exec.CommandContext(ctx, initdb, "-D", data, "-U", "bench", "--auth=trust", "--no-instructions")
	makeIt.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	makeIt.Dir = "/"
	if out, err := makeIt.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p, err := start(command{name: "postgres", dir: dir, credential: as, argv: []string{
		binary, "-D", data, "-c", "listen_addresses=" + host, "-c", "port=" + strconv.Itoa(port), "-c", "unix_socket_directories=",
	}})
	if err != nil {
		return nil, err
	}
	pg := &Postgres{proc: p, URL: "postgres://bench@" + net.JoinHostPort(host, strconv.Itoa(port)) + "/postgres?sslmode=disable"}
	err = eventually(ctx, "postgres", func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, pg.URL)
		if err == nil {
			err = conn.Close(ctx)
		}
		return p.alive(err)
	})
	if err != nil {
		pg.Stop()
		return nil, err
	}
	return pg, nil
}

// notRoot is whom to run as instead of root; nil when we are not root.
func notRoot() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nil is whom [syscall.SysProcAttr] takes for ourselves
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// Stop ends the server, and with it all its processes.
func (p *Postgres) Stop() {
	if p == nil {
		return
	}
	_ = p.proc.stdin.Close()
	// A fast shutdown; after SIGTERM it would wait for its clients to leave, and
	// after SIGKILL its children would stay.
	_ = p.proc.cmd.Process.Signal(syscall.SIGINT)
	p.proc.wait(stopPatience)
}

// Version is what a program says of itself.
func Version(ctx context.Context, argv ...string) string {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
