//! Perl.

use crate::harness::{Project, Scenario};
use crate::require_guest;

#[test]
fn perl_resumes_before_a_module_that_it_read_late() {
    let perl = require_guest!("perl");
    let project = Project::new("perl")
        .file(
            "main.pl",
            r#"
use strict; use warnings; use lib 'lib';
$| = 1;
print "early 1\n";
require Work; Work::work(0.25);
print "after the work\n";
require Late;
print "late ", Late::value(), "\n";
"#,
        )
        .file(
            "lib/Work.pm",
            r#"
package Work;
sub work {
    my $stop = (times)[0] + shift;
    my $x = 0;
    while ((times)[0] < $stop) { $x = ($x * 31 + $_) % 1000003 for 1 .. 10000 }
}
1;
"#,
        )
        .file("lib/Late.pm", "package Late; sub value { 'one' } 1;\n");
    Scenario::new(project, &[perl.as_str(), "main.pl"], "lib/Late.pm").check(
        "package Late; sub value { 'two' } 1;\n",
        "package Late; sub value { 'three, and longer' } 1;\n",
    );
}
