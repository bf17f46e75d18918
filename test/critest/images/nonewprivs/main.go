// Command nonewprivs prints its effective user. Its file is setuid root: it
// prints 0 unless the kernel was told to grant no new privileges.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Printf("Effective uid: %d\n", os.Geteuid())
}
