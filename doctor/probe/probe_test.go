package probe

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gatesync/gatesync/doctor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mountinfo = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
30 22 0:25 / /mnt rw - tmpfs tmp rw,size=1024k
41 22 0:44 / /mnt/with\040space rw,nosuid - nfs4 filer:/gw rw,vers=4.2,soft,timeo=10,retrans=2,local_lock=none
42 22 0:45 / /mnt/with\040space ro - nfs filer2:/gw rw,vers=3
43 41 0:46 / /mnt/with\040space/in rw - overlay overlay rw,lowerdir=/a:/b
nonsense
`

const mountstats = `device rootfs mounted on / with fstype ext4
device filer2:/gw mounted on /mnt/with\040space with fstype nfs statvers=1.1
	opts:	rw,vers=3
	age:	3600
	xprt:	tcp 0 0 3 0 10 900 900 0 900 0 2 0 0
	per-op statistics
	        NULL: 1 1 0 44 24 0 0 0 0
	     GETATTR: 99 104 2 100 100 5 90 200 0
	        READ: 100 100 0 100 100 5 90 1800 0
device proc mounted on /proc with fstype proc
`

// proc is a /proc for a test.
func proc(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestMounts(t *testing.T) {
	m := Machine{Proc: proc(t, map[string]string{"self/mountinfo": mountinfo, "self/mountstats": mountstats})}
	mounts, err := m.Mounts()
	if err != nil || len(mounts) != 5 {
		t.Fatalf("%+v, %v", mounts, err)
	}
	for path, want := range map[string]string{
		"/opt/gw": "/dev/vda", "/mnt": "tmp", "/mntx": "/dev/vda", "/mnt/with space": "filer2:/gw", "/mnt/with space/inx": "filer2:/gw", "/mnt/with space/in/x": "overlay",
	} {
		if got := mountOf(mounts, path); got.Source != want {
			t.Errorf("%s lies on %s, want %s", path, got.Source, want)
		}
	}
	over := mountOf(mounts, "/mnt/with space")
	if _, ro := over.Options["ro"]; !ro || over.Options["vers"] != "3" || !over.NFS() || !over.Network() {
		t.Errorf("%+v", over)
	}
	want := doctor.MountStats{Age: time.Hour, Calls: 200, Resent: 5, Timeouts: 2, Connections: 3, Wait: 10 * time.Millisecond}
	if over.Stats == nil || *over.Stats != want {
		t.Errorf("%+v, want %+v", over.Stats, want)
	}
	if got := inside(mounts, "/mnt/with space"); len(got) != 1 || got[0].Type != "overlay" {
		t.Errorf("inside: %+v", got)
	}
}

func TestLimits(t *testing.T) {
	m := Machine{Proc: proc(t, map[string]string{
		"sys/fs/inotify/max_user_watches": "8192\n", "sys/fs/inotify/max_user_instances": "128\n",
		"7/limits":    "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 unlimited            files\n",
		"self/limits": "Max open files            20                   30            files\n",
	})}
	if l := m.Limits(7); l.Watches != 8192 || l.Instances != 128 || l.Queued != 0 || l.OpenFiles != 1024 || l.OpenHard != 1<<40 || l.Of != "daemon" {
		t.Errorf("%+v", l)
	}
	if l := m.Limits(0); l.OpenFiles != 20 || l.Of != "shell" {
		t.Errorf("%+v", l)
	}
	if l := (Machine{}).Limits(0); l.OpenFiles < 1 || l.Watches < 1 {
		t.Errorf("this machine: %+v", l)
	}
}

func TestData(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o750), os.WriteFile(filepath.Join(dir, "key"), nil, 0o640), os.Chmod(filepath.Join(dir, "key"), 0o640)); err != nil {
		t.Fatal(err)
	}
	d := Machine{}.Data(dir, filepath.Join(dir, "key"), 5)
	if d.Err != "" || d.Mode != 0o750 || d.KeyMode != 0o640 || d.Free < 1 || d.Reserve != 5 || d.Mount.Type == "" || d.UID != uint32(os.Geteuid()) {
		t.Errorf("%+v", d)
	}
	if d := (Machine{}).Data(filepath.Join(dir, "none"), "", 5); d.Err == "" || d.Path == "" {
		t.Errorf("%+v", d)
	}
}

func judge(err error) func([]byte) error { return func([]byte) error { return err } }

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func TestVisit(t *testing.T) {
	root := filepath.Join(t.TempDir(), "tree")
	for _, d := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	v := Machine{}.Visit(Asked{Name: "server", Path: root, UID: uint32(os.Geteuid()), Judge: judge(nil)})
	x := v.Tree
	if x.Hung != "" || x.Err != "" || x.Dirs != 3 || x.DirsPart || x.Marker.There || !x.Beside || x.Real != root || x.Mount.Point == "" {
		t.Errorf("%+v", x)
	}
	for _, s := range x.Trial.Steps {
		if s.Err != "" {
			t.Errorf("%s: %s", s.Op, s.Err)
		}
	}
	if x.Trial.Owner != uint32(os.Geteuid()) || !x.Trial.Locks || !x.Trial.HasClock || x.Trial.Clock.Abs() > x.Trial.ClockErr+time.Second {
		t.Errorf("%+v", x.Trial)
	}
	if got := names(t, filepath.Join(root, ".gatesync")); len(got) != 1 || got[0] != v.Nonce {
		t.Errorf("under .gatesync stands %q, want %q", got, v.Nonce)
	}
	v.Close()
	if got := names(t, root); strings.Join(got, " ") != "a c" || v.Tree.Trial.Left != "" {
		t.Errorf("left behind: %q, %q", got, v.Tree.Trial.Left)
	}
}

// What belongs to others stays: the marker, another doctor's trial; not what
// one has left long ago.
func TestVisitLeavesOthersAlone(t *testing.T) {
	root := t.TempDir()
	inner := filepath.Join(root, ".gatesync")
	old := time.Now().Add(-2 * leftFor)
	if err := errors.Join(os.MkdirAll(filepath.Join(inner, "doctor-old", "x"), 0o755), os.Mkdir(filepath.Join(inner, "doctor-new"), 0o755),
		os.WriteFile(filepath.Join(inner, "marker.json"), []byte("{}"), 0o644), os.Chtimes(filepath.Join(inner, "doctor-old"), old, old)); err != nil {
		t.Fatal(err)
	}
	v := Machine{}.Visit(Asked{Path: root, Judge: judge(errors.New("another's"))})
	v.Close()
	if m := v.Tree.Marker; !m.There || m.Ours || m.Why != "another's" {
		t.Errorf("%+v", m)
	}
	if got := strings.Join(names(t, inner), " "); got != "doctor-new marker.json" {
		t.Errorf("there stands %q", got)
	}
}

func TestVisitOfWhatIsNotThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, file + "x"} {
		v := Machine{}.Visit(Asked{Path: path, Judge: judge(nil)})
		v.Close()
		if v.Tree.Err == "" || v.Tree.Trial != nil || v.Nonce != "" {
			t.Errorf("%s: %+v", path, v.Tree)
		}
	}
}

// A directory that does not answer is a fact after the limit, and nothing more
// is tried in it. Here an open hangs in a FIFO instead of in a dead mount.
func TestVisitOfWhatHangs(t *testing.T) {
	root := t.TempDir()
	fifo := filepath.Join(root, ".gatesync", "marker.json")
	if err := errors.Join(os.Mkdir(filepath.Dir(fifo), 0o755), unix.Mkfifo(fifo, 0o644)); err != nil {
		t.Fatal(err)
	}
	v := Machine{Limit: 100 * time.Millisecond}.Visit(Asked{Path: root, Judge: judge(nil)})
	if v.Tree.Hung != "reading its marker" || v.Tree.Trial != nil || v.Nonce != "" {
		t.Errorf("%+v", v.Tree)
	}
	v.Close()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // it wakes up
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
}
