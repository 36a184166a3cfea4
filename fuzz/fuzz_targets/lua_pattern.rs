//! A pattern comes from the environment, a subject is any path.
#![no_main]

use forkmon::lua_pattern::Pattern;

libfuzzer_sys::fuzz_target!(|input: (&[u8], &[u8])| {
    let (pattern, subject) = input;
    if let Ok(pattern) = Pattern::new(pattern)
        && let Ok(Some(found)) = pattern.find(subject)
    {
        assert!(found.start <= found.end && found.end <= subject.len());
    }
});
