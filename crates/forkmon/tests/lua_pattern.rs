//! The Lua patterns, held against the real `lua5.4`, against a list of what Lua
//! refuses, and against time.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use forkmon::lua_pattern::{Pattern, Problem, TooManySteps};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Reads `pattern subject` in hexadecimal, one pair a line, and answers with
/// `first last`, `nil` or `error: …`.
const LUA_PROGRAM: &str = r"
local function text(hex)
  return (hex:sub(2):gsub('..', function(two) return string.char(tonumber(two, 16)) end))
end
for line in io.lines() do
  local pattern, subject = line:match('^(%S+) (%S+)$')
  local fine, first, last = pcall(string.find, text(subject), text(pattern))
  if not fine then print('error: ' .. first:gsub('\n', ' '))
  elseif first then print(first .. ' ' .. last)
  else print('nil') end
end
";

/// What Lua's `string.find` answered.
#[derive(Debug, PartialEq)]
enum Answer {
    /// The bytes of the match, from 0, the end excluded.
    Found(usize, usize),
    Nil,
    Refused(String),
}

/// Asks one `lua5.4` about all of them; nothing if there is none.
fn ask_lua(pairs: &[(Vec<u8>, Vec<u8>)]) -> Option<Vec<Answer>> {
    let child = Command::new("lua5.4")
        .args(["-e", LUA_PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            let required = std::env::var_os("FORKMON_REQUIRE_GUESTS").is_some_and(|set| set == "1");
            assert!(!required, "lua5.4 is required and cannot be run: {error}");
            // Past the capture of the test's output.
            let line = "SKIPPED: lua5.4 is not installed (apt-get install lua5.4)\n";
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
    };
    let mut question = String::new();
    for (pattern, subject) in pairs {
        // The x keeps an empty text a word.
        for (text, end) in [(pattern, ' '), (subject, '\n')] {
            question.push('x');
            for byte in text {
                write!(question, "{byte:02x}").unwrap();
            }
            question.push(end);
        }
    }
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(question.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let answers: Vec<Answer> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| match line.split_once(' ') {
            _ if line == "nil" => Answer::Nil,
            Some(("error:", problem)) => Answer::Refused(problem.to_owned()),
            Some((first, last)) => {
                let first: usize = first.parse().unwrap();
                Answer::Found(first - 1, last.parse().unwrap())
            }
            None => panic!("lua5.4 answered {line:?}"),
        })
        .collect();
    assert_eq!(answers.len(), pairs.len());
    Some(answers)
}

/// Our own answer, if the pattern is well formed.
fn ours(pattern: &[u8], subject: &[u8]) -> Result<Answer, Problem> {
    let pattern = Pattern::new(pattern).map_err(|error| error.problem)?;
    Ok(match pattern.find(subject).unwrap() {
        Some(found) => Answer::Found(found.start, found.end),
        None => Answer::Nil,
    })
}

/// Pieces that patterns are made of: few characters, so that they often match,
/// and everything that has a meaning.
const PIECES: &[&str] = &[
    "a", "b", "c", "A", "1", " ", "-", "]", "[", "^", "$", "(", ")", "()", ".", "%", "*", "+", "?",
    "-", "a*", "b+", "c?", "a-", ".-", ".*", "%a", "%A", "%d", "%s", "%w", "%W", "%p", "%x", "%c",
    "%g", "%l", "%u", "%z", "%S", "%D", "%.", "%%", "%(", "%-", "%]", "%1", "%2", "%0", "%9",
    "%bab", "%b()", "%baa", "%b", "%f[a]", "%f[%w]", "%f[^a]", "%f[%z]", "%f", "[abc]", "[^ab]",
    "[a-c]", "[%a1]", "[]]", "[^]]", "[]-a]", "[a-]", "[-a]", "[%a-z]", "[a-%z]", "[%]]", "[^%s]",
    "[a-", "[]", "[^]", "[%", "(a*)", "(.-)", "(%a+)", "(ab", "()a()", "\0", "\u{e9}", "[\0-a]",
    "[a-a]", "[c-a]", "[a-c-e]", "[--a]", "[%--a]", "[a%-c]", "[[]", "[.]", "[$^]", "[+-]",
];

const SUBJECT_BYTES: &[u8] = b"aaabbbccAB12 .-%()[]^$\0\n\xc3\xa9";

/// The same pairs each time: a difference is a fault, not weather.
fn random_pairs(count: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    use proptest::collection::vec;
    use proptest::sample::select;
    let piece = select(PIECES).prop_map(|piece| piece.as_bytes().to_vec());
    let byte = proptest::num::u8::ANY.prop_map(|byte| vec![byte]);
    let pattern =
        vec(proptest::prop_oneof![20 => piece, 1 => byte], 0..8).prop_map(|pieces| pieces.concat());
    let anchored = (proptest::bool::weighted(0.2), pattern).prop_map(|(anchored, pattern)| {
        let mut text = if anchored { b"^".to_vec() } else { Vec::new() };
        text.extend(pattern);
        text
    });
    let subject = vec(select(SUBJECT_BYTES), 0..24);
    let pair = (anchored, subject);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, b"patterns that lua5.4 must agree.");
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..count)
        .map(|_| pair.new_tree(&mut runner).unwrap().current())
        .collect()
}

