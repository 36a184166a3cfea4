# Three files in turn, a file that is read in, and two that are written.
1i\
begin @10@
:again
s/@\([0-9]\)\([0-9]*\)@/<\1>@\2@/
tagain
/line/w lines.out
$r appendix.txt
p
G
h
/three/{
s/\n.*//
w threes.out
}
$q5
