package nfs

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What tells the host's half of the tests from the guest's: the environment.
const (
	inGuest  = "GATESYNC_NFS_GUEST" // set: this process runs in the guest
	mustBoot = "GATESYNC_NFS_MUST"  // set: a host that cannot boot a guest fails, and does not skip
)

// absent says why no guest can be booted here, so that each test can skip by
// its name. TestMain sets it, once.
var absent error

// TestMain is two programs. In the guest it runs the tests. On the host it
// boots a guest for each test that was asked for, and passes on what it says:
// to `go test` it looks as if they had run here.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(inGuest) != "" || flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	if absent = missingTools(); absent != nil && os.Getenv(mustBoot) == "" {
		os.Exit(m.Run())
	}
	code, err := bootAll(os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "NFS test bed:", err)
		code = 1
	}
	os.Exit(code)
}

// bootAll runs each test in a guest of its own, one at a time on each processor
// that this process may use: a guest has one, is several times faster where it stays
// on it, and is never idle.
func bootAll(w io.Writer) (code int, err error) {
	if absent != nil {
		return 0, absent
	}
	machine, err := openMachine()
	if err != nil {
		return 0, err
	}
	programs, err := os.MkdirTemp("", "gatesync-nfs-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(programs)
	if err := compile(programs); err != nil {
		return 0, err
	}
	library, err := makeLibrary(programs)
	if err != nil {
		return 0, err
	}
	tests, within, err := chosen(filepath.Join(programs, "nfs.test"))
	if err != nil {
		return 0, err
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, err
	}
	todo := make(chan string, len(tests))
	for _, t := range tests {
		todo <- t
	}
	close(todo)
	var said sync.Mutex // one guest's words at a time
	var all sync.WaitGroup
	for _, cpu := range places(set) {
		test, more := <-todo // few tests do not meet on one processor
		all.Go(func() {
			for ; more; test, more = <-todo {
				b := boot{machine: machine, library: library, programs: programs, cpu: cpu, test: test, within: within}
				out, passed := b.run()
				said.Lock()
				if !passed {
					code = 1
				}
				_, _ = w.Write(out)
				said.Unlock()
			}
		})
	}
	all.Wait()
	if code == 0 {
		fmt.Fprintln(w, "PASS")
	} else {
		fmt.Fprintln(w, "FAIL")
	}
	return code, nil
}

// places are the processors on which guests may run.
func places(set unix.CPUSet) (cpus []int) {
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// compile makes the programs that run in the guest. They are static, and plain
// even where the tests of the host have the race detector: the guest's
// processor is too slow for it.
func compile(dir string) error {
	for _, args := range [][]string{
		{"build", "-trimpath", "-buildvcs=false", "-tags", "hashicorpmetrics", "-o", filepath.Join(dir, "gatesync"), "../../cmd/gatesync"},
		{"test", "-c", "-trimpath", "-tags", "hashicorpmetrics", "-o", filepath.Join(dir, "nfs.test"), "."},
	} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// chosen lists the tests and benchmarks that -run, -bench and -skip ask for,
// and what -run (or -bench) says about subtests.
func chosen(program string) (tests []string, within string, err error) {
	top, within, _ := strings.Cut(flag.Lookup("test.run").Value.String(), "/")
	bench, benches, _ := strings.Cut(flag.Lookup("test.bench").Value.String(), "/")
	within = cmp.Or(within, benches)
	skip := flag.Lookup("test.skip").Value.String()
	var patterns [3]*regexp.Regexp
	for i, p := range []string{top, skip, bench} {
		if patterns[i], err = regexp.Compile(p); err != nil {
			return nil, "", err
		}
	}
	cmd := exec.Command(program, "-test.list", ".")
	out, err := cmd.Output()
	if err != nil {
		return nil, "", fmt.Errorf("listing the tests: %w", err)
	}
	for _, name := range strings.Fields(string(out)) {
		asked := strings.HasPrefix(name, "Test") && patterns[0].MatchString(name) ||
			isBenchmark(name) && bench != "" && patterns[2].MatchString(name)
		if asked && (skip == "" || !patterns[1].MatchString(name)) {
			tests = append(tests, name)
		}
	}
	return tests, within, nil
}

func isBenchmark(name string) bool { return strings.HasPrefix(name, "Benchmark") }

// boot is one guest that runs one test, or one benchmark once.
type boot struct {
	machine  *machine
	library  string // for linux.uml, see uml/xstate.c and uml/clock.c
	programs string
	cpu      int
	test     string
	within   string // of its subtests, which; "": all
}

// limit is how long a guest's test has, by the host's clock, which may be busy with
// much else; then the guest is killed.
func (b *boot) limit() time.Duration {
	if isBenchmark(b.test) {
		return 30 * time.Minute
	}
	return size(20*time.Minute, 30*time.Minute)
}

// timeout is the same by the guest's own clock, which skips what need not be waited
// for: one that hangs comes to it soon, and says where.
func (b *boot) timeout() string {
	if isBenchmark(b.test) {
		return "90m"
	}
	return size("30m", "90m")
}

// run boots, and returns what the test has said and whether it has passed.
func (b *boot) run() (output []byte, passed bool) {
	start := time.Now()
	work, err := os.MkdirTemp("", "gatesync-nfs-boot-")
	if err != nil {
		return b.failed(nil, start, err), false
	}
	defer os.RemoveAll(work)
	if err := b.tell(work); err != nil {
		return b.failed(nil, start, err), false
	}
	err = b.boot(work)
	output, _ = os.ReadFile(filepath.Join(work, "output"))
	status, _ := os.ReadFile(filepath.Join(work, "status"))
	if len(status) == 0 {
		console, _ := os.ReadFile(filepath.Join(work, "console"))
		kernel, _ := os.ReadFile(filepath.Join(work, "kernel"))
		return b.failed(output, start, fmt.Errorf("the guest died (%v); it said last:\n%s%s", err, tail(console), tail(kernel))), false
	}
	return verdictless(output), strings.TrimSpace(string(status)) == "0"
}

// tell writes what the guest shall do.
func (b *boot) tell(work string) error {
	pattern := "^" + b.test + "$"
	if b.within != "" {
		pattern += "/" + b.within
	}
	args := []string{"-test.run=" + pattern, "-test.timeout=" + b.timeout()}
	if isBenchmark(b.test) {
		args = []string{"-test.run=^$", "-test.bench=" + pattern, "-test.benchtime=1x", "-test.timeout=" + b.timeout()}
	}
	for _, name := range []string{"test.v", "test.short", "test.count", "test.failfast"} {
		args = append(args, "-"+name+"="+flag.Lookup(name).Value.String())
	}
	script := "export GOMAXPROCS=1 " + inGuest + "=1"
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "GATESYNC_") {
			script += " " + quoted(v)
		}
	}
	script += "\ncd /tmp && exec /programs/nfs.test"
	for _, a := range args {
		script += " " + quoted(a)
	}
	return os.WriteFile(filepath.Join(work, "run"), []byte(script+"\n"), 0o644)
}

func quoted(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// boot runs the guest until it turns itself off.
func (b *boot) boot(work string) error {
	kernel, err := os.Create(filepath.Join(work, "kernel"))
	if err != nil {
		return err
	}
	defer kernel.Close()
	memory := "1G"
	if isBenchmark(b.test) { // more nodes, more content: the guest's disks lie in its memory
		memory = "3G"
	}
	cmd := exec.Command("taskset", "-c", fmt.Sprint(b.cpu), "linux.uml", "mem="+memory, "root=none", "rootfstype=hostfs", "rootflags="+b.machine.root, "ro",
		"init=/init", "con=null", "con0=null,fd:1", "quiet", "umid="+filepath.Base(work), "uml_dir="+b.machine.run, "programs="+b.programs, "work="+work)
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+b.library)
	if st := (unix.Statfs_t{}); unix.Statfs("/dev/shm", &st) == nil {
		cmd.Env = append(cmd.Env, "TMPDIR=/dev/shm") // the guest's memory is a file
	}
	cmd.Stdout, cmd.Stderr = kernel, kernel
	// UML is many processes; they are one group, and go together.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	end := func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	dismiss, err := guard(cmd.Process.Pid)
	if err != nil {
		end()
		return errors.Join(err, cmd.Wait())
	}
	defer dismiss()
	overdue := time.AfterFunc(b.limit()+30*time.Second, end)
	defer overdue.Stop()
	err = cmd.Wait()
	end() // of what a guest that died has left
	return err
}

// guard starts a process that kills a group of processes when this one dies,
// however that happens: a guest whose first process alone was killed goes on
// and takes a processor. dismiss ends the guard.
func guard(group int) (dismiss func(), err error) {
	cmd := exec.Command("sh", "-c", `cat; kill -9 "-$1"`, "sh", fmt.Sprint(group))
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	alive, err := cmd.StdinPipe() // held by this process alone
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = alive.Close()
		_ = cmd.Wait()
	}, nil
}

// failed is the output of a test that could not say itself that it failed.
func (b *boot) failed(output []byte, start time.Time, err error) []byte {
	mark := ""
	if flag.Lookup("test.v").Value.String() == "test2json" {
		mark = "\x16" // how the testing package marks its own lines for test2json
	}
	var w bytes.Buffer
	if len(output) == 0 {
		fmt.Fprintf(&w, "%s=== RUN   %s\n", mark, b.test)
	}
	w.Write(verdictless(output))
	fmt.Fprintf(&w, "\n%v\n%s--- FAIL: %s (%.2fs)\n", err, mark, b.test, time.Since(start).Seconds())
	return w.Bytes()
}

// verdictless leaves out the last word of each guest's test program: the
// package's verdict is about all of them.
func verdictless(output []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(output) {
		switch strings.TrimLeft(strings.TrimSpace(string(line)), "\x16") {
		case "PASS", "FAIL":
			continue
		}
		kept = append(kept, line...)
	}
	return kept
}

// tail is the end of a log.
func tail(log []byte) []byte {
	const most = 6000
	return log[max(0, len(log)-most):]
}
