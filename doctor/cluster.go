package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/gatesync/gatesync/cluster"
)

const (
	// certSoon: by then a certificate should have renewed itself.
	certSoon = 14 * 24 * time.Hour
	caSoon   = 180 * 24 * time.Hour
	// Clocks order nothing, but tell people when a revision was made, and judge
	// certificates.
	clockOff = 2 * time.Second
	clockBad = 5 * time.Minute
	// slowMeet is how long a handshake takes where something is wrong with the
	// network or the machine.
	slowMeet = 2 * time.Second
)

func checkIdentity(s *sheet, f Facts) {
	c := f.Cluster
	if c.Err != "" {
		return // the members' check says so
	}
	switch left := c.CertEnds.Sub(f.Now); {
	case c.CertEnds.IsZero():
	case c.CertBegins.After(f.Now):
		s.problem(c.Name, "set this machine's clock right (NTP)", "this node's certificate begins on %s: the clock here is slow", day(c.CertBegins))
	case left <= 0:
		s.problem(c.Name, "check the clock here; if it is right: `gatesync remove` this node on another one and join it anew", "this node's certificate ended on %s", day(c.CertEnds))
	case left < certSoon && c.OwnPKI:
		s.warn(c.Name, "bring a new one; the daemon reads it by itself", "this node's certificate ends on %s", day(c.CertEnds))
	case left < certSoon && !c.Running:
		s.warn(c.Name, "start the daemon: it renews it", "this node's certificate ends on %s", day(c.CertEnds))
	case left < certSoon:
		s.note(c.Name, "this node's certificate ends on %s; it renews itself", day(c.CertEnds))
	}
	if left := c.CAEnds.Sub(f.Now); !c.CAEnds.IsZero() && left < caSoon {
		remedy := "`gatesync rotate-ca`; nothing stops meanwhile"
		if c.OwnPKI {
			remedy = "bring certificates of a new CA"
		}
		s.warn(c.Name, remedy, "the CA's certificate ends on %s", day(c.CAEnds))
	}
}

func checkMembers(s *sheet, f Facts) {
	c := f.Cluster
	if c.Err != "" {
		remedy := "see what is said of the data directory"
		if len(f.Data.Damaged) == 0 && !f.Data.DaemonHung {
			remedy = "start the daemon, `gatesync run --data-dir …`, and look again"
		}
		s.problem("", remedy, "nothing is known of the members: %s", c.Err)
		return
	}
	if c.removed() {
		s.problem(c.Name, "to come back, stop its daemon; then "+cluster.JoinAgain, "this node was removed from the cluster: the others refuse it")
		return
	}
	if !c.Running {
		s.warn(c.Name, "gatesync run --data-dir …", "this node's daemon does not run: what is written here goes nowhere")
	}
	for _, m := range c.Members {
		if m.Proxy != "" {
			s.note(m.Name, "it is reached through the proxy %s (HTTPS_PROXY of this command; the daemon's own environment counts for the daemon); NO_PROXY exempts hosts", m.Proxy)
		}
		if m.Err != "" {
			s.problem(m.Name, "start its daemon, open the port, or `gatesync remove "+m.Name+"` if it is gone for good", "%s cannot be spoken to: %s", m.Address, m.Err)
			continue
		}
		if m.Took > slowMeet {
			s.warn(m.Name, "look at the network between the two (loss, DNS, a firewall that drops) and at the load there", "it took %s until both sides had accepted each other", short(m.Took))
		}
		memberClock(s, m)
		if left := m.CertEnds.Sub(f.Now); !m.CertEnds.IsZero() && left < certSoon && c.OwnPKI {
			s.warn(m.Name, "bring a new one there", "its certificate ends on %s", day(m.CertEnds))
		}
	}
}

func memberClock(s *sheet, m Member) {
	off := max(0, m.Clock.Abs()-m.ClockErr)
	remedy := "set both clocks right (NTP: chronyc tracking, timedatectl)"
	switch {
	case !m.HasClock || off < clockOff:
	case off < clockBad:
		s.warn(m.Name, remedy, "its clock is %s %s this one's: times in `log` mislead", short(m.Clock.Abs()), aheadOrBehind(m.Clock))
	default:
		s.problem(m.Name, remedy, "its clock is %s %s this one's: certificates may count as not yet or no longer valid", short(m.Clock.Abs()), aheadOrBehind(m.Clock))
	}
}

// removed tells whether a member says that this node is none, and no other one
// speaks to it.
func (c Cluster) removed() (is bool) {
	for _, m := range c.Members {
		if m.Err == "" {
			return false
		}
		is = is || m.Disowns
	}
	return is
}

func checkQuorum(s *sheet, f Facts) {
	c := f.Cluster
	if c.Err != "" || c.removed() {
		return
	}
	voters, alive := 0, 0
	var dead []string
	if c.Voter {
		voters++
		if c.Running {
			alive++
		}
	}
	for _, m := range c.Members {
		if !m.Voter {
			continue
		}
		voters++
		if m.Err == "" {
			alive++
		} else {
			dead = append(dead, m.Name)
		}
	}
	need := voters/2 + 1
	if c.Running && !c.Quorum {
		s.problem("", "start the daemons of the voters that are down; if a majority is gone for good: `gatesync recover`", "no majority: nothing can be committed (%d of %d voters answer, %d are needed)", alive, voters, need)
		return
	}
	switch tolerance := alive - need; {
	case len(c.Members) == 0:
		s.warn("", "`gatesync token` here, `gatesync join` on the next machine", "this is the only member: its disk is the only place of everything")
	case voters == 2:
		s.warn("", "add a third one: a gateway, or a witness (`gatesync join … --witness`)", "two voters: if either fails nothing can be committed")
	case voters%2 == 0:
		s.warn("", "add a member, or `gatesync demote` one", "%d voters tolerate no more failures than %d", voters, voters-1)
	case tolerance < 0:
		s.problem("", "start the daemons of "+strings.Join(dead, ", ")+"; if they are gone for good: `gatesync recover`", "%d of %d voters answer, %d are needed: nothing can be committed", alive, voters, need)
	case tolerance == 0 && len(dead) > 0:
		s.problem("", "start the daemons of "+strings.Join(dead, ", ")+", or let others take their place (`gatesync promote`)", "no further voter may fail: %d of %d answer", alive, voters)
	}
}

func aheadOrBehind(d time.Duration) string {
	if d < 0 {
		return "behind"
	}
	return "ahead of"
}

func day(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// short rounds a duration to what a person reads.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
