// Fetch puts stock kernels into the cache folder: fetch [NAME...], by default
// all. A kernel that is there already is left alone.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"vmm/guest/kernel"
)

func main() {
	names := os.Args[1:]
	if len(names) == 0 {
		names = kernel.Names()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, name := range names {
		k, err := kernel.Fetch(ctx, name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "fetch:", err)
			os.Exit(1)
		}
		fmt.Printf("%-8s %s\t%s\n", k.Name, k.Version, k.Image)
	}
}
