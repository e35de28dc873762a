package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"
)

// EnvPrefix begins every variable that sets a key.
const EnvPrefix = "GATESYNC_"

// NoNodeError: no node was made in a data directory.
type NoNodeError struct {
	DataDir string
	Why     string // "does not exist", …
}

func (e *NoNodeError) Error() string {
	return fmt.Sprintf("%s %s: make a node there with `gatesync init` (a new cluster) or `gatesync join` (an existing one), or name the right directory with --data-dir", e.DataDir, e.Why)
}

// Missing returns a *NoNodeError where a data directory has no settings, nil
// otherwise.
func Missing(dataDir string) error {
	_, err := os.Stat(Path(dataDir))
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	why := "holds no node (no " + fileName + ")"
	if info, err := os.Stat(dataDir); errors.Is(err, fs.ErrNotExist) {
		why = "does not exist"
	} else if err == nil && !info.IsDir() {
		why = "is no directory"
	}
	return &NoNodeError{DataDir: dataDir, Why: why}
}

// UnknownKeyError is a key that gatesync does not know.
type UnknownKeyError struct {
	Key     string
	Line    int
	Nearest string
}

func (e *UnknownKeyError) Error() string {
	s := fmt.Sprintf("unknown key %q", e.Key)
	if e.Line > 0 {
		s = fmt.Sprintf("line %d: %s", e.Line, s)
	}
	if e.Nearest != "" {
		s += fmt.Sprintf("; did you mean %q?", e.Nearest)
	}
	return s
}

// FlagError is a flag whose value cannot be read.
type FlagError struct {
	Flag string
	Err  error // tells the value
}

func (e *FlagError) Error() string { return fmt.Sprintf("--%s: %v", e.Flag, e.Err) }

func (e *FlagError) Unwrap() error { return e.Err }

// Source is what Load reads besides the file.
type Source struct {
	Environ []string          // as os.Environ gives it
	Flags   map[string]string // dotted key → value, for this run only
}

// Load reads the settings of a data directory and validates them.
func Load(dataDir string, src Source) (Config, error) {
	file := Path(dataDir)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrPermission) {
		return Config{}, fmt.Errorf("read the settings: %w: run the command as the daemon's user", err)
	}
	if err != nil {
		if missing := Missing(dataDir); missing != nil {
			return Config{}, missing
		}
		return Config{}, fmt.Errorf("read the settings: %w", err)
	}
	cfg, err := Parse(b)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", file, err)
	}
	cfg.DataDir = dataDir
	if err := cfg.override(src); err != nil {
		return Config{}, err
	}
	cfg.resolve()
	if err := cfg.Validate(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", file, err)
	}
	return cfg, nil
}

// Parse reads a file's text over the defaults. It does not validate.
func Parse(text []byte) (Config, error) {
	cfg := Default()
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return cfg, nil // an empty file says nothing
		}
		return cfg, plain(err)
	}
	if err := checkKeys(&doc, reflect.TypeOf(cfg), ""); err != nil {
		return cfg, err
	}
	if err := doc.Decode(&cfg); err != nil {
		return cfg, plain(err)
	}
	return cfg, nil
}

// plain takes the library's prefix off a person's typing mistake.
func plain(err error) error {
	var te *yaml.TypeError
	if errors.As(err, &te) {
		return errors.New(strings.Join(te.Errors, "; "))
	}
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}

// override applies variables and then flags. Variables that no key knows are
// left alone: container platforms invent some of their own (GATESYNC_PORT,
// GATESYNC_SERVICE_HOST for a service of that name).
func (c *Config) override(src Source) error {
	env := map[string]string{}
	for _, kv := range src.Environ {
		if k, v, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(k, EnvPrefix) {
			env[k] = v
		}
	}
	byKey := map[string]leaf{}
	for _, l := range leaves(reflect.TypeOf(*c), "", nil) {
		byKey[l.key] = l
		if v, ok := env[envName(l.key)]; ok {
			if err := c.set(l, v); err != nil {
				return fmt.Errorf("%s=%q: %w", envName(l.key), v, err)
			}
		}
	}
	for key, v := range src.Flags {
		l, ok := byKey[key]
		if !ok {
			return &UnknownKeyError{Key: key, Nearest: nearest(key, nil, "")}
		}
		if err := c.set(l, v); err != nil {
			return &FlagError{Flag: strings.NewReplacer(".", "-", "_", "-").Replace(key), Err: err}
		}
	}
	return nil
}

func (c *Config) set(l leaf, value string) error {
	field := reflect.ValueOf(c).Elem().FieldByIndex(l.index)
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: value}
	if field.Kind() == reflect.String {
		n.Tag = "!!str"
	}
	if field.Kind() == reflect.Slice {
		n = &yaml.Node{Kind: yaml.SequenceNode}
		for _, v := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' }) {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v})
		}
	}
	if err := n.Decode(field.Addr().Interface()); err != nil {
		return plain(err)
	}
	return nil
}

// resolve makes relative paths relative to the data directory, never to
// wherever the command happened to be started.
func (c *Config) resolve() {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(c.DataDir, *p)
		}
	}
	for i := range c.Trees {
		abs(&c.Trees[i].Path)
	}
	abs(&c.Share)
	abs(&c.TLS.CA)
	abs(&c.TLS.Cert)
	abs(&c.TLS.Key)
}
