package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
)

// goModules and npmPackages are those whose versions the page names.
var (
	goModules = []string{
		"github.com/hibiken/asynq", "github.com/redis/go-redis/v9", "github.com/nats-io/nats-server/v2", "github.com/nats-io/nats.go",
		"github.com/riverqueue/river", "github.com/jackc/pgx/v5",
	}
	npmPackages = []string{"bullmq", "ioredis", "undici"}
)

// machine says where the figures come from.
func machine(ctx context.Context, p stage.Programs) report.Machine {
	m := report.Machine{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Memory: gigabytes(field("/proc/meminfo", "MemTotal")),
		System: strings.TrimSpace(runtime.GOOS + " " + first("/proc/sys/kernel/osrelease")),
		Versions: []string{
			"Go " + strings.TrimPrefix(runtime.Version(), "go"),
			"Redis " + number(stage.Version(ctx, "redis-server", "--version")), "Node.js " + number(stage.Version(ctx, p.Node, "--version")),
		},
	}
	if postgres, err := stage.PostgresBinary("postgres"); err == nil {
		m.Versions = append(m.Versions, "PostgreSQL "+number(stage.Version(ctx, postgres, "--version")))
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if slices.Contains(goModules, dep.Path) {
				m.Versions = append(m.Versions, dep.Path+" "+dep.Version)
			}
		}
	}
	for _, name := range npmPackages {
		m.Versions = append(m.Versions, name+" "+npmVersion(filepath.Join(filepath.Dir(p.BullMQ), "node_modules", name, "package.json")))
	}
	return m
}

// number is the first thing in a text that looks like a version.
func number(text string) string {
	if found := versionPattern.FindString(text); found != "" {
		return found
	}
	return text
}

var versionPattern = regexp.MustCompile(`\d+(\.\d+)+`)

// gigabytes rounds what /proc/meminfo says.
func gigabytes(kilobytes string) string {
	kb, err := strconv.Atoi(strings.TrimSuffix(kilobytes, " kB"))
	if err != nil {
		return kilobytes
	}
	return fmt.Sprintf("%d GB", (kb+500_000)/1_000_000)
}

func npmVersion(file string) string {
	var p struct {
		Version string `json:"version"`
	}
	raw, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		return "unknown"
	}
	return p.Version
}

// field is the first value of that name in a file of /proc.
func field(file, name string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(raw)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// first is the first line of a file.
func first(file string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return fmt.Sprint("unknown: ", err)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	return line
}
