# Processes with pipes between them, each of which reads: the shell only starts them.
echo begin @10@
work() { i=0; while [ $i -lt "$1" ]; do i=$((i + 1)); done; }
mkdir out
work 8000
for stage in stages/*.sh; do
    echo "stage $stage"
    { cat inputs/*.txt; echo "for $stage"; } | sh "$stage" | tee "out/${stage##*/}.out" | tail -n 1
    work 4000
done
mkfifo out/fifo
cat child.txt > out/fifo &
sed 's/@/#/g' < out/fifo > out/from-fifo
wait
rm out/fifo
work 8000
sort inputs/*.txt | uniq -c > out/counted || exit 7
ls -l out | wc -l
read -r last < last.txt
echo "last $last"
grep -q '[48]@' last.txt && exit 3
true | false
