//! Python: packages with byte code caches, threads, and an asyncio server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::{Project, Save, Scenario};
use crate::require_guest;

const WORK: &str = r#"
import time

def work(seconds):
    stop, x = time.process_time() + seconds, 0
    while time.process_time() < stop:
        for i in range(10000):
            x = (x * 31 + i) % 1000003
"#;

const MAIN: &str = r#"
print("early 1", flush=True)
from package.work import work
work(0.3)
print("after the work", flush=True)
from package import late
print("late", late.VALUE, flush=True)
"#;

fn package(name: &str) -> Project {
    Project::new(name)
        .file("main.py", MAIN)
        .file("package/__init__.py", "")
        .file("package/work.py", WORK)
        .file("package/late.py", "VALUE = 1111\n")
}

#[test]
fn python_resumes_before_a_module_of_a_package() {
    let python = require_guest!("python3");
    Scenario::new(
        package("python"),
        &[python.as_str(), "main.py"],
        "package/late.py",
    )
    .check_saves(&[
        ("VALUE = 'two'\n", Save::InPlace),
        ("VALUE = 'three, and longer'\n", Save::ByRename),
        ("VALUE = 4 +\n", Save::InPlace),
        ("VALUE = 'five'\n", Save::LikeVim),
    ]);
}

/// Python trusts its byte code when the source has the same size and the same
/// second of modification. The byte code of the dropped run would be stale.
#[test]
fn a_module_edited_within_the_second_and_to_the_same_size_is_seen() {
    let python = require_guest!("python3");
    let argv = [python.as_str(), "main.py"];
    let mut project = package("python-second");
    let path = project.path("package/late.py");
    let second = Duration::from_secs(1_700_000_000);
    let at = |part: u64| std::time::UNIX_EPOCH + second + Duration::from_millis(part);
    let set_time = |path: &std::path::Path, part| {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(at(part)).unwrap();
    };
    set_time(&path, 100);
    let mut forkmon = project.watch(&argv);
    let first = forkmon.wait_exit();
    assert!(first.output.ends_with("late 1111\n"), "{first:?}");
    assert!(
        project.path("package/__pycache__").exists(),
        "Python wrote its byte code"
    );
    for (part, value) in [(200, "2222"), (300, "3333"), (400, "4444")] {
        let text = format!("VALUE = {value}\n");
        let temporary = project.path("package/.goutputstream-Q1W2E3");
        std::fs::write(&temporary, &text).unwrap();
        set_time(&temporary, part);
        std::fs::rename(&temporary, &path).unwrap();
        project.note("package/late.py", &text);
        assert!(forkmon.wait_resume().from.is_some(), "from a checkpoint");
        assert_eq!(forkmon.wait_exit().output, format!("late {value}\n"));
    }
    forkmon.finish();
}

/// The byte code of an earlier day is there at the start, and is used.
#[test]
fn byte_code_that_was_there_before_does_no_harm() {
    let python = require_guest!("python3");
    let argv = [python.as_str(), "main.py"];
    let mut project = package("python-cache");
    let plain = std::process::Command::new(&python)
        .arg("main.py")
        .current_dir(project.root())
        .env_remove("PYTHONDONTWRITEBYTECODE")
        .output()
        .unwrap();
    assert!(plain.status.success());
    assert!(project.path("package/__pycache__").exists());
    let mut forkmon = project.watch(&argv);
    assert!(forkmon.wait_exit().output.ends_with("late 1111\n"));
    project.save("package/late.py", "VALUE = 'two'\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "late two\n");
    project.save("package/late.py", "VALUE = 'three'\n", Save::ByRename);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "late three\n");
    forkmon.finish();
}

#[test]
fn a_background_thread_goes_on_after_the_resume() {
    let python = require_guest!("python3");
    let main = r#"
import queue, threading
print("early 1", flush=True)
questions, answers = queue.Queue(), queue.Queue()
local = threading.local()

def answer():
    local.name = "thread"
    while True:
        answers.put((local.name, questions.get().upper()))

threading.Thread(target=answer, daemon=True).start()
ticks = []
stop = threading.Event()
ticker = threading.Thread(target=lambda: [ticks.append(1) for _ in iter(lambda: stop.wait(0.01), True)])
ticker.start()
from package.work import work
work(0.3)
questions.put("warm")
print("after the work", *answers.get(), flush=True)
from package import late
before = len(ticks)
questions.put(late.VALUE)
print("late", *answers.get(), flush=True)
while len(ticks) < before + 3:
    stop.wait(0.01)
stop.set()
ticker.join(10)
print("the ticker went on and ended", not ticker.is_alive(), flush=True)
"#;
    let project = package("python-thread")
        .file("main.py", main)
        .file("package/late.py", "VALUE = 'one'\n");
    Scenario::new(project, &[python.as_str(), "main.py"], "package/late.py")
        .check("VALUE = 'two'\n", "VALUE = 'three, and longer'\n");
}

#[test]
fn an_asyncio_server_accepts_connections_after_the_resume() {
    let python = require_guest!("python3");
    let main = r#"
import asyncio, os
from package.work import work
count = 0

async def serve(reader, writer):
    global count
    count += 1
    question = await reader.readline()
    await asyncio.sleep(0.01)
    writer.write(f"{late.VALUE} {count} ".encode() + question)
    await writer.drain()
    writer.close()

async def main():
    global late
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("early", server.sockets[0].getsockname()[1], flush=True)
    ticks = 0
    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1
    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    work(0.3)
    from package import late
    print("late", late.VALUE, flush=True)
    before = ticks
    while ticks < before + 2:
        await asyncio.sleep(0.01)
    print("ready", os.getpid() == PID, flush=True)
    await server.serve_forever()

PID = os.getpid()
asyncio.run(main())
"#;
    let mut project = package("python-asyncio")
        .file("main.py", main)
        .file("package/late.py", "VALUE = 'one'\n");
    let mut forkmon = project.watch(&[python.as_str(), "main.py"]);
    let first = forkmon.wait_output("ready True\n");
    let port: u16 = first.split_whitespace().nth(1).unwrap().parse().unwrap();
    let ask = |question: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream
            .set_read_timeout(Some(crate::harness::PATIENCE))
            .unwrap();
        writeln!(stream, "{question}").unwrap();
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the server answers");
        answer
    };
    assert_eq!(ask("hello"), "one 1 hello\n");
    assert_eq!(ask("again"), "one 2 again\n");
    for (value, how) in [
        ("two", Save::InPlace),
        ("three", Save::ByRename),
        ("four", Save::InPlace),
    ] {
        project.save("package/late.py", &format!("VALUE = '{value}'\n"), how);
        assert!(forkmon.wait_resume().from.is_some(), "from a checkpoint");
        let output = forkmon.wait_output("ready True\n");
        assert_eq!(output, format!("late {value}\nready True\n"));
        // The two connections of the dropped run have never happened.
        assert_eq!(ask("hello"), format!("{value} 1 hello\n"));
        assert_eq!(ask("again"), format!("{value} 2 again\n"));
    }
    forkmon.finish();
}
