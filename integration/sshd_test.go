package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sshd starts Debian's sshd on the loopback, with keys, a configuration and a
// port of its own, as an ordinary user, and has the bed use the real ssh. As
// root that user exists in a mount namespace only.
func (b *pushBed) sshd() {
	t := b.t
	t.Helper()
	const binary = "/usr/sbin/sshd"
	for _, p := range []string{binary, "/usr/bin/ssh", "/usr/bin/ssh-keygen"} {
		if _, err := os.Stat(p); err != nil {
			t.Skipf("needs %s: apt-get install openssh-server openssh-client", p)
		}
	}
	dir := filepath.Join(filepath.Dir(b.dst), "ssh.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, k)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	_, port, _ := strings.Cut(freeAddr(t), ":")
	conf := fmt.Sprintf(`ListenAddress 127.0.0.1
Port %s
HostKey %s/host
AuthorizedKeysFile %s/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
`, port, dir, dir)
	host, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	client := fmt.Sprintf("Host gateway9\n HostName 127.0.0.1\n Port %s\n IdentityFile %s/user\n IdentitiesOnly yes\n UserKnownHostsFile %s/known\n BatchMode yes\n", port, dir, dir)
	for name, text := range map[string]string{
		"sshd_config": conf, "ssh_config": client, "known": fmt.Sprintf("[127.0.0.1]:%s %s", port, host),
	} {
		write(t, dir, name, text)
	}
	line := []string{binary, "-D", "-e", "-f", filepath.Join(dir, "sshd_config")}
	user := ""
	if os.Getuid() == 0 {
		needRoot(t, "util-linux:setpriv", "util-linux:unshare")
		b.asNobody()
		const uid = 65534
		user = "gateway"
		passwd, err := os.ReadFile("/etc/passwd")
		if err != nil {
			t.Fatal(err)
		}
		home := filepath.Dir(b.dst)
		text := fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", user, uid, uid, home)
		for l := range strings.Lines(string(passwd)) {
			if !strings.Contains(l, fmt.Sprintf(":%d:", uid)) {
				text += l
			}
		}
		write(t, dir, "passwd", text)
		for _, f := range []string{"host", "user.pub", "sshd_config"} {
			if err := os.Chown(filepath.Join(dir, f), uid, uid); err != nil {
				t.Fatal(err)
			}
		}
		line = append([]string{"unshare", "-m", "--propagation", "private", "sh", "-c",
			letGo + ` && mount --bind "$1" /etc/passwd && shift && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"`, "sh", filepath.Join(dir, "passwd")}, line...)
	}
	cmd := exec.Command(line[0], line[1:]...)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("sshd said:\n%s", text)
		}
	})
	b.ssh = "ssh -F " + filepath.Join(dir, "ssh_config")
	b.to = "ssh://gateway9" + b.dst
	if user != "" {
		b.to = "ssh://" + user + "@gateway9" + b.dst
	}
	eventually(t, 10*time.Second, "sshd answers", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// Over a real sshd, as an ordinary user, with ssh's own configuration,
// known_hosts and key; with nothing over there but the binary.
func TestPushOverSSHD(t *testing.T) {
	t.Parallel()
	b := newPushBed(t)
	b.sshd()
	files(t, b.src, some(50))
	files(t, b.src, map[string]string{"big": noise(3 << 20)})
	b.must()
	files(t, b.src, map[string]string{"d1/f1.xml": "<changed/>", "d2/f2.xml": "", "big": noise(1 << 20)})
	if p := b.must(); p.Changed != 2 || p.Deleted != 1 {
		t.Fatalf("%+v", p)
	}
	// Below the home directory, by itself where its data is.
	to, data := b.to, b.data
	b.to = strings.TrimSuffix(to, b.dst) + "/~/" + filepath.Base(b.dst)
	b.must()
	b.data = ""
	b.must() // another data directory knows nothing, and finds all as it should be
	b.to, b.data = to, data

	at := b.binary
	b.binary = "gatesync-that-is-not-there"
	if _, a := b.push(); a.code != 1 || !strings.Contains(a.stderr, "--remote-binary") {
		t.Fatalf("exit code %d: %s", a.code, a.stderr)
	}
	b.binary = at
	b.ssh += " -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"
	if _, a := b.push(); a.code != 1 || !strings.Contains(a.stderr, "Host key verification failed") {
		t.Fatalf("exit code %d: %s", a.code, a.stderr)
	}
}
