# do and require, a state that is read, rewritten and truncated, stat then read, a folder
# that is listed, sysopen, hard links counted, a file edited in place, die at times.
use strict;
use warnings;
use Fcntl;
$| = 1;
our ($first, $second, $local) = ('', '', 'none');
print "begin\n";

sub work {
    my ($rounds) = @_;
    my $x = 1;
    $x = ($x * 69069 + $_) % 4294967296 for 1 .. $rounds;
    return $x;
}

sub slurp {
    my ($name) = @_;
    open(my $file, '<', $name) or return undef;
    local $/;
    my $text = <$file>;
    return defined $text ? $text : '';
}

sub spew {
    my ($mode, $name, $text) = @_;
    open(my $file, $mode, $name) or die "cannot write $name: $!\n";
    print $file $text;
    close($file) or die;
}

sub number { return ($_[0] // '') =~ /@(\d+)@/ ? $1 : 0 }

print 'work ', work(300000), "\n";
do './parts/first.pl';
print "first $first ", work(300000), "\n";
my $state = slurp('state.txt');
sysopen(my $rw, 'state.txt', O_RDWR | O_CREAT) or die "state: $!\n";
syswrite($rw, sprintf("%d\n", number($state) + 1));
truncate($rw, 8);
print "state ", defined $state ? length $state : 'none', ' ', work(200000), "\n";
do './local.pl' if -e './local.pl';
print "local $local\n";

# Looks at all of them first, and reads them one by one.
my @names = sort glob('data/*.txt');
my $size = 0;
$size += -s $_ for @names;
print "size $size ", work(200000), "\n";
my $sum = 0;
for my $name (@names) {
    $sum += number(slurp($name));
    print "$name $sum ", work(100000), "\n";
}
require './parts/second.pl';
print "second $second\n";

mkdir 'out' or die "out: $!\n";
sysopen(my $lock, 'out/lock', O_WRONLY | O_CREAT | O_EXCL, 0600) or die "locked\n";
spew('>', 'out/report', "sum $sum\n");
spew('>>', 'out/report', "size $size\n");
rename('out/report', 'out/report.txt') or die;
symlink('report.txt', 'out/current');
link('out/report.txt', 'out/copy');
chmod 0600, 'out/report.txt';
spew('+<', 'ledger.txt', sprintf("%06d", $sum % 1000000)) if -e 'ledger.txt';
utime(1, 1, 'out/report.txt');
unlink('out/lock');
spew('>', "out/$_", $_) for 1 .. 5;
unlink(map { "out/$_" } 2 .. 4);
print STDERR "on standard error $sum\n";
while (my $line = readline(DATA)) { print "data $line" }
my $last = number(slurp('last.txt'));
print "last $last ", work(200000), "\n";
kill 'TERM', $$ if $last % 6 == 5;
die "unlucky $last\n" if $last % 6 == 4;
exit $last % 3;
__DATA__
one @1@
two @2@
