package stream

import (
	"encoding/base64"
	"errors"
	"fmt"
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
	data    []byte
	closes  bool // the channel
}

var errEmptyFrame = errors.New("empty message")

// decode takes a message apart. The data may be part of the message.
func (p channelProtocol) decode(message []byte) (frame, error) {
	if len(message) == 0 {
		return frame{}, errEmptyFrame
	}
	channel, data := message[0], message[1:]
	if p.halfClose && channel == closeSignal {
		if len(data) != 1 {
			return frame{}, fmt.Errorf("close signal with %d bytes, want one channel", len(data))
		}
		return frame{channel: data[0], closes: true}, nil
	}
	if !p.base64 {
		return frame{channel: channel, data: data}, nil
	}
	if channel < '0' || channel > '9' {
		return frame{}, fmt.Errorf("channel %q, want a digit", channel)
	}
	decoded := make([]byte, base64.StdEncoding.DecodedLen(len(data)))
	n, err := base64.StdEncoding.Decode(decoded, data)
	if err != nil {
		return frame{}, fmt.Errorf("channel %c: %w", channel, err)
	}
	return frame{channel: channel - '0', data: decoded[:n]}, nil
}

// encode is a message for the client.
func (p channelProtocol) encode(channel byte, data []byte) []byte {
	if !p.base64 {
		return append([]byte{channel}, data...)
	}
	return base64.StdEncoding.AppendEncode([]byte{'0' + channel}, data)
}
