# A long script that bash reads as it goes: an edit of a line resumes there.
work() { local i; for ((i = 0; i < $1; i++)); do :; done; }
number() { echo $((10#${1//[!0-9]/} % 1000)); }
log() { echo "$1" >> out.log; }
total=0
work 300; value=$(number '@2@'); total=$((total + value))
work 300; value=$(number '@3@'); total=$((total + value))
work 300; value=$(number '@4@'); total=$((total + value))
log 'step 3 @3@'
work 300; value=$(number '@5@'); total=$((total + value))
echo "4: $total"
work 300; value=$(number '@6@'); total=$((total + value))
work 300; value=$(number '@7@'); total=$((total + value))
log 'step 6 @6@'
work 300; value=$(number '@8@'); total=$((total + value))
echo "$total" > state.7; mv state.7 state.last
work 300; value=$(number '@9@'); total=$((total + value))
echo "8: $total"
work 300; value=$(number '@1@'); total=$((total + value))
log 'step 9 @9@'
work 300; value=$(number '@2@'); total=$((total + value))
work 300; value=$(number '@3@'); total=$((total + value))
while read -r line; do
    log "read $line"
    work 400
done < lines.txt
work 300; value=$(number '@4@'); total=$((total + value))
log 'step 12 @12@'
echo "12: $total"
work 300; value=$(number '@5@'); total=$((total + value))
work 300; value=$(number '@6@'); total=$((total + value))
echo "$total" > state.14; mv state.14 state.last
work 300; value=$(number '@7@'); total=$((total + value))
log 'step 15 @15@'
work 300; value=$(number '@8@'); total=$((total + value))
echo "16: $total"
work 300; value=$(number '@9@'); total=$((total + value))
mkdir -p made && cat < child.txt > made/child
work 300; value=$(number '@1@'); total=$((total + value))
log 'step 18 @18@'
work 300; value=$(number '@2@'); total=$((total + value))
work 300; value=$(number '@3@'); total=$((total + value))
echo "20: $total"
work 300; value=$(number '@4@'); total=$((total + value))
log 'step 21 @21@'
echo "$total" > state.21; mv state.21 state.last
work 300; value=$(number '@5@'); total=$((total + value))
work 300; value=$(number '@6@'); total=$((total + value))
if ((total % 11 == 7)); then echo stopped; exit 4; fi
work 300; value=$(number '@7@'); total=$((total + value))
log 'step 24 @24@'
echo "24: $total"
work 300; value=$(number '@8@'); total=$((total + value))
work 300; value=$(number '@9@'); total=$((total + value))
work 300; value=$(number '@1@'); total=$((total + value))
log 'step 27 @27@'
work 300; value=$(number '@2@'); total=$((total + value))
echo "28: $total"
echo "$total" > state.28; mv state.28 state.last
work 300; value=$(number '@3@'); total=$((total + value))
work 300; value=$(number '@4@'); total=$((total + value))
log 'step 30 @30@'
work 300; value=$(number '@5@'); total=$((total + value))
rm -rf made
work 300; value=$(number '@6@'); total=$((total + value))
echo "32: $total"
work 300; value=$(number '@7@'); total=$((total + value))
log 'step 33 @33@'
work 300; value=$(number '@8@'); total=$((total + value))
work 300; value=$(number '@9@'); total=$((total + value))
echo "$total" > state.35; mv state.35 state.last
work 300; value=$(number '@1@'); total=$((total + value))
log 'step 36 @36@'
echo "36: $total"
work 300; value=$(number '@2@'); total=$((total + value))
work 300; value=$(number '@3@'); total=$((total + value))
work 300; value=$(number '@4@'); total=$((total + value))
log 'step 39 @39@'
work 300; value=$(number '@5@'); total=$((total + value))
echo "40: $total"
echo "ended $total"
exit $((total % 3))
