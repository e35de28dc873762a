package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A pusher that is killed, wherever it is: the target's files are the old ones
// or the new ones, and the next push brings what is missing and no more.
func TestPromise_NoTornFile_PusherKilled(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	old := some(60)
	for i := range 6 {
		old[fmt.Sprintf("big%d", i)] = noise(1 << 20)
	}
	files(t, b.src, old)
	b.must()
	rnd := rand.New(rand.NewPCG(1, 1))
	for round := range size(4, 40) {
		fresh := map[string]string{}
		for p, text := range old {
			fresh[p] = text + fmt.Sprint(round)
		}
		for i := range 6 {
			fresh[fmt.Sprintf("big%d", i)] = noise(2 << 20)
		}
		files(t, b.src, fresh)
		for kill := range 3 {
			cmd := b.command("--limit", "20MB/s")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			killed := time.AfterFunc(time.Duration(rnd.IntN(600))*time.Millisecond, func() {
				if kill%2 == 0 {
					_ = cmd.Process.Kill() // its ssh goes on, to the end of its input
				} else {
					_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the target as well
				}
			})
			_ = cmd.Wait()
			killed.Stop()
			for p, text := range fresh {
				if got, err := os.ReadFile(filepath.Join(b.dst, p)); err != nil || string(got) != text && string(got) != old[p] {
					t.Fatalf("%s is torn: %d bytes, %v", p, len(got), err)
				}
			}
		}
		b.settled()
		b.must()
		old = fresh
	}
}

// settled waits until no other session works at the target.
func (b *pushBed) settled() {
	b.t.Helper()
	eventually(b.t, 20*time.Second, "the target is free", func() error {
		_, a := b.push("--dry-run")
		if a.code != 0 && a.code != 3 {
			return fmt.Errorf("exit code %d: %s", a.code, a.stderr)
		}
		return nil
	})
}

// What arrived before a cut is not sent again, also of one large file.
func TestPushResumes(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	cut := false
	for range 5 { // a busy machine may look only when all has arrived
		files(t, b.src, map[string]string{"big": noise(8 << 20)})
		if cut = cutInTheMiddle(t, b); cut {
			break
		}
	}
	if !cut {
		t.Fatal("no push could be cut in the middle")
	}
	b.settled()
	if p := b.must(); p.wire() > 5<<20 {
		t.Fatalf("%d bytes were sent for the second half of 8 MB", p.wire())
	}
}

// cutInTheMiddle kills a push of 8 MB when half of it has arrived. It tells whether it
// came in time.
func cutInTheMiddle(t *testing.T, b *pushBed) bool {
	t.Helper()
	cmd := b.command("--limit", "3MB/s")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	half := func() bool {
		parts, err := filepath.Glob(filepath.Join(b.data, "partial", "*"))
		if err != nil || len(parts) == 0 {
			return false
		}
		st, err := os.Stat(parts[0])
		return err == nil && st.Size() >= 4<<20
	}
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("the push failed: %v", err)
			}
			return false
		case <-time.After(20 * time.Millisecond):
		}
		if half() {
			_ = cmd.Process.Kill()
			return <-ended != nil
		}
	}
}

