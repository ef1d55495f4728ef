//! Bodies of cancels, functions, code and asynchronous configurations.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| api::fuzzing::bodies(bytes));
