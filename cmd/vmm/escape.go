package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
)

// oneLine escapes what would break a line or control the terminal: the names of flags
// and files come from the user, or even from a stranger.
func oneLine(s string) string {
	return escape(s, func(b *strings.Builder, r rune) { b.WriteString(strings.Trim(strconv.QuoteRune(r), "'")) })
}

// oneLineJSON is oneLine for JSON, whose meaning it keeps. Characters that a terminal
// might interpret occur only in strings, and encoding/json does not escape DEL and
// non-ASCII characters.
func oneLineJSON(s string) string {
	return escape(s, func(b *strings.Builder, r rune) {
		if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
			fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		} else {
			fmt.Fprintf(b, `\u%04x`, r)
		}
	})
}

func escape(s string, quote func(*strings.Builder, rune)) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			quote(&b, r)
		}
	}
	return b.String()
}

// printJSON prints v in lines, indented if indent is not "".
func printJSON(w io.Writer, v any, indent string) error {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := (escaping{w, oneLineJSON}).Write([]byte(line)); err != nil {
			return err
		}
	}
	return nil
}
