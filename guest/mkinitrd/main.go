// Mkinitrd builds the initramfs for each of the named kernels (default: cloud) and prints
// its path, size and digest.
package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/signal"
	"time"

	"vmm/guest"
)

func main() {
	names := os.Args[1:]
	if len(names) == 0 {
		names = []string{"cloud"}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, name := range names {
		if err := build(ctx, name); err != nil {
			fmt.Fprintln(os.Stderr, "mkinitrd:", err)
			os.Exit(1)
		}
	}
}

func build(ctx context.Context, name string) error {
	began := time.Now()
	path, err := guest.Build(ctx, name)
	if err != nil {
		return err
	}
	image, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fmt.Printf("%s\t%.1f MB\tsha256 %x\t%.1f s\n", path, float64(len(image))/1e6, sha256.Sum256(image), time.Since(began).Seconds())
	return nil
}
