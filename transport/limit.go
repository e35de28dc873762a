package transport

import (
	"sync"
	"time"
)

// How many joins a second are answered: of one host, so that it keeps no other
// one out, and in all, for each takes a turn in the log.
const (
	hostJoins, hostJoinBurst = 5, 20
	allJoins, allJoinBurst   = 20, 40
	// maxLimited bounds the hosts that are told apart.
	maxLimited = 1024
)

// hostLimit is a limit for each host under one for all of them. Safe for
// concurrent use.
type hostLimit struct {
	mu    sync.Mutex
	all   *rateLimit
	hosts map[string]*rateLimit
}

func newHostLimit() *hostLimit {
	return &hostLimit{all: newRateLimit(allJoins, allJoinBurst), hosts: map[string]*rateLimit{}}
}

func (l *hostLimit) allow(host string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.hosts[host]
	if of == nil {
		if len(l.hosts) >= maxLimited {
			for h, other := range l.hosts {
				if other.full(now) { // forgotten without a difference
					delete(l.hosts, h)
				}
			}
		}
		if len(l.hosts) >= maxLimited {
			return false
		}
		of = newRateLimit(hostJoins, hostJoinBurst)
		l.hosts[host] = of
	}
	return of.allow(now) && l.all.allow(now)
}

// rateLimit is a token bucket. One goroutine at a time.
type rateLimit struct {
	perSecond float64
	burst     float64
	have      float64
	at        time.Time
}

func newRateLimit(perSecond, burst float64) *rateLimit {
	return &rateLimit{perSecond: perSecond, burst: burst, have: burst}
}

func (l *rateLimit) allow(now time.Time) bool {
	if !l.at.IsZero() {
		l.have = min(l.burst, l.have+now.Sub(l.at).Seconds()*l.perSecond)
	}
	l.at = now
	if l.have < 1 {
		return false
	}
	l.have--
	return true
}

// full tells whether a bucket is as if it were new.
func (l *rateLimit) full(now time.Time) bool {
	return l.have+now.Sub(l.at).Seconds()*l.perSecond >= l.burst
}
