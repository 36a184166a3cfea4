dnl Files that are included with work between, one that need not be there, a child, a
dnl file that is made by a command, text that is diverted.
define(`work', `ifelse(eval($1 > 0), 1, `work(eval($1 - 1))')')dnl
define(`LOCAL', `none')dnl
begin
work(2000)dnl
include(`first.m4')dnl
FIRST
work(2000)dnl
sinclude(`local.m4')dnl
local LOCAL
divert(1)dnl
diverted until the end
include(`text.txt')dnl
divert(0)dnl
work(2000)dnl
syscmd(`mkdir out && cat child.txt > out/child && ln out/child out/same')dnl
child esyscmd(`cat child.txt')dnl
include(`second.m4')dnl
SECOND
work(2000)dnl
undivert(`last.txt')dnl
errprint(`on standard error FIRST
')dnl
ifelse(regexp(include(`last.txt'), `@[0-9]*[37]@'), -1, `', `m4exit(3)')dnl
