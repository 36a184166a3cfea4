//! What `/proc` says of a guest holds names that the guest chooses.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| snapshot::fuzzing::parse_proc_text(text));
