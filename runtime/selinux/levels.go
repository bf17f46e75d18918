package selinux

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
)

// categories is how many a policy has, by convention of all of them.
const categories = 1024

// Levels are those of the pods that exist. It is safe for concurrent use.
type Levels struct {
	mu   sync.Mutex // guards used
	used map[string]int
}

// Take finds a level with a pair of categories that no pod has, above the
// sensitivity of base, and keeps it.
func (l *Levels) Take(base string) (string, error) {
	sensitivity, _, _ := strings.Cut(base, ":")
	sensitivity, _, _ = strings.Cut(sensitivity, "-")
	l.mu.Lock()
	defer l.mu.Unlock()
	// Half a million pairs for some hundred pods: the second try is rare.
	for range 10000 {
		a, b := rand.IntN(categories), rand.IntN(categories)
		if a == b {
			continue
		}
		level := fmt.Sprintf("%s:c%d,c%d", sensitivity, min(a, b), max(a, b))
		if l.used[level] == 0 {
			l.keep(level)
			return level, nil
		}
	}
	return "", errors.New("SELinux: no pair of categories is free")
}

// Keep notes that a pod has this level, as often as it is called.
func (l *Levels) Keep(level string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(level)
}

func (l *Levels) keep(level string) {
	if l.used == nil {
		l.used = map[string]int{}
	}
	l.used[level]++
}

// Count is how often a level is kept.
func (l *Levels) Count(level string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used[level]
}

// Release takes one Keep or Take back.
func (l *Levels) Release(level string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used[level]--; l.used[level] <= 0 {
		delete(l.used, level)
	}
}
