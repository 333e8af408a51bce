package stage

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// CPU is how much CPU time a process has had, all its threads together. It is
// read from schedstat, which counts nanoseconds; /proc/PID/stat counts hundredths
// of a second. Threads that have ended are not in it: ours end with the process.
func CPU(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	var sum time.Duration
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has just ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(raw))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// hertz is the unit of /proc/stat; Linux shows 100 whatever it runs at.
const hertz = 100

// treeCPU is [CPU] of a process and its children, the ended ones too, to a
// hundredth of a second for those.
func treeCPU(pid int) (time.Duration, error) {
	sum, err := CPU(pid)
	if err != nil {
		return 0, err
	}
	own, err := procStat(pid)
	if err != nil {
		return 0, err
	}
	sum += own.ended
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(filepath.Base(e))
		if err != nil {
			continue
		}
		if s, err := procStat(child); err != nil || s.parent != pid {
			continue
		}
		if t, err := CPU(child); err == nil {
			sum += t
		}
	}
	return sum, nil
}

// stat is what is used of /proc/PID/stat.
type stat struct {
	parent int
	ended  time.Duration // of children that were waited for
}

func procStat(pid int) (stat, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The name may hold spaces and brackets: the fields begin after the last one.
	_, rest, ok := cutLast(string(raw), ")")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		return stat{}, fmt.Errorf("/proc/%d/stat is malformed", pid)
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return stat{}, err
	}
	user, err1 := strconv.Atoi(fields[13])
	system, err2 := strconv.Atoi(fields[14])
	if err1 != nil || err2 != nil {
		return stat{}, fmt.Errorf("/proc/%d/stat is malformed", pid)
	}
	return stat{parent, time.Duration(user+system) * time.Second / hertz}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// MachineBusy is how much CPU time the machine has given to anybody, and what its
// host took away. Interrupts are left out: most are our own packets on loopback.
func MachineBusy() (time.Duration, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal …
	if len(fields) < 9 {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	ticks := 0
	for _, i := range []int{1, 2, 3, 8} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / hertz, nil
}

// Memory is how much of a process is in memory now and was at its peak, in bytes.
func Memory(pid int) (now, peak float64, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "VmRSS" && name != "VmHWM" {
			continue
		}
		kb, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
		if err != nil {
			return 0, 0, err
		}
		if name == "VmRSS" {
			now = kb * 1024
		} else {
			peak = kb * 1024
		}
	}
	return now, peak, nil
}
