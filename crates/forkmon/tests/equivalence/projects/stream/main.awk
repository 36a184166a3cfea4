# Two long files, line by line with work between: an edit in the middle of one resumes
# where it was read. Output goes to files that stay open, and one that is closed.
function number(text) { return match(text, /@[0-9]+@/) ? substr(text, RSTART + 1, RLENGTH - 2) % 1000003 : 0 }
function work(rounds,   i, x) { x = 1; for (i = 0; i < rounds; i++) x = (x * 16807 + i) % 2147483647; return x }
FNR == 1 { print "file", FILENAME, work(20000) }
{
    sum += number($0)
    work(150)
}
FNR % 50 == 0 { print FILENAME, FNR, sum; print sum > "sums" }
FNR % 120 == 0 { printf "%d %d\n", FNR, sum > ("part." FNR); close("part." FNR) }
END {
    print "sum", sum
    getline last < "last.txt"
    print last, work(20000)
    exit number(last) % 3
}
