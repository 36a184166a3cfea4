//! Ruby, which starts a timer thread of its own.

use crate::harness::{Project, Scenario};
use crate::require_guest;

const MAIN: &str = r#"
$stdout.sync = true
puts "early 1"
require_relative "lib/work"
work(0.3)
puts "after the work"
require_relative "lib/late"
puts "late #{LATE}"
"#;

const WORK: &str = r#"
def work(seconds)
  stop = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
  x = 0
  while Process.clock_gettime(Process::CLOCK_MONOTONIC) < stop
    10000.times { |i| x = (x * 31 + i) % 1000003 }
  end
end
"#;

#[test]
fn ruby_resumes_before_a_file_that_it_read_late() {
    let ruby = require_guest!("ruby");
    let project = Project::new("ruby")
        .file("main.rb", MAIN)
        .file("lib/work.rb", WORK)
        .file("lib/late.rb", "LATE = 'one'\n");
    Scenario::new(project, &[ruby.as_str(), "main.rb"], "lib/late.rb")
        .check("LATE = 'two'\n", "LATE = 'three, and longer'\n");
}

#[test]
fn a_ruby_thread_goes_on_after_the_resume() {
    let ruby = require_guest!("ruby");
    let main = r#"
$stdout.sync = true
puts "early 1"
questions, answers = Queue.new, Queue.new
Thread.new { loop { answers << questions.pop.upcase } }
require_relative "lib/work"
work(0.3)
questions << "warm"
puts answers.pop
require_relative "lib/late"
questions << LATE
puts "late #{answers.pop}"
"#;
    let project = Project::new("ruby-thread")
        .file("main.rb", main)
        .file("lib/work.rb", WORK)
        .file("lib/late.rb", "LATE = 'one'\n");
    Scenario::new(project, &[ruby.as_str(), "main.rb"], "lib/late.rb")
        .check("LATE = 'two'\n", "LATE = 'three, and longer'\n");
}
