package passwd

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

const (
	users = "# people\n\nroot:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\n" +
		"default-user:x:1000:1000::/home/user:/bin/sh\nnohome:x:5:6\nbig:x:4294967296:0::/:\n" +
		"neg:x:-1:0::/:\nempty:x:::::\nbadgid:x:77:99999999999:g:/h:s\nctl:x:78:78:g:/h\x01:s\n" +
		"+:x:0:0:::\n12345:x:0:0::/root:/bin/sh\nweb:x:0:0::/root:/bin/sh\ncrlf:x:79:79::/home/c:/bin/sh\r\n"
	groups = "root:x:0:\nwww:x:33:web\nextra:x:50000:default-user,web\nmore:x:7: root , web\nbroken:x:9999999999:web\n" +
		"notweb:x:8:webber,theweb\nshort:x:9\n"
)

func p(n int64) *int64 { return &n }

func TestResolveAnswersTheRequest(t *testing.T) {
	for name, c := range map[string]struct {
		req  Request
		want User
	}{
		"nothing asked is root":        {Request{}, User{Groups: []uint32{0, 7}, Home: "/root", Name: "root"}},
		"uid in the image":             {Request{RunAsUser: p(1000), SupplementalGroups: []int64{1234}}, User{1000, 1000, []uint32{1000, 1234, 50000}, "/home/user", "default-user"}},
		"strict leaves image's out":    {Request{RunAsUser: p(1000), SupplementalGroups: []int64{1234}, Strict: true}, User{1000, 1000, []uint32{1000, 1234}, "/home/user", "default-user"}},
		"uid unknown":                  {Request{RunAsUser: p(4711)}, User{4711, 0, []uint32{0}, "/", ""}},
		"uid unknown with group":       {Request{RunAsUser: p(4711), RunAsGroup: p(12)}, User{4711, 12, []uint32{12}, "/", ""}},
		"user name":                    {Request{RunAsUsername: "web"}, User{33, 33, []uint32{7, 33, 50000}, "/var/www", "web"}},
		"user name and group":          {Request{RunAsUsername: "web", RunAsGroup: p(1)}, User{33, 1, []uint32{1, 7, 33, 50000}, "/var/www", "web"}},
		"digits as user name":          {Request{RunAsUsername: "12345"}, User{12345, 0, []uint32{0}, "/", ""}},
		"image uid":                    {Request{ImageUser: "33"}, User{33, 33, []uint32{7, 33, 50000}, "/var/www", "web"}},
		"image uid, never a name":      {Request{ImageUser: "12345"}, User{12345, 0, []uint32{0}, "/", ""}},
		"image uid:gid":                {Request{ImageUser: "1003:1004"}, User{1003, 1004, []uint32{1004}, "/", ""}},
		"image name:gid":               {Request{ImageUser: "web:1004", Strict: true}, User{33, 1004, []uint32{1004}, "/var/www", "web"}},
		"image name:group":             {Request{ImageUser: "web:extra", Strict: true}, User{33, 50000, []uint32{50000}, "/var/www", "web"}},
		"request stands before image":  {Request{RunAsUser: p(0), ImageUser: "nobody-knows"}, User{0, 0, []uint32{0, 7}, "/root", "root"}},
		"line without home":            {Request{ImageUser: "nohome"}, User{5, 6, []uint32{6}, "/", "nohome"}},
		"line with carriage return":    {Request{ImageUser: "crlf"}, User{79, 79, []uint32{79}, "/home/c", "crlf"}},
		"largest id":                   {Request{RunAsUser: p(math.MaxInt32)}, User{math.MaxInt32, 0, []uint32{0}, "/", ""}},
		"leading zeros are decimal":    {Request{ImageUser: "0033"}, User{33, 33, []uint32{7, 33, 50000}, "/var/www", "web"}},
		"doubles are reported once":    {Request{RunAsUser: p(4711), SupplementalGroups: []int64{5, 0, 5}}, User{4711, 0, []uint32{0, 5}, "/", ""}},
		"second line of a name is not": {Request{ImageUser: "web", Strict: true}, User{33, 33, []uint32{33}, "/var/www", "web"}},
	} {
		got, err := Resolve(c.req, []byte(users), []byte(groups))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}

func TestImpossibleUsersAreNamed(t *testing.T) {
	for want, req := range map[string]Request{
		`run_as_username "web": run_as_user 1 is set too`:                                    {RunAsUser: p(1), RunAsUsername: "web"},
		`run_as_group "5": needs run_as_user or run_as_username`:                             {RunAsGroup: p(5), ImageUser: "web"},
		`run_as_user "-1": not between 0 and 2147483647`:                                     {RunAsUser: p(-1)},
		`run_as_user "2147483648": not between 0 and 2147483647`:                             {RunAsUser: p(1 << 31)},
		`run_as_group "4294967296": not between 0 and 2147483647`:                            {RunAsUser: p(1), RunAsGroup: p(1 << 32)},
		`supplemental_groups[0] "-5": not between 0 and 2147483647`:                          {SupplementalGroups: []int64{-5}},
		`user "4294967296": not between 0 and 2147483647`:                                    {ImageUser: "4294967296"},
		`user "2147483648": not between 0 and 2147483647`:                                    {ImageUser: "2147483648:1"},
		`user "99999999999999999999": not a number between 0 and 2147483647`:                 {ImageUser: "99999999999999999999"},
		`group "2147483648": not between 0 and 2147483647`:                                   {ImageUser: "0:2147483648"},
		`run_as_username "ghost": not in /etc/passwd of the image`:                           {RunAsUsername: "ghost"},
		`user "ghost": not in /etc/passwd of the image`:                                      {ImageUser: "ghost:0"},
		`group "ghosts": not in /etc/group of the image`:                                     {ImageUser: "web:ghosts"},
		`user "-1": not a name`:                                                              {ImageUser: "-1"},
		`user "+0": not a name`:                                                              {ImageUser: "+0"},
		`user "a\nroot": not a name`:                                                         {ImageUser: "a\nroot"},
		`run_as_username "web:root": not a name`:                                             {RunAsUsername: "web:root"},
		`user "": empty name`:                                                                {ImageUser: ":5"},
		`user "web:": want user or user:group`:                                               {ImageUser: "web:"},
		`user "web:1:2": want user or user:group`:                                            {ImageUser: "web:1:2"},
		`user "big": /etc/passwd: uid "4294967296": not between 0 and 2147483647`:            {ImageUser: "big"},
		`user "neg": /etc/passwd: uid "-1": not a number between 0 and 2147483647`:           {ImageUser: "neg"},
		`user "empty": /etc/passwd: uid "": not a number between 0 and 2147483647`:           {ImageUser: "empty"},
		`run_as_user "badgid": /etc/passwd: gid "99999999999": not between 0 and 2147483647`: {RunAsUser: p(77)},
		`user "ctl": /etc/passwd: home "/h\x01" holds control characters`:                    {ImageUser: "ctl"},
		`group "broken": /etc/group: gid "9999999999": not between 0 and 2147483647`:         {ImageUser: "web:broken"},
		`user "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...": name of 257 bytes, at most 256`:         {ImageUser: strings.Repeat("a", 257)},
	} {
		got, err := Resolve(req, []byte(users), []byte(groups))
		if err == nil || err.Error() != want {
			t.Errorf("got %+v, error %v; want error %s", got, err, want)
		}
	}
	if _, err := Resolve(Request{}, make([]byte, MaxFile+1), nil); err == nil {
		t.Error("a file above the limit was parsed")
	}
}

func TestALineWithABrokenNumberIsNobody(t *testing.T) {
	for _, number := range []string{"", "x", "-0", "4294967296", "99999999999999999999", "0x0", " 0"} {
		passwd := "evil:x:" + number + ":7::/evil:/bin/sh\nroot:x:0:0::/root:/bin/sh\n"
		got, err := Resolve(Request{RunAsUser: p(0)}, []byte(passwd), nil)
		if err != nil || got.Name != "root" {
			t.Errorf("uid %q before root: got %+v, %v; want root", number, got, err)
		}
		if got, err := Resolve(Request{ImageUser: "evil"}, []byte(passwd), nil); err == nil {
			t.Errorf("user with uid %q: got %+v, want an error", number, got)
		}
	}
}

func TestTooManyGroupsAreRefused(t *testing.T) {
	var many strings.Builder
	for range 60000 {
		many.WriteString("g:x:1:root\n")
	}
	if got, err := Resolve(Request{}, []byte(users), []byte(many.String())); err != nil || len(got.Groups) != 2 {
		t.Errorf("60000 lines of one group: %d groups, %v; want 2", len(got.Groups), err)
	}
	req := Request{}
	for n := range int64(maxGroups + 1) {
		req.SupplementalGroups = append(req.SupplementalGroups, n)
	}
	if _, err := Resolve(req, nil, nil); err == nil {
		t.Error("65537 groups were accepted")
	}
}
