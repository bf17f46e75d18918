//go:build broken_takeback

package broken

// TakeBack: pods that an earlier daemon had begun to make are not taken away.
const TakeBack = true
