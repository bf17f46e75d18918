package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/config"
)

type logsCmd struct {
	Container  string `arg:"" help:"Name, id or the beginning of it; or a pod with one container."`
	Follow     bool   `short:"f" help:"Go on until the container ends."`
	Tail       int    `default:"-1" placeholder:"N" help:"Only the last lines."`
	Timestamps bool   `short:"t" help:"Begin each line with its time."`
}

func (c *logsCmd) Run(ctx context.Context, e *config.Endpoint, out io.Writer) error {
	cri, err := dial(e)
	if err != nil {
		return err
	}
	defer cri.Close()
	found, err := cri.find(ctx, c.Container)
	if err != nil {
		return err
	}
	container, _, err := cri.container(ctx, found.Id)
	if err != nil {
		return err
	}
	if container.LogPath == "" {
		return fmt.Errorf("container %q has no log", c.Container)
	}
	ended := func() (bool, error) {
		now, _, err := cri.container(ctx, found.Id)
		if status.Code(err) == codes.NotFound {
			return true, nil
		}
		return err == nil && now.State == criapi.ContainerState_CONTAINER_EXITED, err
	}
	if !c.Follow {
		ended = nil
	}
	show := &logPrinter{out: out, errOut: os.Stderr, timestamps: c.Timestamps}
	err = followLog(ctx, container.LogPath, c.Tail, show, ended)
	if errors.Is(err, context.Canceled) {
		return nil // Ctrl-C is how one stops to follow
	}
	return err
}

// logPrinter shows records of the kubelet's format, each
// "<time> stdout|stderr P|F <text>", where P means that the line goes on.
type logPrinter struct {
	out, errOut io.Writer
	timestamps  bool
	inside      map[string]bool // of a line, by stream
}

// record ignores what is not in the format: half a record at a crash.
func (p *logPrinter) record(line []byte) error {
	line = bytes.TrimSuffix(line, []byte("\n"))
	parts := bytes.SplitN(line, []byte(" "), 4)
	if len(parts) != 4 {
		return nil
	}
	name, text := string(parts[1]), parts[3]
	out := p.out
	if name == "stderr" {
		out = p.errOut
	}
	if p.timestamps && !p.inside[name] {
		text = append(append(bytes.Clone(parts[0]), ' '), text...)
	}
	tag, _, _ := bytes.Cut(parts[2], []byte(":"))
	partial := string(tag) == "P"
	if p.inside == nil {
		p.inside = map[string]bool{}
	}
	p.inside[name] = partial
	if !partial {
		text = append(bytes.Clone(text), '\n')
	}
	_, err := out.Write(text)
	return err
}

// lookEvery is how often a log that is followed is looked at.
const lookEvery = 100 * time.Millisecond

// followLog prints a log and, while ended is given and says no, what comes
// after. When the file was moved away and begun anew, it goes on there.
func followLog(ctx context.Context, path string, tail int, show *logPrinter, ended func() (bool, error)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { file.Close() }()
	if tail >= 0 {
		if err := seekTail(file, tail); err != nil {
			return err
		}
	}
	lines := &lineReader{r: bufio.NewReader(file)}
	for round := 0; ; round++ {
		// Asked before reading: what was written before the end is not missed.
		over := ended == nil
		if !over && round%10 == 0 {
			if over, err = ended(); err != nil {
				return err
			}
		}
		if err := lines.all(show.record); err != nil {
			return err
		}
		next, err := replaced(path, file)
		if err != nil {
			return err
		}
		switch {
		case next != nil:
			// The writer has moved on, so the old file is complete.
			err := lines.all(show.record)
			file.Close()
			file, lines = next, &lineReader{r: bufio.NewReader(next)}
			if err != nil {
				return err
			}
			continue
		case over:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// replaced opens the file at path if it is another one by now.
func replaced(path string, file *os.File) (*os.File, error) {
	now, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // between the move and the new file
	}
	if err != nil {
		return nil, err
	}
	known, err := file.Stat()
	if err != nil || os.SameFile(now, known) {
		return nil, err
	}
	return os.Open(path)
}

// lineReader gives whole lines, and keeps the beginning of one until its rest
// has been written.
type lineReader struct {
	r    *bufio.Reader
	half []byte
}

func (l *lineReader) all(each func(line []byte) error) error {
	for {
		part, err := l.r.ReadBytes('\n')
		l.half = append(l.half, part...)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(l.half); err != nil {
			return err
		}
		l.half = l.half[:0]
	}
}

// seekTail sets file to where its last lines begin. A line may be several
// records, of which all but the last are partial.
func seekTail(file *os.File, lines int) error {
	var starts []int64 // of the last lines
	var at int64
	begin := true
	reader := &lineReader{r: bufio.NewReader(file)}
	err := reader.all(func(line []byte) error {
		if begin {
			starts = append(starts, at)
			if len(starts) > lines {
				starts = starts[1:]
			}
		}
		at += int64(len(line))
		parts := bytes.SplitN(line, []byte(" "), 4)
		begin = len(parts) != 4 || !bytes.HasPrefix(parts[2], []byte("P"))
		return nil
	})
	if err != nil {
		return err
	}
	if len(starts) > 0 {
		at = starts[0]
	}
	_, err = file.Seek(at, io.SeekStart)
	return err
}
