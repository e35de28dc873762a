package config

import (
	"reflect"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// leaf is a key that holds a value rather than further keys.
type leaf struct {
	key   string // dotted: guard.max_delete.count
	index []int  // of the field, for reflect
}

// leaves lists every key of a struct type that a variable or a flag can set:
// all but lists of structs.
func leaves(t reflect.Type, prefix string, index []int) []leaf {
	var out []leaf
	for f := range t.Fields() {
		key := tag(f)
		if key == "-" {
			continue
		}
		at := append(append([]int(nil), index...), f.Index...)
		switch {
		case f.Type.Kind() == reflect.Struct:
			out = append(out, leaves(f.Type, prefix+key+".", at)...)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
		default:
			out = append(out, leaf{prefix + key, at})
		}
	}
	return out
}

func tag(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

// envName is the variable that sets a key: GATESYNC_GUARD_MAX_DELETE_COUNT.
func envName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// checkKeys walks a parsed file beside the type it will be decoded into and
// refuses the first key that the type does not have.
func checkKeys(n *yaml.Node, t reflect.Type, prefix string) error {
	switch {
	case n.Kind == yaml.DocumentNode && len(n.Content) > 0:
		return checkKeys(n.Content[0], t, prefix)
	case n.Kind == yaml.AliasNode:
		return checkKeys(n.Alias, t, prefix)
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for _, item := range n.Content {
			if err := checkKeys(item, t.Elem(), prefix); err != nil {
				return err
			}
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		return checkMapping(n, t, prefix)
	}
	return nil
}

func checkMapping(n *yaml.Node, t reflect.Type, prefix string) error {
	fields := map[string]reflect.Type{}
	var known []string
	for f := range t.Fields() {
		if key := tag(f); key != "-" {
			fields[key] = f.Type
			known = append(known, key)
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		ft, ok := fields[key.Value]
		if !ok {
			return &UnknownKeyError{Key: prefix + key.Value, Line: key.Line, Nearest: nearest(key.Value, known, prefix)}
		}
		if err := checkKeys(n.Content[i+1], ft, prefix+key.Value+"."); err != nil {
			return err
		}
	}
	return nil
}

// nearest finds the known key that was most likely meant: at this place first,
// else anywhere (a key written one level too high or too low). "" when
// nothing is near.
func nearest(key string, here []string, prefix string) string {
	best, bestDist := "", len(key)/2+1
	consider := func(candidate, show string) {
		if d := distance(key, candidate); d < bestDist {
			best, bestDist = show, d
		}
	}
	sort.Strings(here)
	for _, k := range here {
		consider(k, prefix+k)
	}
	for _, l := range leaves(reflect.TypeFor[Config](), "", nil) {
		consider(l.key[strings.LastIndexByte(l.key, '.')+1:], l.key)
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap.
func distance(a, b string) int {
	prev2, prev := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return prev[len(b)]
}
