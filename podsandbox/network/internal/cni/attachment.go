// Package cni runs CNI plugins.
package cni

type Attachment struct{}
