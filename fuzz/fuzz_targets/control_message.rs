//! Whoever can connect to the control socket can send any line to forkmon, and
//! whatever listens on a socket can answer `forkmon ctl` with any line.
#![no_main]

use forkmon::control::{Reply, Request};

libfuzzer_sys::fuzz_target!(|line: &[u8]| {
    if let Ok(request) = Request::parse(line) {
        let again = Request::parse(request.to_line().as_bytes());
        assert_eq!(again, Ok(request));
    }
    if let Ok(reply) = Reply::parse(line) {
        let text = reply.to_line();
        assert_eq!(text.find('\n'), Some(text.len() - 1));
        // Numbers may be rounded once, and then no more.
        let again = Reply::parse(text.as_bytes()).map(|again| again.to_line());
        assert!(again.is_ok());
        if let Reply::Status(status) = &reply {
            for line in forkmon::control::table::lines(status, Some(80)) {
                assert!(line.chars().count() <= 80);
                assert!(!line.chars().any(char::is_control));
            }
        }
    }
});
