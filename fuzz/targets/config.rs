#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shardless_fuzz::config::check(bytes));