#[test]
fn random_patterns_find_what_lua_finds() {
    let pairs = random_pairs(40_000);
    let Some(answers) = ask_lua(&pairs) else {
        return;
    };
    let (mut found, mut nil, mut refused_by_both) = (0, 0, 0);
    for ((pattern, subject), lua) in pairs.iter().zip(answers) {
        let shown = format!(
            "\"{}\" in \"{}\"",
            pattern.escape_ascii(),
            subject.escape_ascii()
        );
        match ours(pattern, subject) {
            Ok(ours) => {
                assert_eq!(ours, lua, "{shown}");
                match ours {
                    Answer::Found(..) => found += 1,
                    _ => nil += 1,
                }
            }
            // Lua looks at a part of a pattern only when a match gets there, so
            // it may give an answer; but if it complains, then about the same.
            Err(problem) => {
                if let Answer::Refused(lua) = lua {
                    assert!(
                        is_same_complaint(&problem, &lua),
                        "{shown}: {problem:?}, {lua}"
                    );
                    refused_by_both += 1;
                }
            }
        }
    }
    // The comparison is worth nothing if it is about one kind of answer only.
    for (count, what) in [(found, "found"), (nil, "nil"), (refused_by_both, "refused")] {
        assert!(count > 2_000, "only {count} {what}");
    }
}

/// A pattern can have several faults, and Lua may meet another one first.
fn is_same_complaint(problem: &Problem, lua: &str) -> bool {
    let about = |words: &str| lua.contains(words);
    match problem {
        Problem::EndsWithPercent => about("ends with '%'"),
        Problem::MissingBracket => about("missing ']'"),
        Problem::MissingBalanceArguments => about("missing arguments to '%b'"),
        Problem::MissingFrontierSet => about("missing '[' after '%f'"),
        Problem::InvalidPatternCapture => about("invalid pattern capture"),
        Problem::UnfinishedCapture => about("unfinished capture"),
        Problem::InvalidCaptureIndex(index) => about(&format!("invalid capture index %{index}")),
        Problem::TooManyCaptures => about("too many captures"),
        Problem::TooComplex => about("pattern too complex"),
    }
}

/// Everything malformed, with a subject on which Lua notices.
fn malformed() -> Vec<(Vec<u8>, &'static str, Problem)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (text("%"), "a", Problem::EndsWithPercent),
        (text("a%"), "a", Problem::EndsWithPercent),
        (text("["), "a", Problem::MissingBracket),
        (text("[a"), "a", Problem::MissingBracket),
        (text("[]"), "a", Problem::MissingBracket),
        (text("[^]"), "a", Problem::MissingBracket),
        (text("[%]"), "a", Problem::MissingBracket),
        (text("[a%"), "a", Problem::MissingBracket),
        (text("[a-%]"), "a", Problem::MissingBracket),
        (text("%f[a"), "a", Problem::MissingBracket),
        (text("%b"), "a", Problem::MissingBalanceArguments),
        (text("%bx"), "a", Problem::MissingBalanceArguments),
        (text("%f"), "a", Problem::MissingFrontierSet),
        (text("%fa"), "a", Problem::MissingFrontierSet),
        (text("a?)"), "a", Problem::InvalidPatternCapture),
        (text("(a))"), "a", Problem::InvalidPatternCapture),
        (text("())"), "a", Problem::InvalidPatternCapture),
        (text("("), "a", Problem::UnfinishedCapture),
        (text("((a)"), "a", Problem::UnfinishedCapture),
        (text("%0"), "a", Problem::InvalidCaptureIndex(0)),
        (text("%1"), "a", Problem::InvalidCaptureIndex(1)),
        (text("(a%1)"), "aa", Problem::InvalidCaptureIndex(1)),
        (text("(a)%2"), "aa", Problem::InvalidCaptureIndex(2)),
        ("()".repeat(33).into_bytes(), "a", Problem::TooManyCaptures),
        ("a?".repeat(200).into_bytes(), "", Problem::TooComplex),
    ]
}

#[test]
fn what_lua_refuses_is_refused_before_any_match() {
    for (pattern, _, problem) in malformed() {
        let error = Pattern::new(&pattern).unwrap_err();
        assert_eq!(error.problem, problem, "{}", pattern.escape_ascii());
        let told = error.to_string();
        let name = pattern.escape_ascii().to_string();
        assert!(told.contains(&name), "{told} does not name {name}");
    }
}

