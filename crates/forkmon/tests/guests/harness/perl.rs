//! Small guests in Perl, which starts in 3 ms and has every file call: they
//! lie beside the project, so that only what they do in it is in scope.

use super::Project;

const PRELUDE: &str = r#"
use strict; use warnings; use Fcntl qw(:DEFAULT :mode);
$| = 1;

# The text of a file, without the end of its last line.
sub slurp {
    open(my $file, '<', $_[0]) or return 'missing';
    local $/;
    my $text = <$file>;
    $text =~ s/\s+\z//;
    return $text;
}

# Cuts a file and writes it.
sub spew {
    my ($name, $text) = @_;
    open(my $file, '>', $name) or die "$name: $!";
    print $file $text;
    close($file) or die "$name: $!";
}

# Keeps the processor busy for so many seconds.
sub work {
    my $stop = (times)[0] + shift;
    my $x = 0;
    while ((times)[0] < $stop) { $x = ($x * 31 + $_) % 1000003 for 1 .. 10000 }
}

print "early 1\n";
work(0.2);
"#;

impl Project {
    /// Writes a guest in Perl and gives its path. It has said `early 1` and
    /// worked for 0.2 s when `body` begins, and knows `slurp`, `spew`, `work`.
    pub fn perl(&self, body: &str) -> String {
        let path = self.beside().join("guest.pl");
        std::fs::write(&path, format!("{PRELUDE}{body}")).expect("the guest can be written");
        path.to_str().expect("a plain name").to_owned()
    }
}
