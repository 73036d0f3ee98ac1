// Package api is the HTTP API of one guest as openapi.yaml describes it: its
// types, and a client. Both are generated from there; package service is the
// server, package client the comfortable way to it.
package api

//go:generate go tool -modfile=generate/go.mod oapi-codegen -config generate/config.yaml -o api.gen.go openapi.yaml
