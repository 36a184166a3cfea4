// Goroutines that compute and read, a ledger that is appended to, a header that is
// patched, a temporary file renamed into place, links, modes, and a panic at times.
package main

import (
	"bufio"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
)

func work(rounds int) uint32 {
	x := uint32(1)
	for i := 0; i < rounds; i++ {
		x = x*1103515245 + uint32(i)
	}
	return x
}

func number(text string) int {
	parts := strings.Split(text, "@")
	if len(parts) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(parts[1])
	return n
}

func slurp(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return "none: " + err.Error()
	}
	return strings.TrimSpace(string(text))
}

func must(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(9)
	}
}

func main() {
	fmt.Println("begin", slurp("config.txt"), work(30000000))
	ledger, err := os.OpenFile("ledger.txt", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0644)
	must(err)
	fmt.Fprintln(ledger, "started", number(slurp("config.txt")))
	fmt.Println("override", slurp("override.txt"), work(20000000))

	entries, err := os.ReadDir("data")
	must(err)
	sums := make([]int, len(entries))
	var all sync.WaitGroup
	for i, entry := range entries {
		all.Add(1)
		go func(i int, name string) {
			defer all.Done()
			sums[i] = number(slurp("data/" + name))
			work(2000000)
		}(i, entry.Name())
	}
	all.Wait()
	sum := 0
	for _, one := range sums {
		sum += one
	}
	fmt.Println("sum", sum, work(20000000))

	must(os.MkdirAll("out/deep", 0750))
	out, err := os.Create("out/table")
	must(err)
	fmt.Fprintf(out, "length %08d\n", 0)
	file, err := os.Open("words.txt")
	must(err)
	words := map[string]int{}
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		words[scanner.Text()]++
		work(1000000)
	}
	file.Close()
	var sorted []string
	for word := range words {
		sorted = append(sorted, word)
	}
	sort.Strings(sorted)
	for _, word := range sorted {
		fmt.Fprintln(out, word, words[word])
	}
	fmt.Println("words", len(sorted), work(20000000))
	end, err := out.Seek(0, 1)
	must(err)
	_, err = out.WriteAt([]byte(fmt.Sprintf("length %08d", end)), 0)
	must(err)
	must(out.Close())
	must(os.WriteFile("out/new", []byte(fmt.Sprintln("sum", sum)), 0600))
	must(os.Rename("out/new", "out/sum"))
	must(os.Symlink("sum", "out/current"))
	must(os.Link("out/sum", "out/deep/same"))
	must(os.Chmod("out/table", 0640))
	must(os.Remove("stale.txt"))
	last := number(slurp("last.txt"))
	fmt.Fprintln(os.Stderr, "on standard error", last)
	fmt.Fprintln(ledger, "last", last)
	fmt.Println("last", last)
	if last%5 == 4 {
		panic("unlucky")
	}
	os.Exit(last % 3)
}
