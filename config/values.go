package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Duration is a time.Duration that also reads days: "30d", "1d12h".
type Duration time.Duration

// ParseDuration reads "90s", "15m", "30d", "1d12h".
func ParseDuration(s string) (Duration, error) {
	rest, days := s, time.Duration(0)
	if n, tail, ok := strings.Cut(s, "d"); ok {
		v, err := strconv.Atoi(n)
		if err != nil || v < 0 || v > 106_751 { // as many as fit
			return 0, fmt.Errorf("%q is no duration: write it like 90s, 15m or 30d", s)
		}
		days, rest = time.Duration(v)*24*time.Hour, tail
		if rest == "" {
			return Duration(days), nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration: write it like 90s, 15m or 30d", s)
	}
	if sum := days + d; days == 0 || sum >= d { // no overflow
		return Duration(sum), nil
	}
	return 0, fmt.Errorf("%q is longer than can be told: write it like 90s, 15m or 30d", s)
}

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (d Duration) String() string {
	t, day := time.Duration(d), 24*time.Hour
	if t >= day && t%day == 0 {
		return fmt.Sprintf("%dd", t/day)
	}
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// UnmarshalYAML reads what ParseDuration reads.
func (d *Duration) UnmarshalYAML(n *yaml.Node) (err error) {
	*d, err = ParseDuration(n.Value)
	return at(n, err)
}

// Size is a number of bytes, read as "256MB", "64 KiB" or a bare number. Like
// everywhere in storage tools of operators, KB, MB and GB are powers of 1024.
type Size int64

// maxSize is more than any disk holds, and far from an overflow.
const maxSize = 1 << 60

// ParseSize reads a number of bytes.
func ParseSize(s string) (Size, error) {
	num := strings.TrimRight(s, "KMGTiBbkmgt ")
	v, err := strconv.ParseFloat(num, 64)
	if err != nil || v < 0 {
		return 0, fmt.Errorf("%q is no size: write it like 256MB or 2GB", s)
	}
	unit := strings.ToUpper(strings.TrimSpace(s[len(num):]))
	shift, ok := map[string]uint{"": 0, "B": 0, "K": 10, "KB": 10, "KIB": 10, "M": 20, "MB": 20, "MIB": 20,
		"G": 30, "GB": 30, "GIB": 30, "T": 40, "TB": 40, "TIB": 40}[unit]
	// Written so that it holds for no NaN and for nothing that overflows.
	if bytes := v * float64(int64(1)<<shift); ok && bytes <= maxSize {
		return Size(bytes), nil
	}
	return 0, fmt.Errorf("%q is no size: write it like 256MB or 2GB", s)
}

func (s Size) String() string {
	for _, u := range []struct {
		n    Size
		name string
	}{{1 << 40, "TB"}, {1 << 30, "GB"}, {1 << 20, "MB"}, {1 << 10, "KB"}} {
		if s >= u.n && s%u.n == 0 {
			return fmt.Sprintf("%d%s", s/u.n, u.name)
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalYAML reads what ParseSize reads.
func (s *Size) UnmarshalYAML(n *yaml.Node) (err error) {
	*s, err = ParseSize(n.Value)
	return at(n, err)
}

// Rate is a number of bytes in a second, read as "10MB/s".
type Rate int64

// ParseRate reads a number of bytes in a second; "/s" may be left out.
func ParseRate(s string) (Rate, error) {
	n, err := ParseSize(strings.TrimSuffix(s, "/s"))
	if err != nil {
		return 0, fmt.Errorf("%q is no rate: write it like 10MB/s", s)
	}
	return Rate(n), nil
}

func (r Rate) String() string { return Size(r).String() + "/s" }

// UnmarshalYAML reads what ParseRate reads.
func (r *Rate) UnmarshalYAML(n *yaml.Node) (err error) {
	*r, err = ParseRate(n.Value)
	return at(n, err)
}

// FileMode is permission bits, always read as octal whether quoted or not.
type FileMode uint32

func (m FileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// UnmarshalYAML reads octal digits.
func (m *FileMode) UnmarshalYAML(n *yaml.Node) error {
	v, err := strconv.ParseUint(strings.TrimPrefix(n.Value, "0o"), 8, 32)
	if err != nil || v > 0o777 {
		return at(n, fmt.Errorf("%q are no permission bits: write them in octal, like 0002", n.Value))
	}
	*m = FileMode(v)
	return nil
}

// at puts the line into an error about a value of the file.
func at(n *yaml.Node, err error) error {
	if err == nil || n.Line == 0 {
		return err
	}
	return fmt.Errorf("line %d: %w", n.Line, err)
}