#[test]
fn lua_refuses_the_same() {
    // Two hundred optional items fail in Lua on a subject that takes them all.
    let pairs: Vec<_> = malformed()
        .into_iter()
        .map(|(pattern, subject, problem)| match problem {
            Problem::TooComplex => (pattern, vec![b'a'; 300]),
            _ => (pattern, subject.as_bytes().to_vec()),
        })
        .collect();
    let Some(answers) = ask_lua(&pairs) else {
        return;
    };
    for ((pattern, _, problem), answer) in malformed().into_iter().zip(answers) {
        match answer {
            Answer::Refused(lua) => {
                assert!(is_same_complaint(&problem, &lua), "{problem:?}: {lua}")
            }
            other => panic!("lua5.4 answers {other:?} to {}", pattern.escape_ascii()),
        }
    }
}

#[test]
fn the_deepest_pattern_that_lua_follows_is_followed() {
    let pattern = "a?".repeat(199).into_bytes();
    let subject = vec![b'a'; 300];
    let expected = Answer::Found(0, 199);
    assert_eq!(ours(&pattern, &subject), Ok(expected));
    if let Some(answers) = ask_lua(&[(pattern, subject)]) {
        assert_eq!(answers, [Answer::Found(0, 199)]);
    }
}

#[test]
fn classes_agree_with_lua_on_every_byte() {
    let letters = (b'a'..=b'z').chain(b'A'..=b'Z');
    let pairs: Vec<_> = letters
        .filter(|letter| !b"bf".contains(letter))
        .flat_map(|letter| (0..=u8::MAX).map(move |byte| (vec![b'%', letter], vec![byte])))
        .collect();
    let Some(answers) = ask_lua(&pairs) else {
        return;
    };
    for ((pattern, subject), lua) in pairs.iter().zip(answers) {
        let ours = ours(pattern, subject).unwrap();
        assert_eq!(ours, lua, "{} {subject:?}", pattern.escape_ascii());
    }
}

#[test]
fn the_manual_s_examples_hold() {
    let found = |pattern: &str, subject: &str| {
        let pattern = Pattern::new(pattern.as_bytes()).unwrap();
        pattern.find(subject.as_bytes()).unwrap()
    };
    assert_eq!(found("%b()", "f(a(b)c)d)"), Some(1..8));
    assert_eq!(found("%f[%w]%w+", "  the end"), Some(2..5));
    assert_eq!(found("(%a)%1", "hello"), Some(2..4));
    assert_eq!(found("^l", "hello"), None);
    assert_eq!(found("o$", "hello"), Some(4..5));
    assert_eq!(found("%.lua$", "/home/u/project/main.lua"), Some(20..24));
    assert_eq!(found("", ""), Some(0..0));
}

#[test]
fn without_special_characters_it_is_plain_text() {
    let pairs = [("a)", "(a)"), (")", "a"), ("]", "a]"), ("}{", "a}{")];
    let pairs = pairs.map(|(pattern, subject)| (pattern.into(), subject.into()));
    let ours = pairs
        .clone()
        .map(|(pattern, subject): (Vec<u8>, Vec<u8>)| ours(&pattern, &subject).unwrap());
    assert_eq!(ours[0], Answer::Found(1, 3));
    if let Some(answers) = ask_lua(&pairs) {
        assert_eq!(answers, ours);
    }
}

#[test]
fn repetitions_do_not_multiply() {
    let subject = [b'a'; 4096];
    let path = format!("/{}", "folder/".repeat(580));
    for (pattern, subject, expected) in [
        ("a-".repeat(150) + "b", &subject[..], None),
        ("a*".repeat(150) + "b", &subject[..], None),
        ("(a+)".repeat(30) + "b", &subject[..], None),
        ("a?".repeat(190) + "b", &subject[..], None),
        ("a-".repeat(150) + "$", &subject[..], Some(0..4096)),
        (".-/".repeat(100) + ".-%.lua$", path.as_bytes(), None),
        ("^.*/src/.*%.lua$".to_owned(), path.as_bytes(), None),
    ] {
        let found = Pattern::new(pattern.as_bytes()).unwrap().find(subject);
        assert_eq!(found, Ok(expected), "{pattern}");
    }
}

#[test]
fn a_back_reference_that_tries_without_end_is_given_up() {
    let pattern = format!("(a-){}%1b", "a-".repeat(40));
    let pattern = Pattern::new(pattern.as_bytes()).unwrap();
    let started = Instant::now();
    assert_eq!(pattern.find(&[b'a'; 4096]), Err(TooManySteps));
    // Not a measurement: unbounded, it would take longer than the universe.
    assert!(started.elapsed() < Duration::from_secs(60));

    let path = format!("/{}", "folder/".repeat(580));
    let pattern = Pattern::new(b"/(%w+)/%1/.*%.lua$").unwrap();
    assert_eq!(pattern.find(path.as_bytes()), Ok(None));
}
