package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// SSH is a target behind sshd: ssh://[user@]host[:port]/path.
type SSH struct {
	User, Host, Port string
	Path             string // on the other host; relative to its home directory where it began with /~/
}

// ParseSSH reads such a target; ok is false where it is none.
func ParseSSH(s string) (t SSH, ok bool, err error) {
	if !strings.HasPrefix(s, "ssh://") {
		return t, false, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return t, true, fmt.Errorf("%q: %w", s, err)
	}
	t = SSH{User: u.User.Username(), Host: u.Hostname(), Port: u.Port(), Path: u.Path}
	if rest, ok := strings.CutPrefix(t.Path, "/~/"); ok {
		t.Path = rest
	}
	_, password := u.User.Password()
	switch {
	case t.Host == "" || t.Path == "" || t.Path == "/" || u.RawQuery != "" || u.Fragment != "":
		return t, true, fmt.Errorf("%q: write ssh://user@host/path/of/the/directory", s)
	case password:
		return t, true, errors.New("no password in a target: ssh asks for it, or use a key")
	case strings.HasPrefix(t.Host, "-") || strings.HasPrefix(t.User, "-"):
		return t, true, fmt.Errorf("%q: a host or user that begins with a dash", s) // ssh would take it for an option
	}
	return t, true, nil
}

// Tree is the target's directory as `receive --tree` takes it.
func (t SSH) Tree(name, preset string, ignore []string) (string, error) {
	tree := name + "=" + t.Path
	if preset != "" {
		tree += ",preset=" + preset
	}
	for _, g := range ignore {
		tree += ",ignore=" + g
	}
	for _, s := range append([]string{t.Path, preset}, ignore...) {
		if strings.Contains(s, ",") {
			return "", fmt.Errorf("%q: a path or a glob with a comma cannot be told to a target", s)
		}
	}
	return tree, nil
}

// SSHOptions say how to get there.
type SSHOptions struct {
	Command []string // ssh and its options; empty: ssh
	Binary  string   // gatesync over there; "": gatesync, found by its PATH
	Tree    string   // NAME=PATH,… as `receive --tree` takes it
	DataDir string   // over there; "": by itself
	Args    []string // further flags of receive
}

// Dial starts ssh, and with it a receiver over there. The stream ends with the
// command.
func (t SSH) Dial(ctx context.Context, o SSHOptions) (*SSHConn, error) {
	line := o.Command
	if len(line) == 0 {
		line = []string{"ssh"}
	}
	args := append([]string{}, line[1:]...)
	if t.Port != "" {
		args = append(args, "-p", t.Port)
	}
	if t.User != "" {
		args = append(args, "-l", t.User)
	}
	binary := o.Binary
	if binary == "" {
		binary = "gatesync"
	}
	remote := []string{binary, "receive", "--stdio", "--tree", o.Tree}
	if o.DataDir != "" {
		remote = append(remote, "--data-dir", o.DataDir)
	}
	remote = append(remote, o.Args...)
	for i, w := range remote {
		remote[i] = quote(w)
	}
	args = append(args, "--", t.Host, strings.Join(remote, " "))
	c := &SSHConn{host: t.Host, binary: binary, cmd: exec.CommandContext(ctx, line[0], args...)}
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	c.cmd.Stderr = &c.said
	c.cmd.WaitDelay = 5 * time.Second
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start ssh: %w: install the ssh client, or name it with --ssh", err)
	}
	return c, nil
}

// quote keeps a word one word for the shell over there.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// SSHConn is the stream to a command over ssh.
type SSHConn struct {
	host, binary string
	cmd          *exec.Cmd
	in           io.WriteCloser
	out          io.ReadCloser
	said         tail
	once         sync.Once
	err          error
}

// Read implements io.Reader.
func (c *SSHConn) Read(b []byte) (int, error) { return c.out.Read(b) }

// Write implements io.Writer.
func (c *SSHConn) Write(b []byte) (int, error) { return c.in.Write(b) }

// Close ends the command's input, and the command if that does not.
func (c *SSHConn) Close() error {
	c.once.Do(func() {
		_ = c.in.Close()
		kill := time.AfterFunc(3*time.Second, func() { _ = c.cmd.Process.Kill() })
		defer kill.Stop()
		_, _ = io.Copy(io.Discard, c.out) // Wait closes it
		c.err = c.cmd.Wait()
	})
	return c.err
}

// Explain adds to a failed push what ssh's own end says: what is missing over
// there, and what to do about it. Call it after the push.
func (c *SSHConn) Explain(err error) error {
	_ = c.Close()
	var none *NoTargetError
	if !errors.As(err, &none) {
		return err
	}
	said := strings.TrimSpace(c.said.String())
	switch code := c.cmd.ProcessState.ExitCode(); {
	case code == 127 || code == 126:
		return fmt.Errorf("there is no program %q on %s (%s): copy this gatesync there (it is one file), for example `scp gatesync %s:`, "+
			"and name it with --remote-binary ./gatesync", c.binary, c.host, said, c.host)
	case code == 255:
		return fmt.Errorf("ssh cannot reach %s: %s: try `ssh %s true`; ssh's own configuration, agent and known_hosts are used", c.host, said, c.host)
	case code == 2:
		return fmt.Errorf("the program %q on %s is no gatesync that can receive (%s): install the same version there, or name another with --remote-binary", c.binary, c.host, said)
	case said != "":
		return fmt.Errorf("%w; over there: %s", err, said)
	}
	return err
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if over := len(t.b) - 4096; over > 0 {
		t.b = t.b[over:]
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return printable(strings.ToValidUTF8(string(t.b), "?"))
}
