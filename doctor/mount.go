package doctor

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// checkMounts judges the options of the network mounts that trees lie on. Each
// mount is judged once, whatever number of trees it holds.
func checkMounts(s *sheet, f Facts) {
	var done []string
	all := f.Trees
	if f.Share != nil {
		all = append(slices.Clone(all), *f.Share)
	}
	for _, t := range all {
		if slices.Contains(done, t.Mount.Point) || t.Mount.Point == "" {
			continue
		}
		done = append(done, t.Mount.Point)
		if _, ro := t.Mount.Options["ro"]; ro {
			s.problem(t.Mount.Point, "mount it read-write (and see that the server exports it so)", "it is mounted read-only: nothing can be written to %s", t.Path)
		}
		switch {
		case t.Mount.NFS():
			nfsFailure(s, t.Mount)
			nfsCaches(s, t.Mount)
			nfsRest(s, t.Mount)
			nfsStats(s, t.Mount)
		case t.Mount.Network():
			s.note(t.Mount.Point, "%s is not tested with gatesync; NFS 4.2 is", t.Mount.Type)
		}
	}
}

// nfsFailure is about what happens when the server does not answer.
func nfsFailure(s *sheet, m Mount) {
	remedy := "mount it hard (the default); gatesync stays responsive while a hard mount hangs"
	_, soft := m.Options["soft"]
	_, softerr := m.Options["softerr"]
	if !soft && !softerr {
		return
	}
	// timeo is in tenths of a second, and each retry waits that much longer.
	timeo, retrans := number(m, "timeo", 600), number(m, "retrans", 2)
	wait := time.Duration(0)
	for i := range retrans + 1 {
		wait += time.Duration(timeo*(i+1)) * 100 * time.Millisecond
	}
	if timeo < 100 {
		s.problem(m.Point, remedy+"; if it has to be soft: timeo=600", "soft with timeo=%d: after %s without an answer a gateway's write fails half-way, and a file may stay torn", timeo, short(wait))
		return
	}
	s.warn(m.Point, remedy, "soft: after %s without an answer a gateway's write fails half-way, and a file may stay torn", short(wait))
}

// nfsCaches is about how late a gateway sees what another has written, and what
// it costs not to be.
func nfsCaches(s *sheet, m Mount) {
	_, noac := m.Options["noac"]
	zero := !noac && has(m, "acregmax") && number(m, "acregmax", 60) == 0
	switch {
	case noac:
		s.warn(m.Point, "mount it without noac; gatesync opens what it verifies, which asks the server", "noac: every look at a file is a call to the server, and every write waits for it; a scan of 20,000 files is as many calls")
	case zero:
		s.warn(m.Point, "mount it without actimeo=0; actimeo=3 is a good compromise", "actimeo=0: every look at a file is a call to the server")
	case number(m, "acdirmax", 60) > 60 || number(m, "acregmax", 60) > 60:
		s.warn(m.Point, "actimeo=3 (or acdirmax and acregmax of a few seconds)", "attributes are cached for up to %d s: that long a gateway here does not see what another has written", max(number(m, "acdirmax", 60), number(m, "acregmax", 60)))
	}
	switch m.Options["lookupcache"] {
	case "none":
		s.note(m.Point, "lookupcache=none: every name is looked up at the server; fresh, and slow for large trees")
	case "pos", "positive":
	default:
		if !noac && !zero && number(m, "acdirmax", 60) > 10 {
			s.note(m.Point, "a name that was looked for before it existed may stay absent for up to %d s for gateways here; lookupcache=positive ends that", number(m, "acdirmax", 60))
		}
	}
}

func nfsRest(s *sheet, m Mount) {
	if _, ok := m.Options["nolock"]; ok {
		s.warn(m.Point, "mount it without nolock (NFS 3 then needs rpc.statd), or vers=4.2", "nolock: a lock taken here is not seen by other machines")
	} else if v := m.Options["local_lock"]; v != "" && v != "none" {
		s.warn(m.Point, "mount it without local_lock", "local_lock=%s: a lock taken here is not seen by other machines", v)
	}
	if has(m, "sync") && !has(m, "noac") { // noac brings sync along
		s.warn(m.Point, "mount it without sync; gatesync flushes what has to be", "sync: every write waits for the server's disk")
	}
	if p := m.Options["proto"]; strings.HasPrefix(p, "udp") {
		s.problem(m.Point, "proto=tcp", "UDP: under load fragments are mixed up, and content is damaged")
	}
	if v := m.Options["vers"]; v == "3" || v == "2" {
		s.note(m.Point, "NFS %s: a file that is rewritten in place with the same size may look unchanged here for long; vers=4.2 is better", v)
	}
	if w := number(m, "wsize", 1<<20); w < 64<<10 {
		s.warn(m.Point, "leave wsize and rsize to client and server", "wsize=%d: large files take many calls", w)
	}
}

func nfsStats(s *sheet, m Mount) {
	x := m.Stats
	if x == nil {
		return
	}
	if x.Timeouts > 0 {
		s.warn(m.Point, "look at the server and the network to it", "%d calls were not answered in time since it was mounted %s ago", x.Timeouts, short(x.Age))
	}
	if x.Calls > 1000 && x.Resent*1000 > x.Calls {
		s.warn(m.Point, "look at the network to the server (loss, MTU)", "%d of %d calls had to be sent again", x.Resent, x.Calls)
	}
	if x.Calls > 1000 && x.Wait > 100*time.Millisecond {
		s.warn(m.Point, "look at the server's load and the network to it", "a call takes %s on average", short(x.Wait))
	}
}

func has(m Mount, option string) bool { _, ok := m.Options[option]; return ok }

func number(m Mount, option string, otherwise int) int {
	n, err := strconv.Atoi(m.Options[option])
	if err != nil {
		return otherwise
	}
	return n
}
