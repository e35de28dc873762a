package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// have tells whether a peer is installed, and says so where it is not.
func have(t testing.TB, program string) bool {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Logf("%s is not installed: not measured", program)
		return false
	}
	return true
}

// spawn starts a program that ends with the test and returns its process.
func spawn(t testing.TB, name string, args ...string) *os.Process {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	return cmd.Process
}

// rsyncDaemon serves directories as the modules m0, m1, … and returns their URLs.
func rsyncDaemon(t testing.TB, dirs ...string) (urls []string) {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := strings.Cut(addr, ":")
	conf := "use chroot = no\nreverse lookup = no\n"
	for i, d := range dirs {
		conf += fmt.Sprintf("[m%d]\npath = %s\nread only = no\nuid = %d\ngid = %d\n", i, d, os.Getuid(), os.Getgid())
		urls = append(urls, fmt.Sprintf("rsync://%s/m%d/", addr, i))
	}
	file := filepath.Join(t.TempDir(), "rsyncd.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	spawn(t, "rsync", "--daemon", "--no-detach", "--address=127.0.0.1", "--port="+port, "--config="+file)
	eventually(t, 10*time.Second, "the rsync daemon listens", func() error {
		return rsync(urls[0])
	})
	return urls
}

// rsync runs one transfer.
func rsync(args ...string) error {
	if out, err := exec.Command("rsync", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("rsync %q: %w\n%s", args, err, out)
	}
	return nil
}

// syncthings starts one Syncthing for each root, all sharing one folder, with
// the shortest delays that it takes and nothing but the loopback.
func syncthings(t testing.TB, roots ...string) (processes []*os.Process) {
	t.Helper()
	type peer struct{ home, id, addr string }
	peers := make([]peer, len(roots))
	var devices, members strings.Builder
	for i, root := range roots {
		home := t.TempDir()
		if out, err := exec.Command("syncthing", "generate", "--home="+home).CombinedOutput(); err != nil {
			t.Fatalf("syncthing generate: %v\n%s", err, out)
		}
		id, err := exec.Command("syncthing", "--home="+home, "--device-id").Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(root, ".stfolder"), 0o755); err != nil {
			t.Fatal(err)
		}
		p := peer{home, strings.TrimSpace(string(id)), freeAddr(t)}
		peers[i] = p
		fmt.Fprintf(&devices, `<device id=%q name="n%d"><address>tcp://%s</address></device>`+"\n", p.id, i, p.addr)
		fmt.Fprintf(&members, `<device id=%q></device>`+"\n", p.id)
	}
	for i, p := range peers {
		conf := fmt.Sprintf(`<configuration version="36">
<folder id="tree" path=%q type="sendreceive" rescanIntervalS="3600" fsWatcherEnabled="true" fsWatcherDelayS="1">
%s</folder>
%s<gui enabled="true"><address>%s</address><apikey>bench</apikey></gui>
<options><listenAddress>tcp://%s</listenAddress><globalAnnounceEnabled>false</globalAnnounceEnabled>
<localAnnounceEnabled>false</localAnnounceEnabled><relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled>
<reconnectionIntervalS>1</reconnectionIntervalS><urAccepted>-1</urAccepted><autoUpgradeIntervalH>0</autoUpgradeIntervalH>
<crashReportingEnabled>false</crashReportingEnabled></options>
</configuration>
`, roots[i], members.String(), devices.String(), freeAddr(t), p.addr)
		if err := os.WriteFile(filepath.Join(p.home, "config.xml"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		processes = append(processes, spawn(t, "syncthing", "serve", "--home="+p.home, "--no-browser", "--no-restart", "--no-upgrade", "--logfile="+filepath.Join(p.home, "log")))
	}
	return processes
}

// dirs makes empty directories on the disk that all programs are measured on.
func dirs(t testing.TB, count int) (roots []string) {
	t.Helper()
	base := t.TempDir()
	for i := range count {
		root := filepath.Join(base, fmt.Sprint("root", i))
		if err := os.MkdirAll(filepath.Join(root, "api"), 0o755); err != nil {
			t.Fatal(err)
		}
		roots = append(roots, root)
	}
	return roots
}
