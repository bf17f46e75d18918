//go:build broken_sync

package broken

// Sync: layers are marked as durable without a sync.
const Sync = true
