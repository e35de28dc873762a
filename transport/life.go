package transport

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/gatesync/gatesync/cluster"
)

// Nodes of an older life of the cluster yield to a newer one. That a newer one
// exists is nothing that a certificate alone may claim: the key of the
// cluster's CA signs it. The key is in the log, so whoever has recovered the
// cluster, or has received the recovered log, can prove it; a thief of a node's
// certificate cannot. A cluster with an own PKI has no such key: there nobody
// yields by itself, and the operator says it (`join --again`).

// SignLife proves that the CA's cluster is in an incarnation.
func (c CA) SignLife(in cluster.Incarnation) (proof string, err error) {
	key, err := parseKey(c.Key)
	if err != nil {
		return "", fmt.Errorf("the CA's key: %w", err)
	}
	digest := sha256.Sum256(lifeText(c.ClusterID, in))
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return "", fmt.Errorf("sign the incarnation: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sig), nil
}

// lifeText is what is signed; it is no beginning of a certificate.
func lifeText(clusterID string, in cluster.Incarnation) []byte {
	return []byte("gatesync incarnation\n" + clusterID + "\n" + strconv.FormatUint(uint64(in), 10) + "\n")
}

// lifeProven tells whether one of the CAs has signed an incarnation. Old
// versions prove nothing.
func lifeProven(clusterID string, in cluster.Incarnation, proof string, cas []*x509.Certificate) bool {
	sig, err := base64.RawURLEncoding.DecodeString(proof)
	if err != nil || len(sig) == 0 {
		return false
	}
	for _, ca := range cas {
		if ca.IsCA && ca.CheckSignature(x509.ECDSAWithSHA256, lifeText(clusterID, in), sig) == nil {
			return true
		}
	}
	return false
}

// Callers say the proof as one more name in ALPN, beside their instance.
const (
	proofPrefix = "gatesync-life/1:"
	maxProof    = 128
)

// introduction is what a caller offers in ALPN, its protocol first. A proof
// that does not fit is left out: a name in ALPN has a byte for its length.
func introduction(proto string, self Instance, proof string) []string {
	names := []string{proto, self.alpn()}
	if proof != "" && len(proof) <= maxProof {
		names = append(names, proofPrefix+proof)
	}
	return names
}

func parseProof(protos []string) (proof string) {
	for _, p := range protos {
		if text, ok := strings.CutPrefix(p, proofPrefix); ok && len(text) <= maxProof {
			return text
		}
	}
	return ""
}
