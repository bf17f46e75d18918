package stream

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
)

// Messages of the channel protocols over WebSocket. The first byte is the
// channel, the rest its data:
//
//	01 'h' 'i'       "hi" on channel 1
//	'1' 'a' 'G' 'k'  the same in the base64 form, as text
//	ff 00            channel 0 ends; since v5, and from the client only
const (
	stdinChannel = iota
	stdoutChannel
	stderrChannel
	errorChannel
	sizeChannel

	closeSignal = 255
)

// channelProtocol is one dialect.
type channelProtocol struct {
	name       string
	base64     bool
	halfClose  bool // a channel can end alone
	structured bool // the end is told in JSON
}

var (
	// remoteProtocols are those of exec and attach, which the kubelet's and
	// other runtimes' servers speak too.
	remoteProtocols = []channelProtocol{
		{name: "v5.channel.k8s.io", halfClose: true, structured: true},
		{name: "v4.channel.k8s.io", structured: true},
		{name: "v4.base64.channel.k8s.io", base64: true, structured: true},
		{name: "channel.k8s.io"},
		{name: "base64.channel.k8s.io", base64: true},
	}
	// portProtocols carry two channels for each port that the request names.
	portProtocols = []channelProtocol{
		{name: "v4.channel.k8s.io"},
		{name: "v4.base64.channel.k8s.io", base64: true},
	}
	oldestProtocol = channelProtocol{}
)

// frame is one message of a client.
type frame struct {
	channel byte
	data    io.Reader // the rest of the message, however long
	closes  bool      // the channel
}

var errEmptyFrame = errors.New("empty message")

// badFrame is a message that makes no sense.
type badFrame string

func (b badFrame) Error() string { return string(b) }

// decode begins to take a message apart.
func (p channelProtocol) decode(message io.Reader) (frame, error) {
	var first [1]byte
	if _, err := io.ReadFull(message, first[:]); err == io.EOF {
		return frame{}, errEmptyFrame
	} else if err != nil {
		return frame{}, err
	}
	channel := first[0]
	if p.halfClose && channel == closeSignal {
		which, err := io.ReadAll(io.LimitReader(message, 2))
		if err != nil {
			return frame{}, err
		}
		if len(which) != 1 {
			return frame{}, badFrame("close signal without one channel")
		}
		return frame{channel: which[0], closes: true}, nil
	}
	if !p.base64 {
		return frame{channel: channel, data: message}, nil
	}
	if channel < '0' || channel > '9' {
		return frame{}, badFrame(fmt.Sprintf("channel %q, want a digit", channel))
	}
	return frame{channel: channel - '0', data: base64.NewDecoder(base64.StdEncoding, message)}, nil
}

// isBad tells what the client wrote wrongly from a connection that ended.
func isBad(err error) bool {
	var bad badFrame
	var code base64.CorruptInputError
	return errors.As(err, &bad) || errors.As(err, &code) || errors.Is(err, io.ErrUnexpectedEOF)
}

// encode is a message for the client.
func (p channelProtocol) encode(channel byte, data []byte) []byte {
	if !p.base64 {
		return append([]byte{channel}, data...)
	}
	return base64.StdEncoding.AppendEncode([]byte{'0' + channel}, data)
}
