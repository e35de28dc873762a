package node

import (
	"fmt"
	"net"

	"github.com/gatesync/gatesync/config"
)

// ownAddress is what other nodes are told to dial. Where the settings name no
// particular address, the machine's first one that is not loopback is taken:
// guessed tells so. bound is where the port was opened; "" before that.
func ownAddress(cfg config.Config, bound string) (addr string, guessed bool, err error) {
	host, port, err := net.SplitHostPort(cfg.Address())
	if err != nil {
		return "", false, fmt.Errorf("listen address: %w", err)
	}
	if port == "0" && bound != "" {
		if _, port, err = net.SplitHostPort(bound); err != nil {
			return "", false, fmt.Errorf("listen address: %w", err)
		}
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return net.JoinHostPort(host, port), false, nil
	}
	host, err = firstAddress()
	return net.JoinHostPort(host, port), true, err
}

// firstAddress is this machine's first address that other machines can dial.
func firstAddress() (string, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("find this machine's address: %w", err)
	}
	found := ""
	for _, a := range all {
		ip, ok := a.(*net.IPNet)
		if !ok || !ip.IP.IsGlobalUnicast() {
			continue
		}
		if ip.IP.To4() != nil {
			return ip.IP.String(), nil
		}
		if found == "" {
			found = ip.IP.String()
		}
	}
	if found == "" {
		return "127.0.0.1", nil // a machine without a network: a cluster of its own
	}
	return found, nil
}
