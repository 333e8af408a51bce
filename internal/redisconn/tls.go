package redisconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// takeTLS takes the TLS parameters out of the address, go-redis not knowing
// most of them, and returns the settings; nil without TLS.
func takeTLS(a address) (*tls.Config, error) {
	ca, cert, key := take(a.query, "ca_file"), take(a.query, "cert_file"), take(a.query, "key_file")
	skip := take(a.query, "skip_verify")
	if !strings.HasPrefix(a.scheme, "rediss") {
		if ca+cert+key+skip != "" {
			return nil, problem("ca_file, cert_file, key_file and skip_verify need TLS: say rediss")
		}
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(a.hosts) == 1 && !a.query.Has("addr") {
		// One name in the URL stands for all nodes: Sentinels and clusters
		// announce their nodes by address, and few certificates hold one.
		// With several names each server has to show its own.
		c.ServerName, _, _ = net.SplitHostPort(a.hosts[0])
	}
	if skip != "" {
		var err error
		if c.InsecureSkipVerify, err = strconv.ParseBool(skip); err != nil {
			return nil, problem("parameter skip_verify is neither true nor false")
		}
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, problem("ca_file %s", cause(err))
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, problem("ca_file holds no PEM certificate")
		}
	}
	if (cert == "") != (key == "") {
		return nil, problem("cert_file and key_file go together")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, problem("cert_file and key_file %s", cause(err))
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func take(query url.Values, name string) string {
	value := query.Get(name)
	query.Del(name)
	return value
}

// cause says why a file was of no use, without its content.
func cause(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return "cannot be read: " + p.Err.Error()
	}
	return "do not hold a PEM certificate and its key"
}
