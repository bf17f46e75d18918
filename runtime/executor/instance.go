package executor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// instanceFile holds the mark of our control groups. A path would not do: a daemon
// in a container, whose groups we see, may have a state folder of the same path.
const instanceFile = "instance"

var instanceForm = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// makeInstance gives the mark of the state folder, and makes it once. It is used
// only after it was written whole, so a half written one marks nothing. With an
// error, as of a full disk, the mark is good for this daemon only: later ones
// leave the groups alone that it does not remove.
func makeInstance(state string) (string, error) {
	mark, err := readInstance(state)
	if mark != "" {
		return mark, nil
	}
	mark = rand.Text()
	if err == nil {
		err = os.WriteFile(filepath.Join(state, instanceFile), []byte(mark), 0o600)
	}
	if err != nil {
		err = fmt.Errorf("keep the instance's mark: %w", err)
	}
	return mark, err
}

// readInstance is empty where no mark was made, or only a part of it.
func readInstance(state string) (string, error) {
	text, err := os.ReadFile(filepath.Join(state, instanceFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the instance's mark: %w", err)
	}
	if !instanceForm.Match(text) {
		return "", nil
	}
	return string(text), nil
}
