package image

import (
	"strconv"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestUserOfAnImage(t *testing.T) {
	for user, want := range map[string]string{
		"": " ", "1002": "1002 ", "1003:1004": "1003 ", "www-data": " www-data", "www-data:1004": " www-data", "0": "0 ", "2147483647:g": "2147483647 ",
		":5": " ", "1a": " 1a",
	} {
		c := Config{User: user}
		if err := c.check(); err != nil {
			t.Errorf("%q is refused: %v", user, err)
		}
		uid, name := c.UserUIDOrName()
		got := " " + name
		if uid != nil {
			got = strconv.FormatInt(*uid, 10) + got
		}
		if got != want {
			t.Errorf("UserUIDOrName of %q = %q, want %q", user, got, want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"architecture":"amd64","os":"linux","config":{"User":"1:2","Env":["A=b"],"Volumes":{"/x":{}}},"rootfs":{"type":"layers","diff_ids":["sha256:00"]}}`))
	f.Add([]byte(`{"config":null,"rootfs":null,"created":"2020-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"config":{"User":"99999999999999999999"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseConfig(data)
		if err != nil {
			return
		}
		if uid, _ := p.config.UserUIDOrName(); uid != nil && (*uid < 0 || *uid > 1<<31-1) {
			t.Fatalf("uid %d of %q", *uid, data)
		}
	})
}