// A target whose disk is full says so, changes nothing, and goes on where it
// was once there is room.
func TestPushToAFullDisk(t *testing.T) {
	t.Parallel()
	needRoot(t)
	b := newPushBed(t)
	disk := filepath.Join(filepath.Dir(b.dst), "disk")
	c := &cluster{t: t}
	t.Cleanup(func() {
		for _, undo := range c.undo {
			undo()
		}
	})
	c.mountTmpfs(disk, 24)
	b.dst, b.data = filepath.Join(disk, "dst"), filepath.Join(disk, "data")
	b.to = "ssh://there" + b.dst
	files(t, b.src, some(20))
	b.must()
	before := snapshotOf(t, b.dst)
	files(t, b.src, map[string]string{"a": noise(6 << 20), "b": noise(6 << 20), "c": noise(40 << 20), "d1/f1.xml": "<changed/>"})
	_, a := b.push()
	if a.code != 1 || !strings.Contains(a.stderr, "no room") {
		t.Fatalf("exit code %d: %s", a.code, a.stderr)
	}
	if now := snapshotOf(t, b.dst); now != before {
		t.Fatalf("the target was touched: %s", now)
	}
	// Full in the middle: something else takes the room.
	files(t, b.src, map[string]string{"c": ""})
	files(t, disk, map[string]string{"another": noise(9 << 20)})
	_, a = b.push()
	if a.code != 1 || !strings.Contains(a.stderr, "room") && !strings.Contains(a.stdout, "no space") {
		t.Fatalf("exit code %d: %s%s", a.code, a.stdout, a.stderr)
	}
	files(t, disk, map[string]string{"another": ""})
	if out, err := exec.Command("mount", "-o", "remount,size=64m", disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.must()
}

// A directory that the target may not write to costs what is in it, and
// nothing else.
func TestPushWithoutPermission(t *testing.T) {
	t.Parallel()
	needRoot(t, "util-linux:setpriv")
	b := newPushBed(t)
	b.asNobody()
	files(t, b.src, some(20))
	b.must()
	for dir, mode := range map[string]os.FileMode{"d1": 0o555, "d2": 0} {
		if err := os.Chmod(filepath.Join(b.dst, dir), mode); err != nil {
			t.Fatal(err)
		}
	}
	files(t, b.src, map[string]string{"d0/f0.xml": "<changed/>", "d1/f1.xml": "<changed/>", "d2/f2.xml": "<changed/>", "d3/new.xml": "<new/>"})
	for _, dir := range []string{"d1", "d2"} { // the same modes, so that these alone are no difference
		if err := os.Chmod(filepath.Join(b.src, dir), map[string]os.FileMode{"d1": 0o555, "d2": 0}[dir]); err != nil {
			t.Fatal(err)
		}
	}
	p, a := b.push()
	if failed := p.what("failed"); a.code != 1 || p.Changed < 1 || p.Added != 1 || len(failed) < 2 || !strings.Contains(a.stdout, "permission denied") {
		t.Fatalf("exit code %d: %+v\n%s", a.code, p, a.stderr)
	}
	for p, text := range map[string]string{"d0/f0.xml": "<changed/>", "d3/new.xml": "<new/>", "d1/f1.xml": some(2)["d1/f1.xml"]} {
		if err := stands(b.dst, p, text); err != nil {
			t.Error(err)
		}
	}
	for _, root := range []string{b.src, b.dst} {
		for _, dir := range []string{"d1", "d2"} {
			if err := os.Chmod(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.must()
}

// asNobody has the other end run as an ordinary user, who owns the target.
func (b *pushBed) asNobody() {
	b.t.Helper()
	const uid = 65534
	dir := filepath.Dir(b.dst)
	for d := dir; strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	home := filepath.Join(dir, "there")
	if err := os.Mkdir(home, 0o755); err != nil {
		b.t.Fatal(err)
	}
	binary := filepath.Join(home, "gatesync")
	b.dst, b.data = filepath.Join(home, "dst"), filepath.Join(home, "data")
	b.to = "ssh://there" + b.dst
	if out, err := exec.Command("cp", gatesync, binary).CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chown(home, uid, uid); err != nil {
		b.t.Fatal(err)
	}
	b.binary = binary
	stub := strings.Replace(sshStub, "exec sh", fmt.Sprintf("exec setpriv --reuid=%d --regid=%d --clear-groups sh", uid, uid), 1)
	writeScript(b.t, b.ssh, stub)
}

// A target whose clock is a year off is pushed to all the same: certificates
// are known by their fingerprint, and times are compared with nobody's.
// It is part of the test that builds a program whose clock can be stepped.
func pushToAClockYearsOff(t *testing.T, stepped string) {
	for _, step := range []time.Duration{-366 * 24 * time.Hour, 20 * 366 * 24 * time.Hour} {
		b := newPushBed(t)
		clock := filepath.Join(filepath.Dir(b.dst), "clock")
		files(t, b.src, some(10))
		if err := os.WriteFile(clock, []byte("0"), 0o644); err != nil {
			t.Fatal(err)
		}
		b.vars = []string{clockVar + "=" + clock}
		r := b.listenAs(stepped, "--tree", "server="+b.dst)
		b.must()
		if err := os.WriteFile(clock, fmt.Append(nil, int64(step.Seconds())), 0o644); err != nil {
			t.Fatal(err)
		}
		r.stop()
		b.listenAs(stepped, "--tree", "server="+b.dst)
		before, err := os.Stat(filepath.Join(b.dst, "d1/f1.xml"))
		if err != nil {
			t.Fatal(err)
		}
		files(t, b.src, map[string]string{"d1/f1.xml": "<changed/>", "d2/f2.xml": ""})
		b.must()
		after, err := os.Stat(filepath.Join(b.dst, "d1/f1.xml"))
		if err != nil || !after.ModTime().After(before.ModTime()) {
			t.Fatalf("a deployer would not see it: %v, then %v (%v)", before.ModTime(), after.ModTime(), err)
		}
	}
}

// A root that was emptied, or is not mounted, is not filled behind an
// operator's back.
func TestPromise_NoSurpriseDelete_PushToALostRoot(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	files(t, b.src, some(10))
	b.must()
	if err := os.Rename(b.dst, b.dst+".elsewhere"); err != nil {
		t.Fatal(err)
	}
	if _, a := b.push(); a.code != 1 {
		t.Fatalf("no root: exit code %d: %s", a.code, a.stderr)
	}
	if err := os.Mkdir(b.dst, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, a := b.push(); a.code != 1 || !strings.Contains(a.stderr, "--fresh-root") {
		t.Fatalf("an empty root: exit code %d: %s", a.code, a.stderr)
	}
	if names, err := filepath.Glob(filepath.Join(b.dst, "d*")); err != nil || len(names) > 0 {
		t.Fatalf("it was filled: %v %v", names, err)
	}
	b.must("--fresh-root")
	b.must()
}

// Ignored paths over there are neither written nor deleted.
func TestPushLeavesIgnoredPaths(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	files(t, b.src, some(10))
	files(t, b.src, map[string]string{"api/x.xml": "<x/>", "api/local.tmp": "not this one"})
	files(t, b.dst, map[string]string{"webapps/product.war": "shipped", "api/y.xml.back": "refused", "gone/deep/z.tmp": "z"})
	flags := []string{"--preset", "wso2", "--ignore", "*.tmp", "--delete=yes"}
	if p, a := b.push(flags...); a.code != 4 || !slices.Equal(p.what("held"), []string{"gone/deep"}) || len(p.what("failed")) > 0 { // the directory of an ignored file stays
		t.Fatalf("exit code %d: %+v %s", a.code, p, a.stderr)
	}
	for p, text := range map[string]string{"webapps/product.war": "shipped", "api/y.xml.back": "refused", "gone/deep/z.tmp": "z", "api/x.xml": "<x/>"} {
		if err := stands(b.dst, p, text); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(b.dst, "api/local.tmp")); err == nil {
		t.Error("an ignored file was written")
	}
}
