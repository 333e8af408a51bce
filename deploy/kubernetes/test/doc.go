// Package test checks the manifests of the folder above as Kubernetes would read
// them. It is a module of its own, so that otpq stays free of Kubernetes' packages.
package test
