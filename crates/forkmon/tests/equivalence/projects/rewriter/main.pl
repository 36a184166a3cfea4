# A formatter: it reads files and writes them again, in place, by a rename, anew, or cut
# and appended to, with other reads and work between.
use strict;
use warnings;
use Fcntl;
$| = 1;

sub work {
    my ($rounds) = @_;
    my $x = 1;
    $x = ($x * 69069 + $_) % 4294967296 for 1 .. $rounds;
    return $x;
}

sub slurp {
    my ($name) = @_;
    open(my $file, '<', $name) or return '';
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

print "begin ", work(200000), "\n";
my $style = slurp('style.conf') =~ /@(\d+)@/ ? $1 % 3 : 0;

sub format_text {
    my @lines = split /\n/, shift;
    @lines = sort @lines if $style == 0;
    @lines = reverse @lines if $style == 1;
    return join('', map { s/\s+/ /gr . "\n" } @lines);
}

print "style $style ", work(200000), "\n";
# In place, through one open file.
sysopen(my $file, 'data/place.txt', O_RDWR | O_CREAT) or die "place: $!\n";
sysread($file, my $text, 65536);
my $new = format_text($text // '');
sysseek($file, 0, 0);
syswrite($file, $new);
truncate($file, length $new);
print "in place ", length $new, ' ', work(200000), "\n";
# By a rename, while the first is still open.
spew('>', 'data/rename.tmp', format_text(slurp('data/rename.txt')));
rename('data/rename.tmp', 'data/rename.txt') or die;
print "renamed ", work(200000), "\n";
# Removed and made again.
$text = slurp('data/anew.txt');
unlink('data/anew.txt');
print "removed ", work(100000), "\n";
spew('>', 'data/anew.txt', format_text($text) . "anew\n") if length $text < 500;
# A backup that keeps the old name's file.
if (-e 'data/backup.txt') {
    rename('data/backup.txt', 'data/backup.txt~') or die;
    spew('>', 'data/backup.txt', format_text(slurp('data/backup.txt~')));
}
print "backed up ", work(200000), "\n";
syswrite($file, "appended after " . work(10) . "\n");
close($file);
# Two names of one file.
link('data/place.txt', 'data/linked') or print "there already\n";
spew('>>', 'data/linked', "through the other name\n");
my $last = slurp('last.txt') =~ /@(\d+)@/ ? $1 : 0;
print "last $last ", work(200000), "\n";
die "unlucky\n" if $last % 5 == 4;
print "place ", slurp('data/place.txt');
exit $last % 3;
