package passwd

import (
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// A second, slow reading of the two files, to compare with: it first makes a
// table of all lines and then looks up in it, and counts with big numbers.
type modelLine []string

func (l modelLine) at(i int) string {
	if i < len(l) {
		return l[i]
	}
	return ""
}

func modelTable(text string) (table []modelLine) {
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, "\r")
		field := strings.Split(line, ":")
		if strings.HasPrefix(line, "#") || len(field) < 3 || !modelName(field[0]) {
			continue
		}
		table = append(table, field)
	}
	return table
}

func modelName(s string) bool {
	if len(s) < 1 || len(s) > 256 || strings.HasPrefix(s, "-") || strings.HasPrefix(s, "+") {
		return false
	}
	for _, b := range []byte(s) {
		if b < 0x20 || b == 0x7f || b == ':' || b == ',' {
			return false
		}
	}
	return true
}

func modelDigits(s string) bool {
	for _, b := range []byte(s) {
		if b < '0' || b > '9' {
			return false
		}
	}
	return s != ""
}

func modelID(s string) (uint32, bool) {
	if !modelDigits(s) {
		return 0, false
	}
	n, _ := new(big.Int).SetString(s, 10)
	return uint32(n.Uint64()), n.Cmp(big.NewInt(1<<31)) < 0
}

func modelNumber(n int64) (uint32, bool) { return uint32(n), n >= 0 && n < 1<<31 }

// modelResolve answers whether there is a user, and which.
func modelResolve(req Request, passwd, group string) (u User, ok bool) {
	asked, primary := req.RunAsUsername, ""
	switch {
	case req.RunAsUser != nil && asked != "", req.RunAsUser == nil && asked == "" && req.RunAsGroup != nil:
		return User{}, false
	case req.RunAsUser != nil:
		n := big.NewInt(*req.RunAsUser)
		if n.Sign() < 0 {
			return User{}, false
		}
		asked = n.String()
	case asked == "" && req.ImageUser == "":
		asked = "0"
	case asked == "":
		parts := strings.Split(req.ImageUser, ":")
		if asked = parts[0]; len(parts) > 2 || len(parts) == 2 && parts[1] == "" {
			return User{}, false
		}
		if len(parts) == 2 {
			primary = parts[1]
		}
	}
	if u, ok = modelUser(asked, passwd); !ok {
		return User{}, false
	}
	if req.RunAsGroup != nil {
		u.GID, ok = modelNumber(*req.RunAsGroup)
	} else if primary != "" {
		u.GID, ok = modelGroup(primary, group)
	}
	if !ok {
		return User{}, false
	}
	set := map[uint32]bool{u.GID: true}
	for _, n := range req.SupplementalGroups {
		id, ok := modelNumber(n)
		if !ok {
			return User{}, false
		}
		set[id] = true
	}
	for _, line := range modelTable(group) {
		for _, m := range strings.Split(strings.Join(line[3:], ":"), ",") {
			if id, ok := modelID(line[2]); ok && u.Name != "" && strings.TrimSpace(m) == u.Name && !req.Strict {
				set[id] = true
			}
		}
	}
	for id := range set {
		u.Groups = append(u.Groups, id)
	}
	slices.Sort(u.Groups)
	return u, true
}

func modelUser(asked, passwd string) (User, bool) {
	number, fits := modelID(asked)
	if modelDigits(asked) && !fits || !modelDigits(asked) && !modelName(asked) {
		return User{}, false
	}
	for _, line := range modelTable(passwd) {
		name, home := line.at(0), line.at(5)
		uid, uidOK := modelID(line.at(2))
		gid, gidOK := modelID(line.at(3))
		if fits && (!uidOK || uid != number) || !fits && name != asked {
			continue
		}
		if !uidOK || !gidOK || strings.ContainsFunc(home, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return User{}, false
		}
		if home == "" {
			home = "/"
		}
		return User{UID: uid, GID: gid, Home: home, Name: name}, true
	}
	return User{UID: number, Home: "/"}, fits
}

func modelGroup(asked, group string) (uint32, bool) {
	if modelDigits(asked) {
		return modelID(asked)
	}
	for _, line := range modelTable(group) {
		if modelName(asked) && line[0] == asked {
			return modelID(line.at(2))
		}
	}
	return 0, false
}

// FuzzResolve has the package and the model answer the same for all requests
// and all files.
func FuzzResolve(f *testing.F) {
	f.Add("web:extra", "", []byte{}, []byte(users), []byte(groups))
	f.Add("", "web", []byte{4}, []byte("web:x:0"), []byte("g:x:1:web"))
	f.Add("4294967296", "", []byte{16, 9}, []byte("4294967296:x:0:0::/:\n"), []byte(":::"))
	f.Add("", "default-user", []byte{2, 7, 3, 200, 1, 1}, []byte(users), []byte(groups))
	f.Add("", "", []byte{1, 33}, []byte(users), []byte(groups))
	f.Add("web:www", "", []byte{}, []byte("web:x:5:6:c:/h:s:more:fields\n"), []byte("www:x:7:a:b,web:\nx:y:08:web ,\n"))
	f.Fuzz(func(t *testing.T, imageUser, userName string, numbers, passwd, group []byte) {
		req := requestOf(imageUser, userName, numbers)
		got, err := Resolve(req, passwd, group)
		want, ok := modelResolve(req, string(passwd), string(group))
		if ok != (err == nil) || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v: got %+v, %v; want %+v, %v", req, got, err, want, ok)
		}
	})
}

// requestOf makes a request. The first number tells what is set, the others
// are taken in turn.
func requestOf(imageUser, userName string, numbers []byte) Request {
	req := Request{ImageUser: imageUser, RunAsUsername: userName}
	next := func() (n int64) {
		if len(numbers) > 0 {
			n, numbers = int64(int8(numbers[0])), numbers[1:]
		}
		if n == 127 {
			n = 1 << 31
		}
		return n
	}
	what := next()
	if what&1 != 0 {
		req.RunAsUser = p(next())
	}
	if what&2 != 0 {
		req.RunAsGroup = p(next())
	}
	req.Strict = what&4 != 0
	for range what & 24 >> 3 {
		req.SupplementalGroups = append(req.SupplementalGroups, next())
	}
	return req
}
