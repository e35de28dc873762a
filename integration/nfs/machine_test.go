package nfs

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// This file is the host's: what a guest is made of, and how one is booted.

//go:embed uml/init
var initScript []byte

//go:embed uml/xstate.c
var xstateSource []byte

//go:embed uml/clock.c
var clockSource []byte

// machine is what guests are booted from: files in the user's cache, which all
// boots share and none changes.
type machine struct {
	root string // the guest's root directory
	run  string // where linux.uml keeps its sockets
}

// hostTools are needed on the host: command → Debian package.
var hostTools = [][2]string{
	{"linux.uml", "user-mode-linux"},
	{"gcc", "gcc and libc6-dev"},
	{"apt-get", "apt, so this is no Debian"},
	{"dpkg-deb", "dpkg, so this is no Debian"},
	{"taskset", "util-linux"},
}

// guestPackages are in the guest's root, with all that they depend on.
var guestPackages = []string{
	"bash", "coreutils", "grep", "sed", "hostname", "kmod", "mount", "util-linux", "busybox-static",
	"e2fsprogs", "iproute2", "iputils-ping", "nfs-kernel-server", "nfs-common", "rpcbind",
}

// missingTools says what this host lacks to boot a guest.
func missingTools() error {
	for _, t := range hostTools {
		if _, err := exec.LookPath(t[0]); err != nil {
			return fmt.Errorf("needs %s: apt-get install %s", t[0], t[1])
		}
	}
	return nil
}

// openMachine finds the machine in the cache, or makes it: about a minute and
// 40 MB of packages the first time.
func openMachine() (*machine, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("linux.uml", "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("linux.uml --version: %w", err)
	}
	kernel := strings.TrimSpace(string(out))
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%q\n%s", kernel, guestPackages, initScript))
	base := filepath.Join(cache, "gatesync-nfs")
	home := filepath.Join(base, kernel+"-"+hex.EncodeToString(sum[:6]))
	m := &machine{root: filepath.Join(home, "root"), run: filepath.Join(base, "run")}
	if err := os.MkdirAll(m.run, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.Create(filepath.Join(base, "lock"))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	if _, err := os.Stat(home); err == nil {
		return m, nil
	}
	making := home + ".making"
	if err := errors.Join(os.RemoveAll(making), os.MkdirAll(making, 0o755)); err != nil {
		return nil, err
	}
	if err := makeMachine(making, kernel); err != nil {
		return nil, fmt.Errorf("making the guest's root in %s: %w", making, err)
	}
	return m, os.Rename(making, home)
}

// makeLibrary compiles what is loaded into linux.uml, and returns where it is.
func makeLibrary(dir string) (library string, err error) {
	library = filepath.Join(dir, "uml.so")
	gcc := []string{"-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-mcx16", "-o", library}
	for name, text := range map[string][]byte{"xstate.c": xstateSource, "clock.c": clockSource} {
		source := filepath.Join(dir, name)
		if err := os.WriteFile(source, text, 0o644); err != nil {
			return "", err
		}
		gcc = append(gcc, source)
	}
	return library, sh("gcc", append(gcc, "-ldl")...)
}

func makeMachine(home, kernel string) error {
	root, debs := filepath.Join(home, "root"), filepath.Join(home, "debs")
	// One /usr, as Debian has it: else /bin of one package hides that of another.
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", dir), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	if err := download(debs); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range found {
		if err := sh("sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -C "$2" --keep-directory-symlink `+
			`--exclude './usr/share/*' --exclude './usr/lib/python3*' -xf -`, "sh", deb, root); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(debs); err != nil {
		return err
	}
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "mnt", "srv", "programs", "work", "root", "var/lib/nfs", "usr/lib/modules"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := sh("cp", "-r", "/usr/lib/uml/modules/"+kernel, filepath.Join(root, "usr/lib/modules")); err != nil {
		return err
	}
	for _, link := range []string{"awk", "ps"} {
		_ = os.Remove(filepath.Join(root, "usr/bin", link))
		if err := os.Symlink("busybox", filepath.Join(root, "usr/bin", link)); err != nil {
			return err
		}
	}
	_ = os.Remove(filepath.Join(root, "usr/bin/sh"))
	if err := os.Symlink("bash", filepath.Join(root, "usr/bin/sh")); err != nil {
		return err
	}
	for path, text := range map[string]string{
		"etc/passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nstatd:x:101:65534::/var/lib/nfs:/bin/false\n_rpc:x:102:65534::/run:/bin/false\n",
		"etc/group":         "root:x:0:\nnogroup:x:65534:\n",
		"etc/hosts":         "127.0.0.1 localhost\n",
		"etc/nsswitch.conf": "hosts: files\n",
		"etc/exports":       "",
		"etc/rpc":           "portmapper 100000\nnfs 100003\nmountd 100005\nnlockmgr 100021\nstatus 100024\n",
		"init":              string(initScript),
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// download fetches the packages with apt's own resolver, as for a machine on
// which nothing is installed, from lists of its own: nothing of this host is
// changed, and it need not be root's.
func download(debs string) error {
	options := []string{"-qq", "-o", "Dir::State::lists=" + debs + "/lists", "-o", "Dir::State::status=/dev/null", "-o", "Dir::Cache=" + debs,
		"-o", "Dir::Cache::archives=" + debs, "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"}
	for _, dir := range []string{"partial", "lists/partial"} {
		if err := os.MkdirAll(filepath.Join(debs, dir), 0o755); err != nil {
			return err
		}
	}
	if err := sh("apt-get", append(slices.Clone(options), "update")...); err != nil {
		return err
	}
	install := append(slices.Clone(options), "-y", "--download-only", "--no-install-recommends", "install")
	return sh("apt-get", append(install, guestPackages...)...)
}

func sh(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
