package main

import (
	"fmt"
	"runtime"
	"strconv"
	"time"
)

// threads says when it has at least as many as it was told.
func threads(args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	there := make(chan struct{})
	for range count {
		go func() {
			runtime.LockOSThread()
			there <- struct{}{}
			select {}
		}()
	}
	for range count {
		<-there
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return nil
}
