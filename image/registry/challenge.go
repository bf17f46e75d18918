package registry

import "strings"

// challenge is one way to log in that a server offers.
type challenge struct {
	scheme string // lower case
	params map[string]string
}

// parseChallenges reads WWW-Authenticate headers (RFC 9110, 11.6.1). One
// header may hold several challenges, told apart only by a word that is not
// followed by "=". What cannot be read ends the list.
func parseChallenges(headers []string) []challenge {
	var all []challenge
	for _, h := range headers {
		all = append(all, parseChallenge(h)...)
	}
	return all
}

func parseChallenge(s string) []challenge {
	var all []challenge
	for {
		s = strings.TrimLeft(s, " \t,")
		word, rest := cutToken(s)
		if word == "" {
			return all
		}
		rest = strings.TrimLeft(rest, " \t")
		value, isParam := strings.CutPrefix(rest, "=")
		if !isParam {
			all = append(all, challenge{scheme: strings.ToLower(word), params: map[string]string{}})
			s = rest
			continue
		}
		text, after, ok := cutValue(strings.TrimLeft(value, " \t"))
		if !ok || len(all) == 0 {
			return all
		}
		key := strings.ToLower(word)
		params := all[len(all)-1].params
		if _, twice := params[key]; !twice {
			params[key] = text
		}
		s = after
	}
}

func cutToken(s string) (token, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}

// cutValue reads a token or a quoted text.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutToken(s)
		return value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			i++
			if i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}
