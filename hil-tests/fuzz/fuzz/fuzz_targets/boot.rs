#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| seimon_fuzz::targets::boot(bytes));
