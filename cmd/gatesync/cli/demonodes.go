package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/integration/gen"
	"github.com/gatesync/gatesync/manifest"
	"github.com/gatesync/gatesync/node"
)

// demo is a cluster of real processes of this very binary.
type demo struct {
	app    *app
	dir    string
	exe    []string
	params gen.Params
	nodes  []*demoNode
}

// demoNode is one gateway: a data directory, a tree, and the daemon beside it.
type demoNode struct {
	name, data, tree, addr string
	daemon                 *exec.Cmd
	ended                  chan struct{} // closed when the daemon has ended
}

func newDemo(a *app, params gen.Params) (*demo, error) {
	exe := a.Executable
	if exe == nil {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		exe = []string{self}
	}
	dir, err := os.MkdirTemp("", "gatesync-demo-")
	if err != nil {
		return nil, err
	}
	d := &demo{app: a, dir: dir, exe: exe, params: params}
	for _, name := range []string{"gw1", "gw2", "gw3"} {
		addr, err := freeAddr()
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		n := &demoNode{name: name, data: filepath.Join(dir, name, "data"), tree: filepath.Join(dir, name, "tree"), addr: addr}
		if err := os.MkdirAll(n.tree, 0o755); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		d.nodes = append(d.nodes, n)
	}
	return d, nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (n *demoNode) flags() []string {
	return []string{"--data-dir", n.data, "--name", n.name, "--listen", n.addr, "--http", "127.0.0.1:0", "--tree", "server=" + n.tree}
}

// command prepares a process of this program with a clean environment.
func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	all := append(append([]string(nil), d.exe[1:]...), args...)
	cmd := exec.CommandContext(ctx, d.exe[0], all...)
	for _, kv := range d.app.Environ {
		if !strings.HasPrefix(kv, config.EnvPrefix) {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	return cmd
}

// gatesync runs a command to its end and returns what it printed.
func (d *demo) gatesync(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, demoWithin)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := d.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("gatesync %s: %w: %s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// start starts a node's daemon and waits until it answers.
func (d *demo) start(ctx context.Context, n *demoNode) error {
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := d.command(context.WithoutCancel(ctx), "run", "--data-dir", n.data)
	cmd.Stdout, cmd.Stderr = log, log
	// Its own group: Ctrl-C ends the demo, which ends the daemons in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.daemon, n.ended = cmd, make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(n.ended)
	}()
	return d.until(ctx, 25*time.Millisecond, func() error {
		select {
		case <-n.ended:
			return fmt.Errorf("the daemon of %s ended at its start", n.name)
		default:
		}
		_, err := d.status(ctx, n)
		return err
	})
}

func (n *demoNode) log() string             { return filepath.Join(filepath.Dir(n.data), "log") }
func (n *demoNode) file(path string) string { return filepath.Join(n.tree, filepath.FromSlash(path)) }
func (n *demoNode) signal(sig os.Signal)    { _ = n.daemon.Process.Signal(sig) } // it may have ended
func (n *demoNode) kill()                   { n.signal(syscall.SIGKILL); <-n.ended; n.daemon = nil }

func (n *demoNode) write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(n.file(path)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(n.file(path), data, 0o644)
}

// digest is computed from the disk alone: gatesync's word is not taken for it.
func (n *demoNode) digest() (d manifest.Digest, files int, err error) {
	h := manifest.NewHasher()
	err = filepath.WalkDir(n.tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(n.tree, path) // below tree
		if e.IsDir() && rel == manifest.MarkerDir {
			return fs.SkipDir
		}
		fmt.Fprintf(h, "%q %v\n", rel, e.Type())
		if !e.Type().IsRegular() {
			return nil
		}
		files++
		b, err := os.ReadFile(path)
		if err == nil {
			fmt.Fprintf(h, "%s\n", manifest.DigestOf(b))
		}
		return err
	})
	return h.Digest(), files, err
}

func (d *demo) status(ctx context.Context, n *demoNode) (node.Status, error) {
	var s node.Status
	out, err := d.gatesync(ctx, "status", "--json", "--data-dir", n.data)
	if out == "" {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

// voters wants so many living voters, and a leader.
func (d *demo) voters(ctx context.Context, want int) error {
	s, err := d.status(ctx, d.nodes[0])
	if err != nil {
		return err
	}
	if alive := s.VotersAlive; alive != want || s.Leader == "" {
		return fmt.Errorf("%d of %d voters are there", alive, want)
	}
	return nil
}

// heard waits until the first node has heard that the others have everything, of
// what is past, too. They say each second how far they are.
func (d *demo) heard(ctx context.Context) error {
	return d.until(ctx, 100*time.Millisecond, func() error {
		s, err := d.status(ctx, d.nodes[0])
		for _, m := range s.Members {
			if err == nil && (m.Applied < s.Revision || m.Missing > 0) {
				err = fmt.Errorf("%s has applied revision %d and lacks %s of content, as %s has heard", m.Name, m.Applied, plural(int(m.Missing), "piece"), d.nodes[0].name)
			}
		}
		return err
	})
}

// equal waits until the trees of these nodes hold the same.
func (d *demo) equal(ctx context.Context, nodes ...*demoNode) error {
	return d.until(ctx, 25*time.Millisecond, func() error {
		first, _, err := nodes[0].digest()
		for _, n := range nodes[1:] {
			if err != nil {
				return err
			}
			var digest manifest.Digest
			if digest, _, err = n.digest(); err == nil && digest != first {
				err = fmt.Errorf("%s and %s differ", n.name, nodes[0].name)
			}
		}
		return err
	})
}

// visible waits until a file reads the same on all nodes.
func (d *demo) visible(ctx context.Context, path string, want []byte, nodes ...*demoNode) error {
	return d.until(ctx, time.Millisecond, func() error {
		for _, n := range nodes {
			if have, err := os.ReadFile(n.file(path)); err != nil || !bytes.Equal(have, want) {
				return fmt.Errorf("%s does not have %s (%v)", n.name, path, err)
			}
		}
		return nil
	})
}

// until asks again and again; a question that reads whole trees is asked less
// often, so that it does not slow down what it measures.
func (d *demo) until(ctx context.Context, every time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, demoWithin)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		case <-tick.C:
		}
	}
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.app.Stdout, format+"\n", args...) }

func (d *demo) step(what string, took time.Duration) {
	if took > 0 {
		d.say("%9s  %s", duration(took), what)
		return
	}
	d.say("%9s  %s", "", what)
}

// explain adds the daemons' last words to an error.
func (d *demo) explain(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	for _, n := range d.nodes {
		b, _ := os.ReadFile(n.log())
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		err = fmt.Errorf("%w\n--- %s\n%s", err, n.name, strings.Join(lines[max(0, len(lines)-10):], "\n"))
	}
	return err
}

// cleanUp ends the daemons and removes the directory.
func (d *demo) cleanUp() error {
	for _, n := range d.nodes {
		if n.daemon != nil {
			n.signal(syscall.SIGTERM)
		}
	}
	var errs []error
	for _, n := range d.nodes {
		if n.daemon == nil {
			continue
		}
		timer := time.NewTimer(demoWithin)
		select {
		case <-n.ended:
			if code := n.daemon.ProcessState.ExitCode(); code != 0 {
				errs = append(errs, fmt.Errorf("the daemon of %s ended with exit code %d", n.name, code))
			}
		case <-timer.C:
			errs = append(errs, fmt.Errorf("the daemon of %s did not end in time", n.name))
			n.kill()
		}
		timer.Stop()
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}
