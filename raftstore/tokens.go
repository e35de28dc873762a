package raftstore

import (
	"crypto/subtle"
	"slices"
	"time"

	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

const (
	// tokenGrace is how long an expired token is remembered, so that a joiner
	// hears "expired" and not "unknown".
	tokenGrace = int64(24 * time.Hour)
	// maxTokens bounds the tokens that are kept.
	maxTokens = 1024
)

// token is a join token and who has redeemed it.
type token struct {
	put    *pb.PutToken
	usedBy []string // node ids, in the order of redemption
}

func validToken(p *pb.PutToken) bool {
	return validName(p.GetId()) && len(p.GetSecretDigest()) == manifest.DigestSize && p.GetUses() > 0
}

// putToken adds a token; the same id again changes nothing.
func (s *state) putToken(p *pb.PutToken, now int64) *pb.Outcome {
	if !validToken(p) {
		return refuse(CodeMalformed, "a token needs an id, a digest of its secret and at least one use")
	}
	s.pruneTokens(now)
	if _, ok := s.tokens[p.GetId()]; ok {
		return done()
	}
	for len(s.tokens) >= maxTokens {
		delete(s.tokens, s.oldestToken())
	}
	s.tokens[p.GetId()] = &token{put: &pb.PutToken{
		Id: p.GetId(), SecretDigest: p.GetSecretDigest(), ExpiresNs: p.GetExpiresNs(), Uses: p.GetUses(),
	}}
	return done()
}

// useToken makes a joiner a member. The same node again, with the same token,
// is let in again: its first answer may have been lost.
func (s *state) useToken(u *pb.UseToken, now int64) *pb.Outcome {
	s.pruneTokens(now)
	t, ok := s.tokens[u.GetId()]
	if !ok {
		return refuse(CodeTokenUnknown, "this token is not known (or expired long ago); make a new one with gatesync token")
	}
	if subtle.ConstantTimeCompare(t.put.GetSecretDigest(), u.GetSecretDigest()) != 1 {
		return refuse(CodeTokenSecret, "the token's secret is wrong; copy the whole token again")
	}
	id := u.GetMember().GetId()
	_, member := s.members[id]
	again := member && slices.Contains(t.usedBy, id)
	switch {
	case again:
		// Neither its expiry nor its uses stand against a retry. It changes
		// nothing: every member has read the secret's digest in the log, and
		// nobody may move another node with it.
		return done()
	case member:
		return refuse(CodeMemberExists, "node %s is a member already; a token is for a new node", id)
	case t.put.GetExpiresNs() <= now:
		return refuse(CodeTokenExpired, "the token expired %s ago; make a new one with gatesync token",
			time.Duration(now-t.put.GetExpiresNs()).Round(time.Second))
	case len(t.usedBy) >= int(t.put.GetUses()):
		return refuse(CodeTokenUsedUp, "the token was used %d times, as often as it may be; make a new one with gatesync token", len(t.usedBy))
	}
	if o := s.admissible(u.GetMember()); o != nil {
		return o
	}
	s.setMember(u.GetMember(), now)
	t.usedBy = append(t.usedBy, id)
	return done()
}

func (s *state) pruneTokens(now int64) {
	for id, t := range s.tokens {
		// Written as a sum that cannot overflow: times come from outside.
		if e := t.put.GetExpiresNs(); e < now && uint64(now)-uint64(e) > uint64(tokenGrace) {
			delete(s.tokens, id)
		}
	}
}

// oldestToken returns the id of the token that expires first.
func (s *state) oldestToken() (oldest string) {
	for id, t := range s.tokens {
		o, ok := s.tokens[oldest]
		if !ok || t.put.GetExpiresNs() < o.put.GetExpiresNs() || t.put.GetExpiresNs() == o.put.GetExpiresNs() && id < oldest {
			oldest = id
		}
	}
	return oldest
}
