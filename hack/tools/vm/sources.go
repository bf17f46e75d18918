package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// machineMirror finds the URL of Debian's archive in this machine's apt sources:
// the first that has a whole release, not only its security updates, signed by
// Debian as far as the source says.
func machineMirror(etc string) (string, error) {
	files, err := filepath.Glob(filepath.Join(etc, "sources.list.d/*"))
	if err != nil {
		return "", err
	}
	for _, file := range append(files, filepath.Join(etc, "sources.list")) {
		text, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			return "", err
		}
		parse := parseList
		if strings.HasSuffix(file, ".sources") {
			parse = parseSources
		}
		if mirror := parse(string(text)); mirror != "" {
			return mirror, nil
		}
	}
	return "", fmt.Errorf("no source of a Debian release in %s: name one with -mirror", etc)
}

// releases are those whose mirrors also have the one that we use.
var releases = []string{"bookworm", "trixie", "stable", "oldstable", "testing", "unstable", "sid", "forky"}

func isRelease(suites []string) bool {
	return slices.ContainsFunc(suites, func(s string) bool { return slices.Contains(releases, s) })
}

// parseList reads lines of the old form: deb [options] URL suite component...
func parseList(text string) string {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "deb" {
			continue
		}
		fields = fields[1:]
		if len(fields) > 0 && strings.HasPrefix(fields[0], "[") {
			end := slices.IndexFunc(fields, func(f string) bool { return strings.HasSuffix(f, "]") })
			fields = fields[end+1:]
		}
		if len(fields) > 2 && isRelease(fields[1:2]) {
			return fields[0]
		}
	}
	return ""
}

// parseSources reads paragraphs of the new form, of which each field may go on
// in lines that begin with a space.
func parseSources(text string) string {
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		values := map[string][]string{}
		field := ""
		for line := range strings.Lines(paragraph) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			if name, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") {
				field, line = strings.ToLower(name), value
			}
			values[field] = append(values[field], strings.Fields(line)...)
		}
		if slices.Contains(values["types"], "deb") && isRelease(values["suites"]) && len(values["uris"]) > 0 {
			return values["uris"][0]
		}
	}
	return ""
}
