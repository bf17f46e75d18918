package stream

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"time"
)

// size is one size of a terminal, in characters.
type size struct{ Width, Height uint16 }

// maxSizeText bounds one size in a client's stream; it takes some 30 bytes.
const maxSizeText = 1 << 10

// sizePatience is how long the start of a program waits for the client to say
// how large its terminal is; many programs ask once, at their start.
const sizePatience = 10 * time.Millisecond

// firstSize is zero when the client says nothing.
func firstSize(sizes <-chan size) size {
	timer := time.NewTimer(sizePatience)
	defer timer.Stop()
	select {
	case s := <-sizes:
		return s
	case <-timer.C:
	}
	return size{}
}

// nextSize reads from a stream of sizes in JSON.
type nextSize func() (size, error)

func decodeSizes(r io.Reader) nextSize {
	limited := &io.LimitedReader{R: r}
	decoder := json.NewDecoder(limited)
	return func() (size, error) {
		limited.N = maxSizeText
		var s size
		err := decoder.Decode(&s)
		return s, err
	}
}

// readSizes passes the sizes on until the stream ends or makes no sense.
func readSizes(ctx context.Context, r io.ReadCloser) <-chan size {
	sizes := make(chan size)
	next := decodeSizes(r)
	begin(ctx, "read sizes", func() {
		defer close(sizes)
		defer r.Close() // what still comes must not hold the connection
		for {
			s, err := next()
			if err != nil {
				if err != io.EOF {
					slog.Debug("no more terminal sizes", "err", err)
				}
				return
			}
			select {
			case sizes <- s:
			case <-ctx.Done():
				return
			}
		}
	})
	return sizes
}
