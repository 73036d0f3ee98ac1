// Package api is the HTTP API of one guest as openapi.yaml describes it: its types, and a
// client. Both are generated from that file. Package service is the server, and package
// client is the convenient way to it.
package api

//go:generate go tool -modfile=generate/go.mod oapi-codegen -config generate/config.yaml -o api.gen.go openapi.yaml
