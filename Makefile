# Every target works as root from a clean clone and prints what it does.
version := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
program := bin/cri-mini

.PHONY: build run test test-node test-crash test-cluster critest bench clean

build: # the product: one static file
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(version)" -o $(program) ./cmd/cri-mini

run: build # the main job: a pod from image to end, through the CRI
	hack/run

test: build # everything this machine can test
	hack/test

test-node: build # what needs a whole node, in a virtual machine of its own
	hack/testnode

test-crash: build # kills of daemon and monitor, at each point and at random, and power cuts: more than an hour
	hack/testcrash

test-cluster: # a Kubernetes cluster of two nodes, three minutes; half an hour more the first time
	hack/cluster test

critest: build # only the upstream CRI suite
	hack/critest

bench: build # times of each call beside what the kernel needs
	hack/bench

clean:
	rm -rf bin .cache
