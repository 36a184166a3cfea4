# Parts that are sourced, lines that are read one by one, children that read, a log,
# links, folders, modes, a trap.
echo begin '@10@'
work() {
    i=0
    while [ $i -lt "$1" ]; do i=$((i + 1)); done
}
number() {
    n=${1#*@}
    echo "${n%%@*}"
}
work 6000
. ./parts/first.sh
work 6000
mkdir -p out/deep
while read -r line; do
    echo "line $line"
    work 700
done < data/list.txt
cat data/child.txt
echo "the log $(wc -l < log.txt)" >> log.txt
work 6000
. ./parts/second.sh
if [ -e hook.sh ]; then . ./hook.sh; fi
umask 027
echo "$first $second" > out/deep/both.tmp
mv out/deep/both.tmp out/deep/both
ln -s deep/both out/link
ln out/deep/both out/same
chmod 600 out/deep/both
: > out/scratch
rm out/scratch
work 6000
read -r last < last.txt
echo "last $last" 1>&2
set -C
echo exclusive > out/once
rmdir empty 2> out/errors
trap 'echo "the trap $last"' EXIT
last=$(number "$last")
work 4000
kill_at=$((last % 6))
[ $kill_at -eq 5 ] && kill -TERM $$
exit $((last % 4))
