# Lines of three files with work between, getline from another file and from a command,
# output into files, appended and through a pipe, system(), a status from the data.
function number(text) { return match(text, /@[0-9]+@/) ? substr(text, RSTART + 1, RLENGTH - 2) % 1000003 : 0 }
function work(rounds,   i, x) { x = 1; for (i = 0; i < rounds; i++) x = (x * 16807 + i) % 2147483647; return x }
BEGIN {
    print "begin @10@"
    fflush()
    while ((getline line < "config.txt") > 0) {
        split(line, pair, " ")
        config[pair[1]] = pair[2]
    }
    close("config.txt")
    print "config", config["title"], work(60000)
    if ((getline line < "more.txt") > 0) print "more", line
    system("mkdir -p out && chmod 700 out")
}
FNR == 1 { print "file", FILENAME, work(60000) }
{
    sum += number($0)
    print FILENAME, $0 > ("out/" FNR)
    print $1 >> "out/all"
    work(6000)
}
/line/ { print $0 | "sort -r" }
END {
    close("sort -r")
    "cat child.txt" | getline child
    print "child", child, work(60000)
    printf "sum %d\n", sum > "out/sum"
    close("out/sum")
    system("mv out/sum out/total; ln -s total out/link; rm -f stale.txt")
    getline last < "last.txt"
    print "last", last
    print "on standard error" > "/dev/stderr"
    exit number(last) % 4
}
