//! Node.js: eleven threads, a JIT, an event loop on epoll and eventfd.

use crate::harness::{Project, Scenario};
use crate::require_guest;

const WORK: &str = r#"
module.exports = function work(ms) {
  const stop = Date.now() + ms;
  let x = 0;
  while (Date.now() < stop) for (let i = 0; i < 10000; i++) x = (x * 31 + i) % 1000003;
  return x;
};
"#;

#[test]
fn commonjs_resumes_before_a_module_that_it_read_late() {
    let node = require_guest!("node");
    let main = r#"
console.log('early 1');
require('./lib/work')(400);
console.log('after the work');
console.log('late', require('./lib/late'));
"#;
    let project = Project::new("node")
        .file("main.js", main)
        .file("lib/work.js", WORK)
        .file("lib/late.js", "module.exports = 'one';\n");
    Scenario::new(project, &[node.as_str(), "main.js"], "lib/late.js").check(
        "module.exports = 'two';\n",
        "module.exports = 'three, and longer';\n",
    );
}

#[test]
fn modules_resume_before_a_module_that_was_imported_late() {
    let node = require_guest!("node");
    let main = r#"
console.log('early 1');
const { default: work } = await import('./lib/work.cjs');
work(400);
console.log('after the work');
const { late } = await import('./lib/late.mjs');
console.log('late', late);
"#;
    let project = Project::new("node-esm")
        .file("main.mjs", main)
        .file("lib/work.cjs", WORK)
        .file("lib/late.mjs", "export const late = 'one';\n");
    Scenario::new(project, &[node.as_str(), "main.mjs"], "lib/late.mjs").check(
        "export const late = 'two';\n",
        "export const late = 'three, and longer';\n",
    );
}

#[test]
fn a_timer_that_was_pending_at_the_checkpoint_fires() {
    let node = require_guest!("node");
    let main = r#"
console.log('early 1');
let ticks = 0;
const ticker = setInterval(() => { ticks++; }, 20);
setTimeout(() => {
  console.log('the timer fired', ticks > 0);
  clearInterval(ticker);
}, 900);
require('./lib/work')(400);
setTimeout(() => {
  console.log('after the work');
  console.log('late', require('./lib/late'));
}, 10);
"#;
    let project = Project::new("node-timer")
        .file("main.js", main)
        .file("lib/work.js", WORK)
        .file("lib/late.js", "module.exports = 'one';\n");
    Scenario::new(project, &[node.as_str(), "main.js"], "lib/late.js").check(
        "module.exports = 'two';\n",
        "module.exports = 'three, and longer';\n",
    );
}

#[test]
fn the_thread_pool_works_after_the_resume() {
    let node = require_guest!("node");
    let main = r#"
const crypto = require('crypto'), fs = require('fs'), util = require('util');
const pbkdf2 = util.promisify(crypto.pbkdf2);
console.log('early 1');
(async () => {
  // The pool has its threads before the checkpoint, too.
  await Promise.all([1, 2, 3, 4].map(n => pbkdf2('warm', 'salt' + n, 1000, 16, 'sha256')));
  require('./lib/work')(400);
  console.log('after the work');
  const late = require('./lib/late');
  const keys = await Promise.all([1, 2, 3, 4, 5, 6].map(n => pbkdf2(late, 'salt' + n, 5000, 16, 'sha256')));
  for (const key of keys) console.log('late', key.toString('hex'));
  console.log('read', (await fs.promises.readFile('data.txt', 'utf8')).trim());
  console.log('listed', (await fs.promises.readdir('lib')).join(' '));
})();
"#;
    let project = Project::new("node-pool")
        .file("main.js", main)
        .file("data.txt", "some data\n")
        .file("lib/work.js", WORK)
        .file("lib/late.js", "module.exports = 'one';\n");
    Scenario::new(project, &[node.as_str(), "main.js"], "lib/late.js").check(
        "module.exports = 'two';\n",
        "module.exports = 'three, and longer';\n",
    );
}

#[test]
fn an_http_server_answers_after_the_resume() {
    use crate::harness::Save;
    use std::io::{Read, Write};
    let node = require_guest!("node");
    let main = r#"
const http = require('http');
let late, count = 0;
const server = http.createServer((request, response) => {
  response.setHeader('connection', 'close');
  response.end(`${late} ${++count}`);
});
server.listen(0, '127.0.0.1', () => {
  console.log('early', server.address().port);
  require('./lib/work')(400);
  late = require('./lib/late');
  console.log('ready', late);
});
"#;
    let mut project = Project::new("node-http")
        .file("main.js", main)
        .file("lib/work.js", WORK)
        .file("lib/late.js", "module.exports = 'one';\n");
    let mut forkmon = project.watch(&[node.as_str(), "main.js"]);
    let first = forkmon.wait_output("ready one\n");
    let port: u16 = first.split_whitespace().nth(1).unwrap().parse().unwrap();
    let ask = || {
        let mut stream =
            std::net::TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream
            .set_read_timeout(Some(crate::harness::PATIENCE))
            .unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the server answers");
        answer
    };
    assert!(ask().ends_with("one 1"));
    for (value, how) in [("two", Save::InPlace), ("three", Save::ByRename)] {
        project.save(
            "lib/late.js",
            &format!("module.exports = '{value}';\n"),
            how,
        );
        assert!(forkmon.wait_resume().from.is_some(), "from a checkpoint");
        assert_eq!(
            forkmon.wait_output(&format!("ready {value}\n")),
            format!("ready {value}\n")
        );
        for count in 1..=3 {
            let answer = ask();
            assert!(answer.ends_with(&format!("{value} {count}")), "{answer}");
        }
    }
    forkmon.finish();
}
