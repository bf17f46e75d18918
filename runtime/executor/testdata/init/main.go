// Command init is package boot alone, linked statically: a test binary may
// need a dynamic linker, which the reaping init's empty root does not have.
package main

import _ "cri-mini/runtime/boot"

func main() {}
