# One process for most of it: arrays, mapfile, a script that it reads as it goes, files
# kept open for writing over reads, a here document, a subshell, a background child.
echo begin @10@
work() { local i; for ((i = 0; i < $1; i++)); do :; done; }
number() { [[ $1 =~ @([0-9]+)@ ]] && echo $((10#${BASH_REMATCH[1]} % 1000003)) || echo 0; }
exec 5>> list.txt
work 2000
source parts/first.bash
work 2000
echo "first $first" >&5
mapfile -t lines < data/lines.txt
sum=0
for line in "${lines[@]}"; do
    sum=$((sum + $(number "$line")))
    work 700
done
echo "sum $sum @11@"
mkdir out out/empty || exit 8
exec 6<> out/patched
printf 'length %08d\n' 0 >&6
work 2000
while read -r word rest; do
    printf '%s\n' "$word" >&6
    echo "word $word"
    work 1000
done < data/words.txt
exec 6>&-
printf 'length %08d' $((sum % 1000)) 1<> out/patched
[[ -r hook.bash ]] && source hook.bash
work 2000
source parts/second.bash
echo "second $second" >&5
cat > out/document << END
a document of $first and $second
END
(cd out && ln -s document current && ln document same && chmod 640 same)
rmdir out/empty
rm -f out/never
mv out/document out/final
{ read -r child < child.txt; echo "child $child" > out/child; } &
wait
work 5000 # @12@
last=$(number "$(< last.txt)")
echo "last $last" >&2
echo "ended $last" >&5
work 2000
((last % 6 == 5)) && kill -USR1 $$
exit $((last % 4))
