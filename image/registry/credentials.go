package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"cri-mini/image/reference"
)

// Auth is what a caller knows to prove who it is, as in the CRI.
type Auth struct {
	Username      string
	Password      string
	Auth          string // base64 of username:password
	ServerAddress string // the only host that may get it; empty: the image's registry
	IdentityToken string // to be exchanged for an access token
	RegistryToken string // an access token
}

// credentials are an Auth taken apart and checked.
type credentials struct {
	username, password, identityToken, registryToken string
	domain                                           string // see Auth.ServerAddress
}

func (a *Auth) credentials() (credentials, error) {
	if a == nil {
		return credentials{}, nil
	}
	c := credentials{username: a.Username, password: a.Password, identityToken: a.IdentityToken, registryToken: a.RegistryToken}
	if a.ServerAddress != "" {
		domain, err := reference.Domain(a.ServerAddress)
		if err != nil {
			return credentials{}, fmt.Errorf("auth: server_address: %w", err)
		}
		c.domain = domain
	}
	if a.Auth != "" && c.username == "" && c.password == "" {
		// The value must not go into the error: half of it may be readable.
		text, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return credentials{}, errors.New("auth: auth is not base64")
		}
		user, password, ok := strings.Cut(string(text), ":")
		if !ok {
			return credentials{}, errors.New("auth: auth is not base64 of username:password")
		}
		c.username, c.password = user, strings.TrimRight(password, "\x00")
	}
	return c, nil
}

// forHost gives what h may see. Without an address, a password belongs to the
// registry in the image's name. A mirror does not get it: that is another
// host, and who runs it need not be trusted with passwords. An operator whose
// mirror wants one writes a header into the hosts file.
func (c credentials) forHost(h host, domain string) credentials {
	allowed := h.own
	if c.domain != "" {
		allowed = c.domain == h.url.Host || (c.domain == domain && h.own)
	}
	if !allowed {
		return credentials{}
	}
	return c
}
